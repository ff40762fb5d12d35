"""Model card: a description of a model in Markdown, with the metadata of the Hugging Face Hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from phototag.base.errors import InputError
from phototag.base.files import read_json, read_table
from phototag.dataset.manifest import SPLITS
from phototag.evaluation.report import MAX_ROWS, summarize
from phototag.evaluation.targets import ABSTAIN, name_labels
from phototag.metrics.classification import MIN_POSITIVES
from phototag.metrics.selection import (
    CROSS_VALIDATION,
    describe_evaluated,
    find_evaluated,
    name_photos,
)
from phototag.network.weights import load_familiarity, read_metadata
from phototag.pages.html import render_html

FILES = ("model", "thresholds", "metrics", "scores", "per_label", "slices", "splits", "summary")
# Metrics of scores.csv that the Hub knows: its name of each, and a title.
HUB_METRICS = {
    "f1_micro": ("f1", "micro F1"),
    "f1_macro": ("f1", "macro F1"),
    "precision_micro": ("precision", "micro precision"),
    "recall_micro": ("recall", "micro recall"),
}
# Identifiers that the Hub accepts as `license`. Any other licence is `other`, with a name.
# fmt: off
HUB_LICENSES = frozenset({
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bigcode-openrail-m",
    "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0",
    "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0",
    "cdla-sharing-1.0", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "gfdl", "gpl",
    "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "lppl-1.3c", "mit",
    "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1", "openrail", "openrail++", "osl-3.0",
    "pddl", "postgresql", "unknown", "unlicense", "wtfpl", "zlib",
})
# fmt: on


def render_card(
    paths: Mapping[str, Path], name: str, license_name: str | None, version: str | None = None
) -> str:
    """Return the model card of an evaluated model.

    All figures are read from files that git or DVC track.

    Args:
        paths: Files of the model: `model`, `thresholds`, `metrics`, `scores`, `per_label`, `slices`
            (written by the stage `evaluate`), `splits` and `summary` (of the stage `resize`).
        name: Name of the registered model.
        license_name: Licence of the photos and labels, or None if it is not known.
        version: Number of the registered version. Omit for a model that may not be registered.

    Raises:
        InputError: A file is missing or damaged, or the evaluation belongs to another model.
    """
    for file in map(paths.__getitem__, FILES):
        if not file.is_file():
            raise InputError(f"{file} is missing: run `dvc pull`, or `dvc repro`")
    metadata = read_metadata(paths["model"])
    point, summary = read_json(paths["thresholds"]), read_json(paths["summary"])
    if point.get("content_key") != metadata.content_key:
        raise InputError(f"{paths['thresholds']} belongs to another model: run `dvc repro`")
    scores = read_table(paths["scores"])
    # The file is empty if there are no slices.
    slices = read_table(paths["slices"]) if paths["slices"].read_text().strip() else pd.DataFrame()
    # Labels may be named NA or 2024.
    labels = read_table(
        paths["per_label"], keep_default_na=False, na_values=[""], dtype={"label": str}
    )
    counts = read_table(paths["splits"], usecols=["split"])["split"].value_counts()
    evaluated_on = find_evaluated(read_json(paths["metrics"]))
    splits = ("train", "val") if evaluated_on == CROSS_VALIDATION else (evaluated_on,)
    photos = name_photos(sum(int(counts.get(split, 0)) for split in splits), evaluated_on)
    model_scores = scores[scores["predictor"] == "model"].dropna(subset="value")
    few = labels[labels["support"] < MIN_POSITIVES]
    source = "the synthetic dataset" if metadata.is_synthetic else metadata.source
    return render_html(
        "phototag.registry",
        "card.md.j2",
        front_matter=yaml.safe_dump(
            describe_for_hub(model_scores, name, license_name, source, evaluated_on),
            sort_keys=False,
            allow_unicode=True,
        ),
        name=name,
        version=version,
        uri=f"models:/{name}{f'/{version}' if version else '@champion'}",
        metadata=metadata,
        source=source,
        license_name=license_name,
        counts={split: counts[split] for split in SPLITS if split in counts},
        summary=summary,
        photos=photos,
        where=describe_evaluated(evaluated_on),
        evaluated_on=evaluated_on,
        facts=summarize(photos, scores, labels, slices),
        scores=model_scores.to_dict("records"),
        known=model_scores["known"].iloc[0] if "known" in scores else None,
        labels=labels.sort_values("support", ascending=False, kind="stable")
        .head(MAX_ROWS)
        .to_dict("records"),
        num_labels=len(labels),
        abstain=ABSTAIN,
        few=name_labels([f"{row.label} ({row.support})" for row in few.itertuples()]),
        min_positives=MIN_POSITIVES,
        slices=slices.to_dict("records"),
        has_familiarity=load_familiarity(paths["model"]) is not None,
    )


def describe_for_hub(
    scores: pd.DataFrame, name: str, license_name: str | None, source: str, evaluated_on: str
) -> dict[str, Any]:
    """Return the metadata of a model card; the Hugging Face Hub documents the fields.

    Args:
        scores: Rows of scores.csv for the model.
        name: Name of the registered model.
        license_name: Licence, or None if it is not known.
        source: Source of the training photos.
        evaluated_on: Photos on which the scores were computed.
    """
    licence = {} if license_name is None else {"license": license_name}
    if license_name is not None and license_name not in HUB_LICENSES:
        licence = {"license": "other", "license_name": license_name}
    metrics = [
        {"type": HUB_METRICS[name][0], "value": value, "name": HUB_METRICS[name][1]}
        for name, value in zip(scores["metric"], scores["value"], strict=True)
        if name in HUB_METRICS
    ]
    # The Hub wants the type of a dataset; `imagefolder` is the one of folders of photos.
    dataset = {"type": "imagefolder", "name": source, "split": evaluated_on}
    task = {"type": "image-classification", "name": "Multi-label image classification"}
    return {
        **licence,
        "library_name": "phototag",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "multi-label-classification"],
        "metrics": sorted({metric["type"] for metric in metrics}),
        "model-index": [
            {"name": name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}
        ],
    }
