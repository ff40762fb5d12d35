"""Write the reference for monitoring: photos and predictions -> models/reference.safetensors."""

from pathlib import Path

from phototag.base.files import read_table
from phototag.base.params import read_params
from phototag.dataset.dataset import read_datasets
from phototag.monitoring.params import ReferenceParams
from phototag.monitoring.reference import build_reference, save_reference

from . import run

PREDICTIONS = Path("reports/evaluate/predictions.csv")


def main() -> None:
    """Write the calibrators and the distributions of the held-out photos."""
    params = read_params(ReferenceParams)
    datasets = read_datasets(
        Path("data/images.npy"), Path("data/manifest.csv"), Path("data/splits.csv")
    )
    text = dict.fromkeys(("image", "split", "label"), "category")
    columns = [*text, "target", "probability", "predicted", "familiarity"]
    predictions = read_table(
        PREDICTIONS,
        dtype=text,
        keep_default_na=False,
        na_values={"target": "", "familiarity": ""},
        usecols=lambda name: name in columns,
    )
    reference = build_reference(predictions, datasets, params.seed)
    save_reference(Path("models/reference.safetensors"), reference)


if __name__ == "__main__":
    run(main)
