"""Compute statistics of train: data/{images.npy,manifest.csv,splits.csv} -> data/stats.json."""

from pathlib import Path

import numpy as np
import pandas as pd

from phototag.base.files import write_json
from phototag.dataset.manifest import label_names, label_targets, read_kept
from phototag.dataset.stats import channel_stats
from phototag.dataset.targets import all_known, is_known

from . import run


def main() -> None:
    """Write channel means, standard deviations and label counts of the train split."""
    manifest = read_kept(Path("data/manifest.csv"))
    splits = pd.read_csv("data/splits.csv", keep_default_na=False)
    train = np.flatnonzero(splits["split"] == "train")

    mean, std = channel_stats(Path("data/images.npy"), train)
    targets = label_targets(manifest)[train]
    counts = {"label_counts": targets > 0}
    if not all_known(targets):
        counts["known_counts"] = is_known(targets)
    stats = {"num_images": len(train), "mean": mean.tolist(), "std": std.tolist()} | {
        name: dict(zip(label_names(manifest), part.sum(axis=0).tolist(), strict=True))
        for name, part in counts.items()
    }
    write_json(Path("data/stats.json"), stats)


if __name__ == "__main__":
    run(main)
