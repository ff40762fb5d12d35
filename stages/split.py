"""Stratify: data/manifest.csv -> data/splits.csv."""

from pathlib import Path

import numpy as np
import pandas as pd

from phototag.files import replace_file
from phototag.manifest import SPLITS, label_targets, read_kept
from phototag.params import read_params
from phototag.splits import split_groups

from . import run


def main() -> None:
    """Run the stage."""
    params = read_params()
    manifest = read_kept(Path("data/manifest.csv"))
    fractions = (1 - params.split.val - params.split.test, params.split.val, params.split.test)

    # Byte-identical files are one group, so that no photo sits on both sides of a split.
    groups = manifest["sha256"]
    assigned = split_groups(label_targets(manifest), list(groups), fractions, params.seed)

    splits = pd.DataFrame(
        {"image": manifest["file"], "split": np.array(SPLITS)[assigned], "group": groups.str[:16]}
    )
    with replace_file(Path("data/splits.csv")) as temporary:
        splits.to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    run(main)
