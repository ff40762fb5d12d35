"""Measure the time, memory and output size of an evaluation with many labels.

Run `python -m benchmarks.evaluate_scale [LABELS [PHOTOS]]` (default: 1 000 labels and 10 000 test
photos; val has a fifth as many photos as test). Label frequencies follow a power law, and random
logits imitate a partly trained network. The benchmark runs the evaluate stage without MLflow.
"""

import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from benchmarks.machine import name_processor
from phototag.base.files import write_table
from phototag.base.timings import Timings
from phototag.dataset.dataset import Dataset
from phototag.evaluation.galleries import build_galleries
from phototag.evaluation.params import EvaluateParams
from phototag.evaluation.report import draw_figures, write_report
from phototag.evaluation.result import Evaluation, evaluate
from phototag.network.model import build_model
from phototag.network.params import ModelParams
from phototag.pages.escaping import escape_spreadsheet_cells

SIDE = 16


def draw_photos(
    num_labels: int, num_photos: int
) -> tuple[dict[str, Dataset], dict[str, np.ndarray]]:
    """Return a random dataset for each split, and random logits for val and test."""
    rng = np.random.default_rng(0)
    sizes = {"train": 2 * num_photos, "val": max(num_photos // 5, 1), "test": num_photos}
    total = sum(sizes.values())
    images = rng.integers(0, 256, (total, SIDE, SIDE, 3), np.uint8)
    # With 1 000 labels, a photo has 23 of them on average.
    rates = np.minimum(5 / (10 + np.arange(num_labels)), 0.4)
    labels = [f"label {number}" for number in range(num_labels)]
    datasets, logits, start = {}, {}, 0
    for split, size in sizes.items():
        rows = np.arange(start, start + size)
        start += size
        targets = (rng.random((size, num_labels), np.float32) < rates).astype(np.uint8)
        names = [f"images/im{row}.jpg" for row in rows]
        datasets[split] = Dataset(images, rows, targets, labels, names, names)
        if split != "train":
            noise = rng.standard_normal(targets.shape, np.float32)
            known = np.log(rates / (1 - rates)) - 1 + 3.0 * targets
            logits[split] = (known + 1.5 * noise).astype(np.float32)
    return datasets, logits


def write_all(result: Evaluation, folder: Path, timings: Timings) -> None:
    """Write the tables, figures and HTML report of an evaluation to a folder."""
    spec = ModelParams.model_validate(
        {"init": "he", "conv": [{"out": 8, "kernel": 3, "pool": 2}], "linear": []}
    )
    num_labels = len(result.chosen_on.labels)
    network = build_model(spec, num_labels, SIDE, [0.5] * 3, [0.2] * 3)
    for name, table in result.tables.items():
        write_table(folder / f"{name}.csv", escape_spreadsheet_cells(table))
    timings.end("tables")
    galleries = build_galleries(network, torch.device("cpu"), result)
    timings.end("galleries")
    history = pd.DataFrame(1.0, [0, 1], ["train_loss", "val_loss", "f1_micro", "f1_macro"])
    figures = draw_figures(result, history.assign(epoch=[1, 2]), folder / "figures")
    timings.end("figures")
    write_report(folder / "report.html", result, figures, galleries, origin="", facts={})
    timings.end("page")


def main() -> None:
    """Run the evaluation and print its time, peak memory and file sizes."""
    given = [int(argument) for argument in sys.argv[1:]]
    num_labels, num_photos = given + [1000, 10_000][len(given) :]
    datasets, logits = draw_photos(num_labels, num_photos)
    drawn = _peak()
    manifest = pd.DataFrame(640, range(len(datasets["val"].images)), ["width", "height"])
    params = EvaluateParams(prior_strength=10, calibrate=False, resamples=1000)
    timings, busy = Timings(), time.process_time()
    timings.end("random data")
    result = evaluate(datasets, logits, manifest, params, seed=0)
    timings.end("scores")
    with TemporaryDirectory() as folder:
        write_all(result, Path(folder), timings)
        largest = max(Path(folder, "figures").iterdir(), key=lambda file: file.stat().st_size)
        print(f"{num_labels} labels, {num_photos} photos on test; {name_processor()}")
        megabytes = {
            name: Path(folder, name).stat().st_size / 2**20
            for name in ("report.html", f"figures/{largest.name}", "predictions.csv")
        }
        print(f"{timings}; {time.process_time() - busy:.0f} s of CPU time after the random data")
        print(f"{_peak():.1f} GiB of peak memory, {drawn:.1f} of it before the evaluation")
        print(", ".join(f"{name} {size:.1f} MiB" for name, size in megabytes.items()))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
