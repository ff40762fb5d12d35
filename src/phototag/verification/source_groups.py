"""The list of sources that an import leaves beside the photos: file, source, group, maybe id."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from phototag.base.errors import InputError
from phototag.decoding.sources import read_file
from phototag.verification.listing import read_listing
from phototag.verification.problems import Problem


def read_source_groups(
    source: Path, listing: str | None, names: Sequence[str]
) -> tuple[list[str], list[Problem]]:
    """Read the user's own group of each photo (photographer, album).

    Args:
        source: A folder or zip.
        listing: The sources.csv in it, with the columns file and group; None where there is none.
        names: The photos.

    Returns:
        The group of each photo, [num_photos], empty where none is given; and the problems.

    Raises:
        InputError: The file is no such CSV.
    """
    if listing is None:
        return [""] * len(names), []
    try:
        data = read_file(source, listing)
    except InputError as error:
        raise InputError(f"{source / listing}: {error}") from None
    table = read_listing(data, str(source / listing))
    if "group" not in table.columns:
        return [""] * len(names), []
    if "file" not in table.columns:
        raise InputError(f"{source / listing}: no column 'file'; the first line names the columns")
    rows: dict[str, tuple[int, str]] = {}
    for row in table.rows:
        place, file = f"{source / listing}:{row.line}", row.cells.get("file", "")
        if row.extra:
            raise InputError(
                f"{place}: more cells than the {len(table.columns)} columns that the first line "
                "names"
            )
        if file in rows:
            raise InputError(f"{place}: {file} stands on line {rows[file][0]} already")
        rows[file] = (row.line, row.cells.get("group", ""))
    present = {PurePosixPath(name).name for name in names}
    problems = [
        Problem(listing, line, "no such image", file, "noted")
        for file, (line, _) in rows.items()
        if file not in present
    ]
    groups = [rows.get(PurePosixPath(name).name, (0, ""))[1] for name in names]
    return groups, problems
