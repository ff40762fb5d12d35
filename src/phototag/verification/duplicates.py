"""Duplicate photos: the same bytes, or the same picture in other bytes.

Candidates are photos whose perceptual hashes differ in few bits. They count as near duplicates
when their luminance and its edges agree as well, so that two skies with a bird in the middle, or
two figures before one kind of background, stay apart.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from PIL import Image

from phototag.dataset.groups import link_equal, merge_pairs

AREAS = 32  # a side, over which the luminance is averaged
# Chosen on COCO photos and on the drawn scenes, by looking at all candidates.
MIN_CORRELATION = 0.9  # of two photos' luminance
MIN_EDGE_CORRELATION = 0.6  # of the steps between neighbouring areas


def near_pairs(hashes: np.ndarray, distance: int) -> np.ndarray:
    """Find all pairs of hashes that differ in at most `distance` bits, without comparing all.

    The bits fall into `distance + 3` blocks. Two hashes that near agree in at least three of them,
    so they meet in the table of one triple of blocks: sort by these blocks' bits, compare within
    runs. This is exact (Manku et al. 2007, "Detecting near-duplicates for web crawling").

    Args:
        hashes: uint64 [num_hashes].
        distance: In bits, 0..20.

    Returns:
        Pairs of rows, int64 [num_pairs, 2], sorted. Rows of one and the same hash are paired with
        the first of them only, and only that first row with other hashes.
    """
    unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    same = np.column_stack([first[inverse], np.arange(len(hashes))])
    found = [same[same[:, 0] != same[:, 1]]]
    for blocks in combinations(range(distance + 3), 3):
        # Every block takes bits from all frequencies, so that no table is skewed.
        bits = [bit for bit in range(64) if bit % (distance + 3) in blocks]
        mask = np.uint64(sum(1 << bit for bit in bits))
        order = np.argsort(unique & mask)
        table = unique[order]
        start, step = np.arange(len(table)), 0
        while len(start):
            step += 1
            start = start[start < len(table) - step]
            difference = table[start] ^ table[start + step]
            # Runs are contiguous: a start whose run has ended is done.
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
    """Group photos that are duplicates of each other, directly or through others.

    Args:
        sha256: Of the source files, [num_images].
        hashes: Of `perceptual_hash`, [num_images].
        images: uint8 [num_images, size, size, 3]; may be a memory map, only candidates are read.
        distance: Bits in which the hashes of candidates may differ.

    Returns:
        The name of each photo's group, [num_images]: the start of the least SHA-256 in it, so that
        it depends on content alone. Empty for a photo without a duplicate.
    """
    rows = np.flatnonzero([value != "" for value in hashes])
    values = np.array([int(value, 16) for value in hashes if value], np.uint64)
    candidates = rows[near_pairs(values, distance)]
    near = candidates[_agree(images, candidates)]

    names = merge_pairs(sha256, np.concatenate([near, link_equal(sha256)]))
    size = Counter(names)
    return [name if size[name] > 1 else "" for name in names]


def _agree(images: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Tell which pairs agree in luminance (ITU-R BT.601) and its edges, bool [num_pairs]."""
    maps = {int(row): _map_luminance(images[row]) for row in np.unique(pairs)}
    agreed = np.empty(len(pairs), bool)
    for index, (a, b) in enumerate(pairs.tolist()):
        luma, edges = (float(x @ y) for x, y in zip(maps[a], maps[b], strict=True))
        agreed[index] = luma >= MIN_CORRELATION and edges >= MIN_EDGE_CORRELATION
    return agreed


def _map_luminance(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the luminance of the areas and the steps between them, so that x @ y correlates."""
    luma = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)
    # Areas of (nearly) equal size, also where the size is no multiple of their number.
    edges = np.linspace(0, len(luma), min(AREAS, len(luma)) + 1).astype(int)
    sums = np.add.reduceat(np.add.reduceat(luma, edges[:-1], axis=0), edges[:-1], axis=1)
    means = sums / np.outer(np.diff(edges), np.diff(edges))
    steps = [np.diff(means, axis=axis).ravel() for axis in (0, 1)]
    return _standardize(means.ravel()), _standardize(np.concatenate(steps))


def _standardize(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    norm = np.linalg.norm(centred)
    return np.asarray(centred / norm if norm > 0 else centred)
