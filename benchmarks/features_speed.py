"""How fast a frozen backbone's features are computed, beside eager PyTorch and timm.

`python -m benchmarks.features_speed [NAME [WEIGHTS [SIZE]]]`, on an otherwise idle machine: the
ways take turns in one process, on the same photos in batches of 32; medians and ratios to eager
channels_last are printed. The stage `embed` takes the last way where ONNX Runtime is installed.
"""

import statistics
import sys
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.machine import name_processor
from benchmarks.rates import measure_rate
from phototag.network.allocator import keep_freed_memory
from phototag.network.features import BATCH
from phototag.network.model import build_backbones
from phototag.network.runtime import accelerate

TURNS = 5


def main() -> None:
    """Take turns, and print medians, ratios and how far the features are apart."""
    keep_freed_memory()
    given = sys.argv[1:] + [None] * 3
    name, weights = given[0] or "timm/tf_efficientnet_lite0", given[1]
    size = int(given[2] or 128)
    images = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), np.uint8)
    last = build_backbones(name, weights, size).eval()
    plain = build_backbones(name, weights, size).eval()
    plain.load_state_dict(last.state_dict())
    plain.to(memory_format=torch.contiguous_format)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    first = batch.contiguous()
    fast = accelerate(last, batch[:2])
    ways: dict[str, Callable[[], object]] = {
        "eager": lambda: plain(first),
        "eager, channels_last": lambda: last(batch),
        "embed": lambda: fast(batch),
    }
    with torch.inference_mode():
        off = float((fast(batch) - last(batch)).abs().max() / last(batch).abs().max())
        turns = [{way: measure_rate(run, BATCH) for way, run in ways.items()} for _ in range(TURNS)]
    rates = {way: statistics.median(turn[way] for turn in turns) for way in ways}
    threads = torch.get_num_threads()
    print(f"{name} at {size} pixels, {threads} threads, {name_processor()}")
    for way, rate in rates.items():
        print(f"  {way:22}{rate:7.0f} photos/s  {rate / rates['eager, channels_last']:5.2f}")
    print(f"  features differ by {off:.1e} of the largest")


if __name__ == "__main__":
    main()
