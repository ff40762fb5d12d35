"""Loading of another version when the alias moves."""

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from phototag.base.errors import InputError
from phototag.server import champion as champion_module
from phototag.server.champion import Champion
from phototag.tracking.store import Store
from tests.models import make_model, register


def test_alias_that_moves_is_followed_and_a_broken_version_is_not_served(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = np.random.default_rng(1).integers(0, 256, (40, 16, 16, 3), np.uint8)
    models = [make_model(tmp_path / f"{n}", known=n, photos=photos) for n in (1, 2, 3)]
    register(store, *models)
    champion = Champion(f"models:/{store.name}@champion", store.uri)
    first = champion.version
    assert first.number == "1"
    champion.update()
    assert champion.version is first

    def move(number: str) -> None:
        store.client.set_registered_model_alias(store.name, "champion", number)
        champion.update()

    move("3")
    assert champion.version.number == "3"
    source = store.client.get_model_version_download_uri(store.name, "2")
    stored = Path(urlsplit(source).path, "artifacts")
    shutil.move(stored / "thresholds.json", tmp_path / "hidden")
    capsys.readouterr()
    for _ in range(3):
        move("2")
    assert champion.version.number == "3"
    shown = capsys.readouterr().err
    assert shown.count("version 3 is kept: ") == 1
    shutil.move(tmp_path / "hidden", stored / "thresholds.json")
    for _ in range(champion_module.RETRY):  # a failed version is tried again
        champion.update()
    assert champion.version.number == "2"
    # A store that does not answer, or a removed alias, does not end the server.
    store.client.delete_registered_model_alias(store.name, "champion")
    champion.update()
    assert champion.version.number == "2"
    fixed = Champion(f"models:/{store.name}/1", store.uri)
    assert fixed.version.number == "1"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("phototag", "phototag is not the address of a registered model: pass models:/NAME@ALIAS"),
        ("models:/a/b/c", "is not the address of a registered model"),
        ("runs:/1/model", "is not the address of a registered model"),
        ("models:/none@champion", "does not exist in the MLflow store: run `dvc repro`"),
        ("models:/none/7", "does not exist in the MLflow store: run `dvc repro`"),
    ],
)
def test_address_without_a_version_is_refused(store: Store, address: str, reason: str) -> None:
    _ = store.client
    with pytest.raises(InputError, match=reason):
        Champion(address, store.uri)
