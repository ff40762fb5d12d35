"""Model cards, read back with the libraries of the Hugging Face Hub and of Markdown."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from pydantic import ValidationError

from phototag.base.errors import InputError
from phototag.base.files import write_json, write_table
from phototag.dataset.dataset import Dataset
from phototag.dataset.params import DataParams
from phototag.dataset.targets import UNKNOWN
from phototag.evaluation.params import EvaluateParams
from phototag.evaluation.result import evaluate, headline, operating_point
from phototag.registry.card import render_card
from phototag.registry.lookup import attach_card, fetch_card
from phototag.tracking.store import Store
from tests.models import make_model
from tests.projects import Project

# Fields that the Hub documents for the metadata of a model card.
FIELDS = {"license", "license_name", "library_name", "pipeline_tag", "tags", "metrics"}
NAMES = ["NA", "red | *hot* <b>", "2024"]


class Cards:
    """Writes the files of an evaluated model, and renders its card."""

    def __init__(
        self, folder: Path, datasets: dict[str, Dataset], source: str = "data/raw"
    ) -> None:
        self.folder, self.datasets = folder, datasets
        photos = np.array(datasets["train"].images)
        self.model, _ = make_model(folder, source=source, labels=NAMES, photos=photos)
        self.summary = {
            "files": 41,
            "decisions": {"kept": 40, "rejected": 1},
            "duplicate_photos": 0,
            "unlabelled": 3,
        }

    def write(self, evaluated: tuple[str, ...] = ("val", "test"), target: Any = None) -> None:
        datasets = {k: replace(v, labels=NAMES) for k, v in self.datasets.items()}
        rng = np.random.default_rng(0)
        logits = {
            name: rng.normal(4.0 * (datasets[name].targets > 0) - 2, 1.5) for name in evaluated
        }
        values = {"prior_strength": 2.0, "calibrate": False, "resamples": 50}
        params = EvaluateParams.model_validate(values | ({"target": target} if target else {}))
        manifest = pd.DataFrame({"width": [16] * 40, "height": [16, 20] * 20})
        self.result = evaluate(datasets, logits, manifest, params, 0)
        for name in ("scores", "per_label", "slices"):
            write_table(self.folder / f"{name}.csv", self.result.tables[name])
        scores = self.result.tables["scores"]
        write_json(self.folder / "metrics.json", headline(scores, self.result.evaluated_on))
        write_json(self.folder / "thresholds.json", operating_point(self.result, "key"))
        write_json(self.folder / "summary.json", self.summary)
        rows = [split for split, photos in self.datasets.items() for _ in range(len(photos))]
        write_table(self.folder / "splits.csv", pd.DataFrame({"split": rows}))

    def __call__(self, license_name: str | None = None, version: str | None = None) -> str:
        files = {
            path.stem: path
            for path in self.folder.iterdir()
            if path.suffix in (".csv", ".json", ".safetensors")
        }
        names = ("model", "thresholds", "metrics", "scores", "per_label", "slices", "splits")
        known = {name: self.folder / f"{name}.csv" for name in (*names, "summary")}
        return render_card(known | files, "phototag", license_name, version)


@pytest.fixture
def card(tmp_path: Path, datasets: dict[str, Dataset]) -> Cards:
    return Cards(tmp_path, datasets)


def read_tables(text: str) -> list[list[list[str]]]:
    """Return the cells of the tables in a card, as a Markdown library reads them."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text.split("\n---\n", 1)[1])
    tables: list[list[list[str]]] = []
    for token, after in pairwise(tokens):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in ("td_open", "th_open"):
            children = after.children or []
            tables[-1][-1].append("".join(child.content for child in children))
    return tables


def test_hub_reads_licence_and_scores(card: Cards) -> None:
    card.write()
    text = card("cc-by-4.0", "7")
    data: Any = ModelCard(text).data
    assert data.license == "cc-by-4.0"
    assert data.pipeline_tag == "image-classification"
    assert data.model_name == "phototag"
    scores = card.result.tables["scores"].set_index(["predictor", "metric"])["value"]
    assert {result.metric_name: result.metric_value for result in data.eval_results} == {
        f"{average} {metric}": pytest.approx(scores["model", f"{key}_{average}"], abs=1e-8)
        for average, metric, key in (
            ("micro", "F1", "f1"),
            ("macro", "F1", "f1"),
            ("micro", "precision", "precision"),
            ("micro", "recall", "recall"),
        )
    }
    assert {result.dataset_split for result in data.eval_results} == {"test"}
    written = yaml.safe_load(text.split("---\n")[1])
    assert {*written} <= FIELDS | {"model-index"}
    # A licence that the Hub does not list needs a name; no licence is allowed too.
    other: Any = ModelCard(card("our-photos-1.0")).data
    assert (other.license, other.license_name) == ("other", "our-photos-1.0")
    unknown: Any = ModelCard(card()).data
    assert unknown.license is None
    assert "not stated. Set `data.license`" in card()


def test_card_states_the_figures_of_the_evaluation(card: Cards) -> None:
    card.write()
    text = card(version="7")
    assert "# phototag, version 7" in text
    assert "models:/phototag/7" in text
    assert "24 in train, 8 in val, 8 in test" in text
    assert "Of 41 files, 1 were rejected" in text
    facts, scores, labels, slices = read_tables(text)
    assert ["Training key", "key"] in facts
    table = card.result.tables["per_label"].sort_values("support", ascending=False, kind="stable")
    assert [row[0] for row in labels[1:]] == [*table["label"]]
    for row, expected in zip(labels[1:], table.itertuples(), strict=True):
        assert row[1] == str(expected.support)
        assert row[2] == f"{expected.threshold:.3f}"
        assert row[5] == (f"{expected.f1:.3f} ({expected.f1_low:.3f} to {expected.f1_high:.3f})")
    model = card.result.tables["scores"].query("predictor == 'model'").dropna(subset="value")
    assert [row[0] for row in scores[1:]] == [*model["metric"]]
    assert len(slices) == 1 + len(card.result.tables["slices"])
    assert "Each prediction has a familiarity" in text


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("val", "Scores on val are usually too high"),
        ("unknown", "entries (pairs of a photo and a label) are known"),
        ("target", "abstains"),
        ("rare", "(0)"),
        ("no slices", "familiarity"),
    ],
)
def test_limits_are_stated(card: Cards, kind: str, expected: str) -> None:
    evaluated, target = ("val",) if kind == "val" else ("val", "test"), None
    if kind == "target":
        target = {"precision": 0.99}
    if kind in ("unknown", "rare"):
        for name, photos in card.datasets.items():
            targets = photos.targets.copy()
            targets[::3, 1] = UNKNOWN
            targets[:, 1] = targets[:, 1] if kind == "unknown" else 0
            card.datasets[name] = replace(photos, targets=targets)
    card.write(evaluated, target)
    if kind == "no slices":
        write_table(card.folder / "slices.csv", pd.DataFrame())
    text = card()
    assert expected in text
    assert "nan" not in text
    data: Any = ModelCard(text).data
    assert data.eval_results
    widths = [{len(row) for row in table} for table in read_tables(text)]
    assert all(len(width) == 1 for width in widths)


def test_synthetic_model_is_not_recommended(tmp_path: Path, datasets: dict[str, Dataset]) -> None:
    card = Cards(tmp_path, datasets, source="synthetic images")
    card.write()
    assert "predictions for real photos are meaningless" in card()


def test_missing_or_foreign_files_are_refused(card: Cards) -> None:
    card.write()
    point = json.loads((card.folder / "thresholds.json").read_text())
    write_json(card.folder / "thresholds.json", point | {"content_key": "other"})
    with pytest.raises(InputError, match=r"thresholds\.json belongs to another model"):
        card()
    (card.folder / "slices.csv").unlink()
    with pytest.raises(InputError, match=r"slices\.csv is missing: run `dvc pull`"):
        card()


def test_licence_is_an_identifier() -> None:
    assert DataParams(raw="data/raw", labels=()).license is None
    with pytest.raises(ValidationError, match="pattern"):
        DataParams(raw="data/raw", labels=(), license="CC BY 4.0\nlicense: mit")


@pytest.mark.slow
def test_registry_keeps_the_card_of_each_version(store: Store) -> None:
    client = store.client
    client.create_registered_model(store.name)
    run_id = client.create_run(client.get_experiment_by_name(store.name).experiment_id).info.run_id
    for number in ("1", "2", "3"):
        client.create_model_version(store.name, "source", run_id)
        if number != "3":
            attach_card(store, run_id, number, f"card {number}\n")
    attach_card(store, run_id, "1", "a newer card\n")
    assert fetch_card(store, "1") == "a newer card\n"
    assert fetch_card(store, "2") == "card 2\n"
    with pytest.raises(InputError, match=r"version 3 of the model .* has no model card"):
        fetch_card(store, "3")
    with pytest.raises(InputError, match=r"version 9 of the model .* cannot be read"):
        fetch_card(store, "9")


@pytest.mark.slow
def test_card_of_a_clone_is_that_of_the_registered_version(
    trained: Project, results: Project, tmp_path: Path
) -> None:
    """The clone has no registry; the stage `register` attached the card of version 1."""
    clone = results.clone(tmp_path / trained.folder.name, cache=True)
    clone("phototag", "card", "--output", "card.md")
    own = (clone.folder / "card.md").read_text()
    assert not (clone.folder / "mlflow.db").exists()
    registered = trained("phototag", "card", "1")
    assert "models:/trained/1" in registered
    uri, title = "models:/trained@champion", "# trained\n"
    replaced = own.replace(uri, "models:/trained/1").replace(title, "# trained, version 1\n")
    assert registered == replaced
