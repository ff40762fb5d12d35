"""Compare the training speed of the variants in experiments.yaml.

Run `python -m benchmarks.networks VARIANT...` on an otherwise idle machine. Each variant trains in
a separate process, with its augmentations and weight averaging, and the variants alternate. The
table shows medians.
"""

import sys
from pathlib import Path

import pandas as pd
import yaml

from benchmarks.claims.claims import read_experiments
from benchmarks.claims.collection import RESULTS
from benchmarks.machine import name_processor
from benchmarks.train_speed import alternate, build_training, read_photos, time_epoch
from phototag.base.files import write_table
from phototag.base.keys import apply_overrides, flatten
from phototag.network.runtime import keep_freed_memory
from phototag.schema.params import Params


def measure(variant: str, folder: Path) -> float:
    """Train one epoch like the train stage; return images per second."""
    keep_freed_memory()
    params = read_variant(variant)
    dataset, _ = read_photos(folder)
    return time_epoch(build_training(params, dataset, params.precision), dataset)


def read_variant(variant: str) -> Params:
    """Return params.yaml with the overrides of a variant."""
    overrides = dict(flatten(read_experiments().variants[variant]))
    return Params.model_validate(
        apply_overrides(yaml.safe_load(Path("params.yaml").read_text()), overrides)
    )


def main() -> None:
    """Print images per second and write them to docs/research/results/."""
    variants = sys.argv[1:]
    rates = alternate(variants, measure)
    table = pd.DataFrame({"variant": variants, "images_per_second": rates.values()}).round(1)
    table["time"] = (rates[variants[0]] / table["images_per_second"]).round(2)
    table["processor"] = name_processor()
    write_table(RESULTS / "networks.csv", table)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
