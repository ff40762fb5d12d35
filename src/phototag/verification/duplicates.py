"""Find duplicates: photos with equal bytes, and near duplicates, which show the same picture.

Candidates are pairs of photos whose perceptual hashes differ in few bits. They are near duplicates
if the luminance and the edges of the two photos are correlated too. This check separates photos
that only have a similar layout, such as two skies with a bird in the middle.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from PIL import Image

from phototag.dataset.groups import link_equal, merge_pairs

AREAS = 32  # number of areas per side over which the luminance is averaged
# Both limits were chosen after viewing all candidates in COCO and in the synthetic dataset.
MIN_CORRELATION = 0.9  # minimum correlation between the luminance of two photos
MIN_EDGE_CORRELATION = 0.6  # minimum correlation between the differences of neighbouring areas


def near_pairs(hashes: np.ndarray, distance: int) -> np.ndarray:
    """Find all pairs of hashes that differ in at most `distance` bits, without comparing all pairs.

    The bits are divided into `distance + 3` blocks, so the hashes of such a pair agree in at least
    three blocks. For each combination of three blocks, the hashes are sorted by the bits of these
    blocks and compared within runs of equal bits, which finds every pair (Manku et al. 2007,
    "Detecting near-duplicates for web crawling").

    Args:
        hashes: Perceptual hashes, uint64 [num_hashes].
        distance: Maximum number of differing bits, 0..20.

    Returns:
        Sorted pairs of rows, int64 [num_pairs, 2]. If several rows have the same hash, only
        the first is paired with other hashes; the rest are paired only with this first row.
    """
    unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    same = np.column_stack([first[inverse], np.arange(len(hashes))])
    found = [same[same[:, 0] != same[:, 1]]]
    for blocks in combinations(range(distance + 3), 3):
        # Each block mixes bits of low and high frequencies, so that runs have similar lengths.
        bits = [bit for bit in range(64) if bit % (distance + 3) in blocks]
        mask = np.uint64(sum(1 << bit for bit in bits))
        order = np.argsort(unique & mask)
        table = unique[order]
        start, step = np.arange(len(table)), 0
        while len(start):
            step += 1
            start = start[start < len(table) - step]
            difference = table[start] ^ table[start + step]
            # Hashes of a run are adjacent, so a hash is not compared beyond the end of its run.
            within = (difference & mask) == 0
            start, difference = start[within], difference[within]
            near = start[np.bitwise_count(difference) <= distance]
            if len(near):
                found.append(first[np.column_stack([order[near], order[near + step]])])
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0)


def group_duplicates(
    sha256: Sequence[str], hashes: Sequence[str], images: np.ndarray, distance: int
) -> list[str]:
    """Group the photos that are duplicates of each other, directly or through other photos.

    Args:
        sha256: SHA-256 of each source file, [num_images].
        hashes: Perceptual hash of each photo, [num_images].
        images: Packed photos, uint8 [num_images, size, size, 3]; only candidates are read.
        distance: Maximum number of bits in which the hashes of two candidates differ.

    Returns:
        Name of each photo's group, [num_images]; empty for a photo without duplicates. The name is
        the start of the smallest SHA-256 in the group, so it depends only on the photos' contents.
    """
    rows = np.flatnonzero([value != "" for value in hashes])
    values = np.array([int(value, 16) for value in hashes if value], np.uint64)
    candidates = rows[near_pairs(values, distance)]
    near = candidates[_correlate(images, candidates)]

    names = merge_pairs(sha256, np.concatenate([near, link_equal(sha256)]))
    size = Counter(names)
    return [name if size[name] > 1 else "" for name in names]


def _correlate(images: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return which pairs agree in luminance (ITU-R BT.601) and in edges, bool [num_pairs]."""
    maps = {int(row): _map_luminance(images[row]) for row in np.unique(pairs)}
    agreed = np.empty(len(pairs), bool)
    for index, (a, b) in enumerate(pairs.tolist()):
        luma, edges = (float(x @ y) for x, y in zip(maps[a], maps[b], strict=True))
        agreed[index] = luma >= MIN_CORRELATION and edges >= MIN_EDGE_CORRELATION
    return agreed


def _map_luminance(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean luminance of each area, and the differences between neighbouring areas.

    Both are flat, standardized vectors, so the dot product of two photos is their correlation.
    """
    luma = Image.fromarray(pixels).convert("L").convert("F")
    side = min(AREAS, len(pixels))
    means = np.asarray(luma.resize((side, side), Image.Resampling.BOX))
    steps = [np.diff(means, axis=axis).ravel() for axis in (0, 1)]
    return _standardize(means.ravel()), _standardize(np.concatenate(steps))


def _standardize(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    norm = np.linalg.norm(centred)
    return np.asarray(centred / norm if norm > 0 else centred)
