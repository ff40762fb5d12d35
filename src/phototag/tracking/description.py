"""Description of an MLflow run: its dataset, photos, recipe and result, as tags and as text."""

import re
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Run

from phototag.base.errors import InputError
from phototag.base.keys import flatten
from phototag.metrics.selection import CROSS_VALIDATION, SCORE_PREFIXES
from phototag.tracking.recipes import FILE, Recipes, name_recipe, read_recipes

NOTE_TAG = "mlflow.note.content"
DATASET_TAG, PHOTOS_TAG, RECIPE_TAG = "dataset", "photos", "recipe"
MANIFEST = "data/manifest.csv"
SYNTHETIC = "data/sample"
MAX_LENGTH = 100  # longer lists of imports are cut off


def describe_inputs(
    params: Mapping[str, Any], splits: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Return tags with the dataset, number of photos and recipe of a training in this folder.

    The tag of the photos has the form `360 train, 45 val, 45 test`.
    """
    recipes: Recipes | None = None
    with suppress(InputError):
        recipes = read_recipes(FILE)
    counts = {name: split["photos"] for name, split in splits.items()}
    tags = {
        DATASET_TAG: name_dataset(params, Path(MANIFEST)),
        PHOTOS_TAG: ", ".join(f"{n} {split}" for split, n in counts.items() if n),
        RECIPE_TAG: name_recipe(params, recipes),
    }
    return {name: value for name, value in tags.items() if value}


def name_dataset(params: Mapping[str, Any], manifest: Path | None = None) -> str:
    """Return the names of the imports in a manifest, or `data.raw` if there are no imports."""
    raw = str(flatten(params).get("data.raw") or "")
    imports: set[str] = set()
    if raw and manifest is not None and manifest.is_file():
        table = pd.read_csv(
            manifest, usecols=lambda name: name == "import", dtype=str, keep_default_na=False
        )
        imports = set(table.get("import", [])) - {""}
    # `phototag import` numbers the imports: 001-holiday, 002-new.
    names = ", ".join(re.sub(r"^\d+-", "", name) for name in sorted(imports))
    names = textwrap.shorten(names, MAX_LENGTH, placeholder=" ...")
    return names or ("synthetic images" if raw == SYNTHETIC else raw)


def title(tags: Mapping[str, str]) -> str:
    """Return the recipe and the number of photos of a run, such as `pretrained, 450 photos`."""
    counts = re.findall(r"\d+", tags.get(PHOTOS_TAG, ""))
    photos = f"{sum(map(int, counts))} photos" if counts else ""
    return ", ".join(filter(None, [tags.get(RECIPE_TAG, ""), photos])) or "training"


def describe_run(run: Run) -> str:
    """Return a Markdown text on what was trained on what, with which result."""
    tags, metrics, best = run.data.tags, run.data.metrics, "Best epoch"
    if run.data.params.get("optimizer") == "lbfgs":
        best = "Linear probe fitted on train and val; scores by cross-validation of both"
    facts = {
        "Network": run.data.params.get("model.name", ""),
        "Recipe": tags.get(RECIPE_TAG, ""),
        "Dataset": tags.get(DATASET_TAG, ""),
        "Photos": tags.get(PHOTOS_TAG, ""),
        best: _join_scores(metrics, "best_"),
        "Scores on test": _join_scores(metrics, "test_"),
        "Scores on val, on which the model was selected": _join_scores(
            metrics, SCORE_PREFIXES["val"]
        ),
        "Scores by cross-validation": _join_scores(metrics, SCORE_PREFIXES[CROSS_VALIDATION]),
    }
    return "\n".join(f"- {name}: {_quote(value)}" for name, value in facts.items() if value)


def _join_scores(metrics: Mapping[str, float], prefix: str) -> str:
    """Return the names and values of the metrics whose names have a prefix."""
    names = sorted(name for name in metrics if name.startswith(prefix))
    return ", ".join(f"{name.removeprefix(prefix)} {metrics[name]:.4g}" for name in names)


def _quote(text: str) -> str:
    """Return a text as Markdown code, in which no character has a special meaning."""
    return f"`{text.replace('`', chr(39))}`"
