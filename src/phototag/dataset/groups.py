"""Groups of photos that must be in the same split: duplicates, and groups that the user sets.

The groups of an import are found without the photos of later imports, and later photos join them.
Thus adding an import changes neither the members nor the names of the earlier groups. A later photo
that belongs to several earlier groups joins the first, and these groups are not merged.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def gather_groups(
    sha256: Sequence[str],
    duplicate_groups: Sequence[str],
    source_groups: Sequence[str],
    imports: Sequence[str] | None = None,
) -> list[str]:
    """Merge groups of duplicates with the groups in sources.csv (photographer, album).

    The group of a photo without a group is "". `imports` is the import of each photo (default: all
    photos are of one import).

    Returns:
        Name of each photo's group, 16 hexadecimal digits, [num_images]. The name of an album's
        group is derived from the album's name, so new photos do not change it.
    """
    ids = [
        hashlib.sha256(f"group {group}".encode()).hexdigest() if group else digest
        for digest, group in zip(sha256, source_groups, strict=True)
    ]
    columns = [np.asarray(each, str) for each in (sha256, duplicate_groups, source_groups)]

    def find_components(rows: np.ndarray) -> np.ndarray:
        return connect_rows(len(rows), np.concatenate([link_equal(each[rows]) for each in columns]))

    return name_groups(ids, imports, find_components)


def link_equal(values: Sequence[str] | np.ndarray) -> np.ndarray:
    """Return pairs that link each row to the first row with the same value, int64 [num_pairs, 2].

    Rows with an empty value are not linked.
    """
    texts = np.asarray(values, dtype=str)
    _, first, codes = np.unique(texts, return_index=True, return_inverse=True)
    pairs = np.column_stack([first[codes], np.arange(len(texts))])
    return np.asarray(pairs[(texts != "") & (pairs[:, 0] != pairs[:, 1])])


def connect_rows(num_rows: int, pairs: np.ndarray) -> np.ndarray:
    """Return the number of each row's component, given pairs of linked rows."""
    links = (np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1]))
    graph = coo_array(links, shape=(num_rows, num_rows))
    return np.asarray(connected_components(graph, directed=False)[1])


def name_groups(
    ids: Sequence[str],
    imports: Sequence[str] | None,
    find_components: Callable[[np.ndarray], np.ndarray],
) -> list[str]:
    """Name the groups of linked rows, import by import.

    Args:
        ids: Hash of each row's content in hexadecimal digits, [num_rows].
        imports: Import of each row, [num_rows], in the order of the imports; None if there is one.
        find_components: Function that receives rows, int64, and returns the number of the component
            of each. A component contains rows that are linked directly or through other given rows.

    Returns:
        Name of each row's group, [num_rows]: the first 16 digits of the smallest id among the rows
        of the group's first import. The name does not depend on the names or the order of files.
    """
    numbers = pd.factorize(np.asarray(imports or [""] * len(ids), object))[0]
    names = np.array([""] * len(ids), object)

    def name_rows(rows: np.ndarray, components: np.ndarray) -> None:
        own = [names[row] or ids[row][:16] for row in rows]
        table = pd.DataFrame({"import": numbers[rows], "name": own, "component": components})
        first = table.sort_values(["import", "name"]).groupby("component")["name"].first()
        names[rows] = np.where(names[rows] == "", first[components], names[rows])

    components = find_components(np.arange(len(ids)))
    start = np.full(len(ids), len(ids))  # import in which each component starts
    np.minimum.at(start, components, numbers)
    shared = np.isin(components, components[numbers > start[components]])
    name_rows(np.flatnonzero(~shared), components[~shared])
    # Only components of photos of several imports depend on the order of the imports.
    for current in np.unique(numbers[shared]):
        rows = np.flatnonzero(shared & (numbers <= current))
        name_rows(rows, find_components(rows))
    return list(names)
