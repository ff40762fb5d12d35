"""Measure one library or phototag in the current environment; print the result as JSON."""

import importlib
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any


def measure_library(module: str, folder: Path, photos: Path, epochs: int) -> dict[str, Any]:
    """Train with a library's script; return seconds, val loss and micro F1 for each epoch."""
    ends: list[float] = []
    train = importlib.import_module(f"benchmarks.alternatives.{module}").train
    start = time.perf_counter()
    scores = train(
        folder / "photos.csv", photos, epochs, 0, lambda *_, **__: ends.append(time.perf_counter())
    )
    return _collect([start, *ends], scores)


def measure_phototag(folder: Path) -> dict[str, Any]:
    """Train like the train stage; return seconds, val loss and micro F1 for each epoch."""
    import torch

    from phototag.base.files import read_json
    from phototag.dataset.dataset import read_datasets
    from phototag.network.model import build_model, initialize
    from phototag.schema.params import read_all_params
    from phototag.training.loop import fit

    params, data = read_all_params(folder / "params.yaml"), folder / "data"
    sets = read_datasets(data / "images.npy", data / "manifest.csv", data / "splits.csv")
    train, val, stats = sets["train"], sets["val"], read_json(data / "stats.json")
    torch.manual_seed(params.seed)
    network = build_model(
        params.model, len(train.labels), params.resize.size, stats["mean"], stats["std"]
    )
    initialize(network, params.model, torch.from_numpy(train.targets).float().mean(dim=0))
    ends, scores = [time.perf_counter()], []
    for epoch in fit(network, train, val, params):
        ends.append(time.perf_counter())
        scores.append([epoch["val_loss"], epoch["f1_micro"]])
    return _collect(ends, scores)


def _collect(ends: list[float], scores: list[list[float]]) -> dict[str, Any]:
    seconds = [end - start for start, end in itertools.pairwise(ends)]
    losses, f1 = zip(*scores, strict=True)
    return {"seconds": seconds, "val_loss": losses, "f1": f1}


def main() -> None:
    """Measure the training selected on the command line, and print the result."""
    side, folder, photos, epochs = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    if side == "phototag":
        result = measure_phototag(folder)
    else:
        result = measure_library(side, folder, photos, int(epochs))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
