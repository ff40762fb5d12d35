"""Reader of sources.csv, which `phototag import` writes next to the photos."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from phototag.base.errors import InputError
from phototag.decoding.sources import read_file
from phototag.verification.listing import read_listing


def read_source_groups(source: Path, listing: str | None, names: Sequence[str]) -> list[str]:
    """Read the user's own group of each photo (photographer, album).

    Args:
        source: A folder or zip.
        listing: Path of sources.csv in the source, or None without one. Its columns are file and
            group; other columns are ignored, and without the column group there are no groups.
        names: Photos, [num_photos].

    Returns:
        Group of each photo, [num_photos], empty for a photo without one.

    Raises:
        InputError: The file is not a valid CSV file, or its column file is missing.
    """
    if listing is None:
        return [""] * len(names)
    path = source / listing
    try:
        data = read_file(source, listing)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    table = read_listing(data, str(path))
    if "group" in table.columns and "file" not in table.columns:
        raise InputError(f"{path}: the column 'file' is missing: name it in the first line")
    groups = {row.cells.get("file", ""): row.cells.get("group", "") for row in table.rows}
    return [groups.get(PurePosixPath(name).name, "") for name in names]
