"""Names of the MLflow experiment and of the registered model."""

from pathlib import Path

import mlflow
import pytest

from phototag.base.errors import InputError
from phototag.registry.params import RegistryParams
from phototag.tracking.naming import check_name, clean_name, project_name
from phototag.tracking.store import Store

FOLDERS = {
    "phototag": "phototag",
    "Fotos für Oma": "Fotos-für-Oma",
    "Fotos fu\u0308r Oma": "Fotos-für-Oma",  # as macOS stores names
    "2024": "2024",
    "my photos (2)": "my-photos-2",
    "50%": "50",
    "a:b@c#d?e'f": "a-b-c-d-e-f",
    "写真": "写真",
    ".hidden": "hidden",
    "...": "phototag",
    "x" * 300: "x" * 200,  # too long for a registered model
    "Default": "Default-photos",  # the name of an experiment of MLflow
}


@pytest.mark.parametrize(("folder", "name"), FOLDERS.items())
def test_name_of_a_folder_is_made_valid(folder: str, name: str) -> None:
    assert clean_name(folder) == name
    assert check_name(name) == name
    assert RegistryParams(name=name, experiments=False).name == name


@pytest.mark.parametrize(
    "name", ["a b", "a/b", "a:b", "", "-a", "default", "a@champion", "x" * 257]
)
def test_invalid_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    Path("params.yaml").write_text(f'registry: {{name: "{name}"}}\n')
    with pytest.raises(InputError, match=r"^params\.yaml: registry\.name: use at most 200 letters"):
        project_name()
    with pytest.raises(ValueError, match="use at most 200 letters, digits"):
        RegistryParams(name=name, experiments=False)


def test_experiment_in_a_copy_has_the_name_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, copy = tmp_path / "my photos", tmp_path / "my photos/.dvc/tmp/exps/tmpabc"
    copy.mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.chdir(copy)
    for folder in (root, copy):
        (folder / "params.yaml").write_text("registry: {name: null}\n")
    assert project_name() == "my-photos"
    (copy / "params.yaml").write_text("registry: {name: shared}\n")
    assert project_name() == "shared"
    # A command in a subfolder reads the file in the root.
    monkeypatch.delenv("DVC_ROOT")
    monkeypatch.chdir(root)
    Path("data").mkdir()
    monkeypatch.chdir("data")
    assert project_name() == "my-photos"
    (root / "params.yaml").write_text("lr: 1\n")  # of an earlier release
    assert project_name() == "my-photos"


@pytest.mark.parametrize("name", ["Fotos-für-Oma", "写真", "2024"])
def test_mlflow_accepts_the_name_in_addresses(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    store.name = name
    (tmp_path / "model").mkdir()
    (tmp_path / "model/MLmodel").write_text("")
    client = store.client
    assert client.get_experiment(store.experiment_id).name == name
    client.create_registered_model(name)
    client.create_model_version(name, str(tmp_path / "model"))
    client.set_registered_model_alias(name, "champion", "1")
    found = mlflow.artifacts.list_artifacts(f"models:/{name}@champion")
    assert [file.path for file in found] == ["MLmodel"]
    assert len(client.search_model_versions(f"name = '{name}'")) == 1
