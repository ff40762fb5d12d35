"""Parallel decoding of many photos into one packed array."""

import zipfile
from pathlib import Path

import dask
import numpy as np
import pytest
from PIL import Image

from phototag.decoding.photos import read_shorter_side
from phototag.verification import packing
from phototag.verification.packing import find_packed_side, prepare_photos, write_images
from tests.decoding.corpus import encode


def random_image(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("jobs", [1, 2])
def test_packed_file_equals_np_save(tmp_path: Path, jobs: int) -> None:
    names = [f"im{number}.png" for number in range(1, 131)]
    for number, name in enumerate(names):
        data = b"broken" if number % 50 == 3 else encode(random_image(12, 10, number), "PNG")
        (tmp_path / name).write_bytes(data)
    (tmp_path / "portrait.png").write_bytes(encode(random_image(12, 10), "PNG"))
    names.append("portrait.png")
    rejected = {"portrait.png": "wrong name"}
    photos = list(prepare_photos(tmp_path, names, 8, rejected, n_jobs=jobs))
    decided = write_images(tmp_path / "images.npy", photos, 8)

    expected = np.stack([photo.pixels for photo in photos if photo.pixels is not None])
    assert len(expected) == 127
    np.save(tmp_path / "expected.npy", expected)
    assert (tmp_path / "images.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()
    assert np.array_equal(np.load(tmp_path / "images.npy", mmap_mode="r"), expected)
    assert all(photo.pixels is None for photo in decided)
    assert decided[-1].reason == "wrong name"


def test_damaged_zip_members_are_rejected_and_do_not_stop_the_batch(tmp_path: Path) -> None:
    path = tmp_path / "raw.zip"
    names = [f"im{number}.bmp" for number in range(1, 9)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for number, name in enumerate(names):
            archive.writestr(name, encode(random_image(12, 10, number), "BMP"))
        places = [member.header_offset for member in archive.infolist()]
    data = bytearray(path.read_bytes())
    for place in places[::2]:
        data[place + 80] ^= 0xFF  # in the compressed pixels
    path.write_bytes(data)
    for jobs in (1, 2):
        photos = list(prepare_photos(path, [*names, "none.bmp"], 8, n_jobs=jobs))
        assert [photo.decision for photo in photos] == ["rejected", "kept"] * 4 + ["rejected"]
        assert all(photo.reason.startswith("unreadable: ") for photo in photos[:8:2])
        assert photos[-1].reason == "no such file in the zip"


@pytest.mark.parametrize(
    ("size", "side", "num_read"), [(9, 9, 1), (10, 10, 1), (12, 12, 3), (99, 14, 5)]
)
def test_packed_side_is_the_size_or_the_largest_shorter_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, side: int, num_read: int
) -> None:
    """Headers are read until a photo is large enough; photos that are rejected do not count."""
    shapes = {"a.png": (12, 10), "c.png": (12, 30), "d.png": (20, 14)}
    shapes |= {"huge.png": (40, 40), "invalid.png": (20, 20)}
    for name, shape in shapes.items():
        (tmp_path / name).write_bytes(encode(random_image(*shape), "PNG"))
    (tmp_path / "b.png").write_bytes(b"broken")
    read: list[bytes] = []

    def watch(data: bytes, max_pixels: int) -> int:
        read.append(data)
        return read_shorter_side(data, max_pixels)

    monkeypatch.setattr(packing, "read_shorter_side", watch)
    names = ["invalid.png", "missing.png", "a.png", "b.png", "c.png", "d.png", "huge.png"]
    found = find_packed_side(tmp_path, names, size, {"invalid.png": "wrong name"}, 1000)
    assert (found, len(read)) == (side, num_read)
    assert find_packed_side(tmp_path, ["b.png"], 16, {}) == 16


@pytest.mark.slow
@pytest.mark.soak
def test_two_dask_workers_pack_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    names = [f"im{number}.png" for number in range(1, 401)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(encode(random_image(12, 10, number), "PNG"))
    write_images(tmp_path / "here.npy", prepare_photos(tmp_path, names, 8), 8)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        with dask.config.set({"scheduler-address": cluster.scheduler_address}):
            photos = prepare_photos(tmp_path, names, 8, backend="dask")
            write_images(tmp_path / "there.npy", photos, 8)
        done = client.run(lambda dask_worker: dask_worker.state.executed_count)
    assert len(done) == 2
    assert min(done.values()) > 0
    assert (tmp_path / "here.npy").read_bytes() == (tmp_path / "there.npy").read_bytes()
