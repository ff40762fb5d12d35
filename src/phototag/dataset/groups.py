"""Group the photos that must be in the same split: duplicates, and groups that the user sets."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def gather_groups(
    sha256: Sequence[str], duplicate_groups: Sequence[str], source_groups: Sequence[str]
) -> list[str]:
    """Merge groups of duplicates with the groups in sources.csv (photographer, album).

    The group of a photo without a group is "".

    Returns:
        Name of each photo's group, 16 hexadecimal digits, [num_images]. The name of an album's
        group is derived from the album's name, so new photos do not change it.
    """
    ids = [
        hashlib.sha256(f"group {group}".encode()).hexdigest() if group else digest
        for digest, group in zip(sha256, source_groups, strict=True)
    ]
    links = [link_equal(values) for values in (sha256, duplicate_groups, source_groups)]
    return merge_pairs(ids, np.concatenate(links))


def link_equal(values: Sequence[str] | np.ndarray) -> np.ndarray:
    """Return pairs that link each row to the first row with the same value, int64 [num_pairs, 2].

    Rows with an empty value are not linked.
    """
    texts = np.asarray(values, dtype=str)
    _, first, codes = np.unique(texts, return_index=True, return_inverse=True)
    pairs = np.column_stack([first[codes], np.arange(len(texts))])
    return np.asarray(pairs[(texts != "") & (pairs[:, 0] != pairs[:, 1])])


def merge_pairs(ids: Sequence[str], pairs: np.ndarray) -> list[str]:
    """Merge rows that are linked, directly or through other rows, into named groups.

    Args:
        ids: Hash of each row's content in hexadecimal digits, [num_rows].
        pairs: Pairs of linked rows, int64 [num_pairs, 2].

    Returns:
        Name of each row's group, [num_rows]: the first 16 digits of the smallest id in the group.
        The name therefore does not depend on the names or the order of the files.
    """
    shape = (len(ids), len(ids))
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=shape)
    _, component = connected_components(graph, directed=False)
    smallest = pd.Series(list(ids), dtype=str).groupby(component).transform("min")
    return smallest.str[:16].tolist()
