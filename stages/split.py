"""Split photos: data/manifest.csv -> data/splits.csv, reports/split/rates.csv."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from phototag.base.files import write_table
from phototag.base.params import read_params
from phototag.dataset.groups import gather_groups
from phototag.dataset.manifest import SPLITS, label_names, label_targets, read_kept
from phototag.splitting.params import SplittingParams
from phototag.splitting.splits import split_groups, tabulate_rates, warn_rare

from . import run


def main() -> None:
    """Split the photos, write the tables, and warn about labels without positives in a split."""
    params = read_params(SplittingParams)
    manifest = read_kept(Path("data/manifest.csv"))
    targets = label_targets(manifest)
    fractions = (1 - params.split.val - params.split.test, params.split.val, params.split.test)

    columns = ("sha256", "duplicate_group", "source_group", "import")
    groups = gather_groups(*[list(manifest[column]) for column in columns])
    assigned = split_groups(targets, groups, fractions, params.seed, list(manifest["import"]))

    rates = tabulate_rates(targets, label_names(manifest), assigned)
    for message in warn_rare(rates):
        print(f"warning: {message}", file=sys.stderr)
    split = np.array(SPLITS)[assigned]
    splits = pd.DataFrame({"image": manifest["file"], "split": split, "group": groups})
    write_table(Path("data/splits.csv"), splits)
    write_table(Path("reports/split/rates.csv"), rates)


if __name__ == "__main__":
    run(main)
