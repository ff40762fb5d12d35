"""Compare the inference speed of ONNX Runtime and PyTorch on the CPU.

Run `python -m benchmarks.onnx_speed` after `dvc repro`.
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from benchmarks.rates import measure_rate
from phototag.apps.export import export_onnx
from phototag.cli.models import MODEL, THRESHOLDS
from phototag.network.runtime import keep_freed_memory
from phototag.serving.tagger import load_tagger

TURNS = 5


def main() -> None:
    """Measure both runtimes with batches of 1 and 64 photos; print medians and ratios."""
    keep_freed_memory()
    tagger = load_tagger(MODEL, THRESHOLDS)
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(tagger, Path(folder, "model.onnx"))
        session = onnxruntime.InferenceSession(Path(folder, "model.onnx"))
        for batch in (1, 64):
            shape = (batch, 3, tagger.size, tagger.size)
            images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            tensor = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
            ways: dict[str, Callable[[], object]] = {
                "PyTorch": lambda tensor=tensor: tagger.network(tensor),  # type: ignore[misc]
                "ONNX Runtime": lambda images=images: session.run(None, {"images": images}),  # type: ignore[misc]
            }
            with torch.inference_mode():
                turns = [
                    {name: measure_rate(run, batch) for name, run in ways.items()}
                    for _ in range(TURNS)
                ]
            rates = {name: statistics.median(turn[name] for turn in turns) for name in ways}
            ratio = rates["ONNX Runtime"] / rates["PyTorch"]
            shown = ", ".join(f"{name} {rate:.0f} photos/s" for name, rate in rates.items())
            print(f"batches of {batch}: {shown}; ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
