"""How fast a frozen backbone's features are computed, beside eager PyTorch and timm.

`python -m benchmarks.features_speed [NAME [WEIGHTS [SIZE]]]`, on an otherwise idle machine: the
ways take turns, each in a process of its own, on the same photos in batches of 32; medians and
ratios to a stock loop, eager channels_last, are printed. The stage `embed` takes the last way where
ONNX Runtime is installed.
"""

import multiprocessing
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch

from benchmarks.machine import name_processor
from benchmarks.rates import measure_rate
from phototag.network.allocator import keep_freed_memory
from phototag.network.features import BATCH
from phototag.network.model import build_backbones
from phototag.network.runtime import accelerate

TURNS = 5
STOCK = "eager, channels_last"
WAYS = ("eager", STOCK, f"{STOCK}, kept memory", "embed")
PREPARED: dict[str, Any] = {}  # of each process its own


def main() -> None:
    """Take turns, and print medians, ratios and how far the features are apart."""
    given = sys.argv[1:] + [None] * 3
    name, weights = given[0] or "timm/tf_efficientnet_lite0", given[1]
    size = int(given[2] or 128)
    spawn = multiprocessing.get_context("spawn")
    workers = {
        way: ProcessPoolExecutor(1, spawn, prepare, (way, name, weights, size)) for way in WAYS
    }
    stock, ours = (workers[way].submit(compute).result() for way in (STOCK, "embed"))
    turns = [{way: workers[way].submit(measure).result() for way in WAYS} for _ in range(TURNS)]
    rates = {way: statistics.median(turn[way] for turn in turns) for way in WAYS}
    print(f"{name} at {size} pixels, {torch.get_num_threads()} threads, {name_processor()}")
    for way, rate in rates.items():
        print(f"  {way:34}{rate:7.0f} photos/s  {rate / rates[STOCK]:5.2f}")
    off = np.abs(ours - stock).max() / np.abs(stock).max()
    print(f"  features differ by {off:.1e} of the largest")
    for worker in workers.values():
        worker.shutdown()


def prepare(way: str, name: str, weights: str | None, size: int) -> None:
    """Build what a process measures."""
    if way in WAYS[2:]:  # as embed does
        keep_freed_memory()
    torch.manual_seed(0)  # of backbones without weights
    network = build_backbones(name, weights, size).eval()
    images = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), np.uint8)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    if way == "eager":
        network.to(memory_format=torch.contiguous_format)
        batch = batch.contiguous()
    PREPARED.update(network=accelerate(network, batch[:2]) if way == "embed" else network)
    PREPARED.update(batch=batch)


@torch.inference_mode()
def compute() -> np.ndarray:
    """Compute the features of a batch, float32 [BATCH, width]."""
    features: np.ndarray = PREPARED["network"](PREPARED["batch"]).numpy()
    return features


@torch.inference_mode()
def measure() -> float:
    """Measure photos a second."""
    return measure_rate(lambda: PREPARED["network"](PREPARED["batch"]), BATCH)


if __name__ == "__main__":
    main()
