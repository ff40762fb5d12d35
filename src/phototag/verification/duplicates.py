"""Find duplicates: photos with equal bytes, and near duplicates, which show the same picture.

Candidates are pairs of photos whose perceptual hashes differ in few bits. They are near duplicates
if the luminance and the edges of the two photos are correlated too. This check separates photos
that only have a similar layout, such as two skies with a bird in the middle.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from phototag.dataset.groups import connect_rows, link_equal, name_groups

AREAS = 32  # number of areas per side over which the luminance is averaged
# Both limits were chosen after viewing all candidates in COCO and in the synthetic dataset.
MIN_CORRELATION = 0.9  # minimum correlation between the luminance of two photos
MIN_EDGE_CORRELATION = 0.6  # minimum correlation between the differences of neighbouring areas
MAX_MAPS = 50_000  # photos whose luminance is kept in memory; each takes 12 kB


def group_hashes(
    hashes: np.ndarray, distance: int, agree: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Group the hashes that differ in at most `distance` bits, if `agree` accepts the pair.

    The bits are divided into `distance + 3` blocks, so the hashes of such a pair agree in at least
    three blocks. For each combination of three blocks, the hashes are sorted by the bits of these
    blocks and compared within runs of equal bits (Manku et al. 2007, "Detecting near-duplicates for
    web crawling"). Hashes that are already in the same group are not compared, so time and memory
    do not grow quadratically with the number of frames of one scene.

    Args:
        hashes: Perceptual hashes without repetitions, uint64 [num_hashes].
        distance: Maximum number of differing bits, 0..20.
        agree: Function that receives each pair of rows at most once, as int64 [num_pairs, 2], and
            returns which pairs it accepts, bool [num_pairs].

    Returns:
        Number of each hash's group, int [num_hashes].
    """
    group = np.arange(len(hashes))
    # Each block mixes bits of low and high frequencies, so that runs have similar lengths.
    num_blocks = distance + 3
    masks = [
        np.uint64(sum(1 << bit for bit in range(block, 64, num_blocks)))
        for block in range(num_blocks)
    ]
    for blocks in combinations(range(num_blocks), 3):
        key = hashes & sum((masks[block] for block in blocks), np.uint64(0))
        order = np.lexsort((group, key))
        table, key = hashes[order], key[order]
        changed = (key[1:] != key[:-1]) | (np.diff(group[order]) != 0)
        part = np.append(0, np.cumsum(changed))  # number of the run and group
        start, end = np.arange(len(hashes)), np.searchsorted(key, key, side="right")
        other = np.searchsorted(part, part, side="right")
        while len(start):
            within = other < end
            start, other, end = start[within], other[within], end[within]
            near = np.bitwise_count(table[start] ^ table[other]) <= distance
            pairs = order[np.column_stack([start[near], other[near]])]
            pairs = pairs[group[pairs[:, 0]] != group[pairs[:, 1]]]
            # If a previous combination of blocks agrees too, it has already found the pair.
            for block in set(range(blocks[-1])) - set(blocks):
                first, second = (hashes[pairs] & masks[block]).T
                pairs = pairs[first != second]
            linked = group[pairs[agree(pairs)]]
            if len(linked):
                graph = coo_array((np.ones(len(linked)), linked.T), shape=(len(hashes),) * 2)
                group = connected_components(graph, directed=False)[1][group]
            other = other + 1
    return group


def group_duplicates(
    sha256: Sequence[str],
    hashes: Sequence[str],
    images: np.ndarray,
    distance: int,
    imports: Sequence[str] | None = None,
) -> list[str]:
    """Group the photos that are duplicates of each other, directly or through other photos.

    Photos of a later import join the groups of earlier imports, and do not merge these groups.

    Args:
        sha256: SHA-256 of each source file, [num_images].
        hashes: Perceptual hash of each photo, [num_images].
        images: Packed photos, uint8 [num_images, size, size, 3]; only candidates are read.
        distance: Maximum number of bits in which the hashes of two candidates differ.
        imports: Import of each photo, [num_images] (default: all photos are of one import).

    Returns:
        Name of each photo's group, [num_images]; empty for a photo without duplicates. The name is
        the start of the smallest SHA-256 among the photos of the group's first import, so it
        depends only on the photos' contents.
    """
    # The cache of maps is shared by the imports.
    read_maps = lru_cache(MAX_MAPS)(lambda row: _map_luminance(images[row]))

    def agree(pairs: np.ndarray) -> np.ndarray:
        agreed = np.empty(len(pairs), bool)
        for index, (a, b) in enumerate(pairs.tolist()):
            luma, edges = (float(x @ y) for x, y in zip(read_maps(a), read_maps(b), strict=True))
            agreed[index] = luma >= MIN_CORRELATION and edges >= MIN_EDGE_CORRELATION
        return agreed

    def find_components(chosen: np.ndarray) -> np.ndarray:
        rows = np.array([row for row in chosen.tolist() if hashes[row]], np.int64)
        values = np.array([int(hashes[row], 16) for row in rows], np.uint64)
        unique, first, inverse = np.unique(values, return_index=True, return_inverse=True)
        # If photos have the same hash, only the first is compared with photos of other hashes.
        first = rows[first]
        equal = np.column_stack([first[inverse], rows])
        equal = equal[equal[:, 0] != equal[:, 1]]
        near = group_hashes(unique, distance, lambda pairs: agree(first[pairs]))
        same = chosen[link_equal([sha256[row] for row in chosen])]
        pairs = np.concatenate([first[link_equal(near)], equal[agree(equal)], same])
        return connect_rows(len(chosen), np.searchsorted(chosen, pairs))

    names = name_groups(sha256, imports, find_components)
    count = Counter(names)
    return [name if count[name] > 1 else "" for name in names]


def _map_luminance(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return standardized vectors: the mean luminance of areas, and their differences."""
    luma = Image.fromarray(pixels).convert("L").convert("F")
    side = min(AREAS, len(pixels))
    means = np.asarray(luma.resize((side, side), Image.Resampling.BOX))
    steps = [np.diff(means, axis=axis).ravel() for axis in (0, 1)]
    return _standardize(means.ravel()), _standardize(np.concatenate(steps))


def _standardize(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    norm = np.linalg.norm(centred)
    return np.asarray(centred / norm if norm > 0 else centred)
