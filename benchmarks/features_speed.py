"""Compare the speed of a frozen backbone in the embed stage with eager PyTorch.

Run `python -m benchmarks.features_speed [NAME [WEIGHTS [SIZE]]]` on an otherwise idle machine. Each
variant runs in a separate process on the same photos, in batches of 32, and the variants alternate.
The output shows medians, and ratios to eager PyTorch with channels_last. The embed stage uses ONNX
Runtime if it is installed.
"""

import multiprocessing
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.machine import name_processor
from benchmarks.rates import measure_rate
from phototag.network.features import BATCH
from phototag.network.model import build_backbones
from phototag.network.params import FeatureSpec
from phototag.network.runtime import Session, accelerate, keep_freed_memory

TURNS = 5
STOCK = "eager, channels_last"
LAYERS = "ONNX Runtime, each layer on all cores"
WAYS = ("eager", STOCK, f"{STOCK}, kept memory", LAYERS, "embed")
PREPARED: dict[str, Any] = {}  # network and batch of this process


def main() -> None:
    """Measure all variants; print medians, ratios and the largest difference of a feature."""
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
    print(f"  largest difference of a feature: {off:.1e} of the largest feature")
    for worker in workers.values():
        worker.shutdown()


def prepare(way: str, name: str, weights: str | None, size: int) -> None:
    """Build the network and the batch of photos for the variant measured in this process."""
    if way in WAYS[2:]:  # the embed stage does this too
        keep_freed_memory()
    torch.manual_seed(0)  # random weights if `weights` is None
    network = build_backbones(FeatureSpec(((name, weights),), size), size).eval()
    images = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), np.uint8)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    if way == "eager":
        network.to(memory_format=torch.contiguous_format)
        batch = batch.contiguous()
    run: Callable[[Tensor], Tensor] = network
    if way in WAYS[3:]:
        run = accelerate(network, batch[:2])
    if way == LAYERS:
        session = cast(Session, run).session_on_all_cores

        def run(images: Tensor) -> Tensor:
            return torch.from_numpy(session.run(None, {"images": images.contiguous().numpy()})[0])

    PREPARED.update(network=run, batch=batch)


@torch.inference_mode()
def compute() -> np.ndarray:
    """Return the features of the batch, float32 [BATCH, num_features]."""
    features: np.ndarray = PREPARED["network"](PREPARED["batch"]).numpy()
    return features


@torch.inference_mode()
def measure() -> float:
    """Return the number of photos processed per second."""
    return measure_rate(lambda: PREPARED["network"](PREPARED["batch"]), BATCH)


if __name__ == "__main__":
    main()
