import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from phototag.decoding.perceptual_hash import perceptual_hash
from phototag.synthetic.dataset import draw_labels
from phototag.synthetic.scene import draw_scene
from phototag.verification.duplicates import group_duplicates, group_hashes

BITS = 8


def distance(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """40 synthetic images of 128 pixels."""
    rng = np.random.default_rng(0)
    return [draw_scene(draw_labels(rng), rng, 128) for _ in range(40)]


def stack(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images])


def changed(image: Image.Image) -> dict[str, Image.Image]:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    small = image.resize((90, 90), Image.Resampling.LANCZOS)
    return {
        "recompressed": Image.open(buffer),
        "resized": small.resize(image.size, Image.Resampling.BICUBIC),
        "grayscale": image.convert("L").convert("RGB"),
        "brighter": ImageEnhance.Brightness(image).enhance(1.1),
    }


def test_hashes_of_copies_are_near_and_of_other_photos_are_not(photos: list[Image.Image]) -> None:
    hashes = [perceptual_hash(photo) for photo in photos]
    assert {len(value) for value in hashes} == {16}
    for photo, own in zip(photos, hashes, strict=True):
        for name, copy in changed(photo).items():
            assert distance(own, perceptual_hash(copy)) <= BITS, name
    apart = [distance(a, b) for a, b in combinations(hashes, 2)]
    assert np.median(apart) > 20


@pytest.mark.parametrize("size", [9, 33, 100, 128, 224])
def test_hash_equals_the_bits_of_the_low_frequencies(size: int) -> None:
    pixels = np.random.default_rng(size).integers(0, 256, (size, size, 3), np.uint8)
    image = Image.fromarray(pixels)
    luma = np.asarray(image.convert("L"), np.float64)
    place = np.arange(size)
    expected = []
    for u in range(8):
        for v in range(8):
            wave = np.outer(
                np.cos(np.pi * u * (2 * place + 1) / (2 * size)),
                np.cos(np.pi * v * (2 * place + 1) / (2 * size)),
            )
            expected.append((luma * wave).sum())
    bits = np.array(expected[1:]) > np.median(expected[1:])
    assert int(perceptual_hash(image), 16) == int("".join(str(int(bit)) for bit in bits), 2)


def test_photo_without_contrast_has_no_hash() -> None:
    for contrast in (0, 7, 8):
        levels = np.full((64, 64), 100, np.uint8)
        levels[9, 9] += contrast
        assert (perceptual_hash(Image.fromarray(levels)) == "") == (contrast < 8)


def components(pairs: np.ndarray, count: int) -> list[int]:
    """Return the smallest row that is connected with each row."""
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(count, count))
    return smallest_rows(connected_components(graph, directed=False)[1])


def smallest_rows(groups: np.ndarray) -> list[int]:
    return [int(np.flatnonzero(groups == group)[0]) for group in groups]


@pytest.mark.parametrize("bits", [0, 1, 3, 8, 12])
def test_groups_of_hashes_equal_those_of_a_full_search(bits: int) -> None:
    rng = np.random.default_rng(bits)
    centres = rng.integers(0, 2**64, 60, dtype=np.uint64)
    hashes = centres[rng.integers(0, 60, 400)]
    for _ in range(8):
        flip = np.uint64(1) << rng.integers(0, 64, 400).astype(np.uint64)
        hashes = np.where(rng.random(400) < 0.3, hashes ^ flip, hashes)
    hashes = np.unique(hashes)
    rng.shuffle(hashes)
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None])
    accepted = rng.random(apart.shape) < 0.5
    accepted |= accepted.T
    received: list[list[int]] = []

    def agree(pairs: np.ndarray) -> np.ndarray:
        received.extend(np.sort(pairs, axis=1).tolist())
        return np.asarray(accepted[pairs[:, 0], pairs[:, 1]])

    found = group_hashes(hashes, bits, agree)
    expected = np.argwhere(np.triu((apart <= bits) & accepted, k=1))
    assert smallest_rows(found) == components(expected, len(hashes))
    assert bits == 0 or len(expected)
    assert len(received) == len(set(map(tuple, received)))
    assert all(apart[a, b] <= bits for a, b in received)


def test_near_identical_frames_are_not_all_compared() -> None:
    """All 2 million pairs of these hashes differ in at most 8 bits."""
    rng = np.random.default_rng(0)
    hashes = np.full(2000, 12345, np.uint64)
    for _ in range(4):
        hashes ^= np.uint64(1) << rng.integers(0, 64, 2000).astype(np.uint64)
    hashes = np.unique(hashes)
    received = []

    def agree(pairs: np.ndarray) -> np.ndarray:
        received.append(len(pairs))
        return np.ones(len(pairs), bool)

    assert len(set(group_hashes(hashes, BITS, agree))) == 1
    assert sum(received) < 10 * len(hashes)
    assert group_hashes(hashes[:0], BITS, agree).tolist() == []


def test_exact_and_near_duplicates_are_grouped(photos: list[Image.Image]) -> None:
    chosen = [*photos[:10], changed(photos[3])["recompressed"], photos[5], photos[3]]
    chosen += [Image.new("RGB", (128, 128), name) for name in ("red", "red", "blue")]
    sha256 = [f"{index:02d}" * 32 for index in range(len(chosen))]
    sha256[14] = sha256[13]  # the same file twice; the other flat photo has no duplicate
    hashes = [perceptual_hash(photo) for photo in chosen]
    groups = group_duplicates(sha256, hashes, stack(chosen), BITS)
    assert groups[3] == groups[10] == groups[12] == sha256[3][:16]
    assert groups[5] == groups[11] == sha256[5][:16]
    assert groups[13] == groups[14] == sha256[13][:16]
    assert [row for row, name in enumerate(groups) if name == ""] == [0, 1, 2, 4, 6, 7, 8, 9, 15]


def test_equal_hashes_of_different_photos_are_not_grouped(photos: list[Image.Image]) -> None:
    groups = group_duplicates(["aa", "bb"], ["0" * 16, "0" * 16], stack(photos[:2]), BITS)
    assert groups == ["", ""]


@pytest.mark.parametrize("seed", range(4))
def test_later_imports_do_not_change_the_groups_of_earlier_ones(seed: int) -> None:
    """Each photo of a later import may link photos that were no duplicates before."""
    rng = np.random.default_rng(seed)
    count = 120
    # Scenes of four frames; a frame and the next one differ in 8 bits.
    frames = rng.permutation(count)
    steps = [sum(1 << bit for bit in range(8 * step)) for step in range(4)]
    scenes = rng.integers(0, 2**63, count // 4, dtype=np.uint64)
    hashes = [f"{int(scenes[frame // 4]) ^ steps[frame % 4]:016x}" for frame in frames]
    sha256 = [f"{int(value):016x}" + "0" * 48 for value in rng.integers(0, 2**63, count)]
    images = np.repeat(rng.integers(0, 256, (1, 32, 32, 3), np.uint8), count, axis=0)
    imports = [str(number) for number in np.repeat(range(4), [60, 20, 25, 15])]
    found = {
        end: group_duplicates(sha256[:end], hashes[:end], images[:end], BITS, imports[:end])
        for end in (60, 80, 105, 120)
    }
    assert found[60] == group_duplicates(sha256[:60], hashes[:60], images[:60], BITS)

    def link(names: list[str]) -> np.ndarray:
        linked = np.array([[a == b != "" for b in names] for a in names])
        return linked | np.eye(len(names), dtype=bool)

    for earlier, later in combinations(found, 2):
        assert np.array_equal(link(found[earlier]), link(found[later][:earlier]))
    # Groups are parts of scenes. A photo is in one if it resembles a photo that was there before.
    whole = group_duplicates(sha256, hashes, images, BITS)
    assert (link(whole) | ~link(found[120])).all()
    near = np.array([[distance(a, b) <= BITS for b in hashes] for a in hashes])
    near &= ~np.eye(count, dtype=bool) & (np.array(imports) <= np.array(imports)[:, None])
    assert all(found[120][row] for row in np.flatnonzero(near.any(axis=1)))
    assert len(set(found[120])) > len(set(whole))
