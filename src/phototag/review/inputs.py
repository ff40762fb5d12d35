"""Paths of the files that the review reads, relative to the project's root."""

from pathlib import Path

from phototag.base.errors import InputError

IMAGES, MANIFEST, SPLITS = "data/images.npy", "data/manifest.csv", "data/splits.csv"
FEATURES, OUT_OF_FOLD = "data/features.npy", "models/out_of_fold.npy"
MODEL, THRESHOLDS = "models/model.safetensors", "reports/evaluate/thresholds.json"
INPUTS = (IMAGES, MANIFEST, SPLITS, FEATURES, OUT_OF_FOLD, MODEL, THRESHOLDS)


def check_inputs(root: Path) -> None:
    """Raise an error if a file that the review reads is missing."""
    for name in INPUTS:
        if not (root / name).is_file():
            raise InputError(f"{name} is missing: run `dvc repro`")
