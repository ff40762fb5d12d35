"""The list of sources that `phototag import` leaves beside the photos: file, source, group."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from phototag.base.errors import InputError
from phototag.intake.problems import Problem
from phototag.intake.raw import read_file


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
        text = read_file(source, listing).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        columns = reader.fieldnames or []
        if "group" not in columns:
            return [""] * len(names), []
        if "file" not in columns:
            raise InputError("no column 'file'; the first line names the columns")
        rows = {row["file"]: (reader.line_num, row["group"] or "") for row in reader}
    except (InputError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{source / listing}: {error}") from None
    present = {PurePosixPath(name).name for name in names}
    problems = [
        Problem(listing, line, "no such image", str(file), "noted")
        for file, (line, _) in rows.items()
        if file not in present
    ]
    groups = [rows.get(PurePosixPath(name).name, (0, ""))[1].strip() for name in names]
    return groups, problems
