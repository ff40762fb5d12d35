"""Description of an MLflow run: its dataset, photos, recipe and result, as tags and as text."""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Run

from phototag.base.errors import InputError
from phototag.metrics.selection import VAL_PREFIX
from phototag.tracking.recipes import FILE, Recipes, name_recipe, read_recipes

NOTE_TAG = "mlflow.note.content"
DATASET_TAG, PHOTOS_TAG, RECIPE_TAG = "dataset", "photos", "recipe"
MANIFEST = "data/manifest.csv"
SYNTHETIC = "data/sample"
MAX_NAMES = 5  # largest number of imports that are named


def describe_inputs(
    params: Mapping[str, Any], splits: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Return tags with the dataset, number of photos and recipe of a training in this folder."""
    recipes: Recipes | None = None
    with suppress(InputError):
        recipes = read_recipes(FILE)
    tags = {
        DATASET_TAG: name_dataset(params, Path(MANIFEST)),
        PHOTOS_TAG: count_photos({name: split["photos"] for name, split in splits.items()}),
        RECIPE_TAG: name_recipe(params, recipes),
    }
    return {name: value for name, value in tags.items() if value}


def name_dataset(params: Mapping[str, Any], manifest: Path | None = None) -> str:
    """Return the names of the imports in a manifest, or `data.raw` if there are no imports."""
    data = params.get("data")
    raw = str(data["raw"]) if isinstance(data, Mapping) and "raw" in data else ""
    if not raw or manifest is None or not manifest.is_file():
        return "synthetic images" if raw == SYNTHETIC else raw
    table = pd.read_csv(
        manifest, usecols=lambda name: name == "import", dtype=str, keep_default_na=False
    )
    imports = sorted({name for column in table for name in table[column] if name})
    # `phototag import` numbers the imports: 001-holiday, 002-new.
    names = [re.sub(r"^\d+-", "", name) for name in imports]
    if len(names) > MAX_NAMES:
        names[MAX_NAMES - 1 :] = [f"{len(names) - MAX_NAMES + 1} more"]
    return ", ".join(names) or ("synthetic images" if raw == SYNTHETIC else raw)


def count_photos(counts: Mapping[str, int]) -> str:
    """Return the number of photos in each split, such as `360 train, 45 val, 45 test`."""
    return ", ".join(f"{count} {split}" for split, count in counts.items() if count)


def title(tags: Mapping[str, str]) -> str:
    """Return the recipe and the number of photos of a run, such as `pretrained, 450 photos`."""
    counts = re.findall(r"\d+", tags.get(PHOTOS_TAG, ""))
    photos = f"{sum(map(int, counts))} photos" if counts else ""
    return ", ".join(filter(None, [tags.get(RECIPE_TAG, ""), photos])) or "training"


def stamp(moment: datetime) -> str:
    """Return a local time as the end of a run's name, such as `30 Nov 14:05`."""
    return f"{moment.day} {moment:%b %H:%M}"


def describe_run(run: Run) -> str:
    """Return a Markdown text on what was trained on what, with which result."""
    tags, metrics = run.data.tags, run.data.metrics
    facts = {
        "Network": run.data.params.get("model.name", ""),
        "Recipe": tags.get(RECIPE_TAG, ""),
        "Dataset": tags.get(DATASET_TAG, ""),
        "Photos": tags.get(PHOTOS_TAG, ""),
        "Best epoch": _join_scores(metrics, "best_"),
        "Scores on test": _join_scores(metrics, "test_"),
        "Scores on val, on which the model was selected": _join_scores(metrics, VAL_PREFIX),
    }
    return "\n".join(f"- {name}: {_quote(value)}" for name, value in facts.items() if value)


def _join_scores(metrics: Mapping[str, float], prefix: str) -> str:
    """Return the names and values of the metrics whose names have a prefix."""
    names = sorted(name for name in metrics if name.startswith(prefix))
    return ", ".join(f"{name.removeprefix(prefix)} {metrics[name]:.4g}" for name in names)


def _quote(text: str) -> str:
    """Return a text as Markdown code, in which no character has a special meaning."""
    return f"`{text.replace('`', chr(39))}`"
