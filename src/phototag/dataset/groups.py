"""Groups of photos that belong together, and stay on one side of a split."""

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def gather_groups(
    sha256: Sequence[str], duplicate_groups: Sequence[str], source_groups: Sequence[str]
) -> list[str]:
    """Merge duplicates and the user's own groups (photographer, album).

    Args:
        sha256: Of the source files, [num_images].
        duplicate_groups: [num_images], empty for a photo without a duplicate.
        source_groups: [num_images], empty for a photo without one.

    Returns:
        The group of each photo, [num_images], 16 hexadecimal digits. An album is named by its own
        name, so that photos added to it change nothing.
    """
    ids = [
        hashlib.sha256(f"group {group}".encode()).hexdigest() if group else digest
        for digest, group in zip(sha256, source_groups, strict=True)
    ]
    links = [link_equal(values) for values in (sha256, duplicate_groups, source_groups)]
    return merge_pairs(ids, np.concatenate(links))


def link_equal(values: Sequence[str]) -> np.ndarray:
    """Pair rows of one value, each with the next of its kind; empty values pair with none.

    Returns:
        Rows, int64 [num_pairs, 2].
    """
    _, codes = np.unique(np.asarray(values, dtype=str), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    equal = codes[order][1:] == codes[order][:-1]
    equal &= np.array([values[row] != "" for row in order[1:]], bool)
    return np.column_stack([order[:-1][equal], order[1:][equal]])


def merge_pairs(ids: Sequence[str], pairs: np.ndarray) -> list[str]:
    """Merge rows that are linked, directly or through others, and name the groups.

    Args:
        ids: A hash of each row's content, hexadecimal, [num_rows].
        pairs: Rows that are linked, int64 [num_pairs, 2].

    Returns:
        The group of each row, [num_rows]: the first 16 digits of the least id in it, so that it
        follows from the content, and from neither names nor order.
    """
    shape = (len(ids), len(ids))
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=shape)
    _, component = connected_components(graph, directed=False)
    least: dict[int, str] = {}
    for label, name in zip(component.tolist(), ids, strict=True):
        least[label] = min(least.get(label, name), name)
    return [least[label][:16] for label in component.tolist()]
