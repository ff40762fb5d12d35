from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phototag.decoding.photos import Photo, prepare_photo
from phototag.verification import packing
from phototag.verification.decode_cache import decoding_key, load_decode_cache, save_decode_cache
from phototag.verification.packing import prepare_photos, write_images
from tests.decoding.corpus import encode, picture

SIZE = 8
NAMES = [f"im{number}.jpg" for number in range(1, 6)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        (folder / name).write_bytes(encode(picture(seed)))
    (folder / NAMES[2]).write_bytes(b"no photo")
    return folder


def decode(source: Path, folder: Path, key: str, names: list[str] = NAMES) -> list[Photo]:
    """Decode all photos as the stage does, and return the decisions."""
    cached = load_decode_cache(folder / "cache", key)
    photos = prepare_photos(source, names, SIZE, backend="sequential", cached=cached)
    decided = write_images(folder / "images.npy", photos, SIZE)
    save_decode_cache(folder / "cache", key, names, decided, folder / "images.npy")
    return decided


def record_decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    decoded: list[bytes] = []

    def record(data: bytes, *rest: Any) -> Photo:
        decoded.append(data)
        return prepare_photo(data, *rest)

    monkeypatch.setattr(packing, "prepare_photo", record)
    return decoded


def test_only_new_changed_and_rejected_files_are_decoded(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    decode(source, tmp_path / "a", "key")
    (source / NAMES[0]).write_bytes(encode(picture(70)))
    (source / "im6.jpg").write_bytes(encode(picture(71)))
    names = ["im6.jpg", *NAMES[::-1]]
    decoded = record_decoded(monkeypatch)
    decided = decode(source, tmp_path / "a", "key", names)
    # Rejected photos are not cached.
    assert decoded == [(source / name).read_bytes() for name in ("im6.jpg", NAMES[2], NAMES[0])]
    assert decided == decode(source, tmp_path / "b", "key", names)
    arrays = [(tmp_path / name / "images.npy").read_bytes() for name in "ab"]
    assert arrays[0] == arrays[1]
    # The cache holds one array, a hard link to the output.
    [kept] = (tmp_path / "a/cache").glob("*.npy")
    assert kept.samefile(tmp_path / "a/images.npy")


def test_another_key_decodes_all_files(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode(source, tmp_path, "key")
    decoded = record_decoded(monkeypatch)
    decode(source, tmp_path, "other")
    assert len(decoded) == len(NAMES)


def test_key_depends_on_settings_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    key = decoding_key(128, 32, 1000)
    assert decoding_key(128, 32, 1000) == key
    others = [decoding_key(64, 32, 1000), decoding_key(128, 1, 1000), decoding_key(128, 32, 9)]
    for module in ("PIL", "pillow_heif"):
        monkeypatch.setattr(f"{module}.__version__", "another")
        others.append(decoding_key(128, 32, 1000))
    assert len({key, *others}) == 6


@pytest.mark.parametrize("damage", ["no array", "no index", "cut array", "cut index"])
def test_damaged_cache_is_ignored(source: Path, tmp_path: Path, damage: str) -> None:
    decode(source, tmp_path, "key")
    expected = (tmp_path / "images.npy").read_bytes()
    what, which = damage.split()
    [path] = (tmp_path / "cache").glob("*.npy" if which == "array" else "*.json")
    data = path.read_bytes()
    path.unlink()
    if what == "cut":
        path.write_bytes(data[: len(data) // 2])
    assert load_decode_cache(tmp_path / "cache", "key") == {}
    decode(source, tmp_path, "key")
    assert (tmp_path / "images.npy").read_bytes() == expected
    assert len(load_decode_cache(tmp_path / "cache", "key")) == len(NAMES) - 1


def test_without_hard_links_nothing_is_cached(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("os.link", refuse)
    decided = decode(source, tmp_path, "key")
    assert [photo.decision for photo in decided].count("rejected") == 1
    assert load_decode_cache(tmp_path / "cache", "key") == {}
    assert len(np.load(tmp_path / "images.npy")) == len(NAMES) - 1
