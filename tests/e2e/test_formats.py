"""Every import format, from the files of a tool to a registered model."""

import csv
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from phototag.base.files import read_json
from phototag.dataset.manifest import label_names, label_targets, read_kept
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.sources import read_file
from phototag.experiments.recipes import update_params
from phototag.importers.formats import FORMATS
from phototag.network.weights import load_model
from tests.e2e.sources import WRITERS, Source
from tests.projects import Project, make_project

# A linear model of the channels' means, which can learn the labels of the sources.
SMALL = {
    "resize.size": 32,
    "split.val": 0.25,
    "split.test": 0.25,
    "lr": 0.02,
    "batch_size": 4,
    "model.conv": [{"out": 8, "kernel": 1, "pool": 32}],
    "model.linear": [],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return the project into which all sources are imported, one after the other."""
    made = make_project(tmp_path_factory.mktemp("formats") / "project", epochs="12")
    update_params(made.folder / "params.yaml", SMALL)
    made.commit("A small network")
    return made


def test_every_format_has_a_source(tmp_path: Path) -> None:
    kinds = {write(tmp_path / name).kind for name, write in WRITERS.items()}
    assert kinds == set(FORMATS)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("name", WRITERS)
def test_a_source_becomes_a_model(project: Project, tmp_path: Path, name: str) -> None:
    source, raw = WRITERS[name](tmp_path / "meine Fotos"), f"data/{name}.zip"
    shown = project("phototag", "import", str(source.path), *source.options, "--to", raw)
    steps = [line for line in shown.splitlines() if line.startswith("  ")]
    project("bash", "-e", "-c", "\n".join(steps))
    ran = project("dvc", "repro")
    project.commit(name)
    print(shown, ran, sep="\n")  # for `pytest -s`
    assert (
        shown.removeprefix("recognised as ").partition(":")[0] in FORMATS[source.kind].description
    )

    # The manifest has the expected targets, ids and groups.
    manifest = read_kept(project.folder / "data/manifest.csv")
    labels = sorted(source.labels)
    assert label_names(manifest) == labels
    origins = read_origins(project.folder / raw, source)
    rows = [source.photos.index(origins[file].path) for file in manifest["file"]]
    assert sorted(rows) == list(range(len(source.photos)))
    targets = source.targets[:, [source.labels.index(label) for label in labels]]
    assert np.array_equal(label_targets(manifest), targets[rows])
    for given, found in (
        (source.ids, [origins[file].id for file in manifest["file"]]),
        (source.groups, list(manifest["source_group"])),
    ):
        assert found == [str(given[row]) if given else "" for row in rows]

    splits = pd.read_csv(project.folder / "data/splits.csv")["split"]
    scores = read_json(project.folder / "reports/evaluate/metrics.json")
    known = targets[rows][splits == "test"] != UNKNOWN
    assert scores.get("known", known.size) == np.count_nonzero(known)
    assert ("known" in scores) == (not known.all())
    check_registered(project, raw, labels)
    check_predictions(project, tmp_path, source, labels, targets)


class Origin(NamedTuple):
    """The file of a photo in the source, and its id there."""

    path: Path
    id: str


def read_origins(raw: Path, source: Source) -> dict[str, Origin]:
    """Return the origin of each photo by its path in the source, as sources.csv lists them."""
    folder = source.path if source.path.is_dir() else source.path.parent
    rows = csv.DictReader(io.StringIO(read_file(raw, "sources.csv").decode()))
    # The zip of the course contains the photos of the folder `meine Fotos` in its folder `data`.
    is_zip = source.path.suffix == ".zip"
    root = source.path.with_suffix("") if is_zip else folder
    return {
        row["source"]: Origin(
            (root / row["source"].removeprefix("data/" if is_zip else "")).resolve(),
            row.get("id", ""),
        )
        for row in rows
    }


def check_registered(project: Project, raw: str, labels: list[str]) -> None:
    """Check that the registered model comes from a run with these photos."""
    assert load_model(project.folder / "models/model.safetensors")[1].labels == labels
    decision = read_json(project.folder / "reports/register/decision.json")
    client = MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")
    version = client.get_model_version(decision["name"], decision["version"])
    run = client.get_run(version.run_id)
    assert (run.info.status, run.data.params["data.raw"]) == ("FINISHED", raw)


def check_predictions(
    project: Project, folder: Path, source: Source, labels: list[str], targets: np.ndarray
) -> None:
    """Check that the predictions for two photos are right, and readable by other tools."""
    chosen = np.flatnonzero((targets == (1, 1, 0)).all(axis=1))[:2]
    names, truth = [str(source.photos[row]) for row in chosen], labels[:2]
    output = str(folder / "labelstudio.json")
    project("phototag", "predict", *names, "-f", "labelstudio", "-o", output)
    tasks = read_json(folder / "labelstudio.json")
    results = [task["predictions"][0]["result"] for task in tasks]
    assert [result["value"]["choices"] for (result,) in results] == [truth, truth]
