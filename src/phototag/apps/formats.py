"""Output formats of `phototag predict`: functions that convert predictions to text.

A row is a dict with the keys `labels` (predicted labels), `scores` (label -> probability), `error`
(message, or None), `sha256` (hash of the file's content; None if the file could not be read),
`model_key` (hash that identifies the model; None if it is unknown) and `familiarity` (0..100; None
if it is unknown). Rows have the same order as the file names, and are read one at a time.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from phototag.base.errors import escape_control
from phototag.importers.table_files import PREDICTED
from phototag.serving.limits import UNLIKE, is_unfamiliar

Row = dict[str, Any]
COLUMNS = [*PREDICTED, "sha256", "model_key", "familiarity"]  # first columns of a CSV


def show_name(name: str) -> str:
    r"""Return a file name as one printable line that can be written to any stream.

    Bytes that are not UTF-8 are written as `\xNN`, and control characters as escapes such as `\n`,
    `\t` or `\x1b`.
    """
    return escape_control(show_bytes(name))


def show_bytes(name: str) -> str:
    r"""Return a file name in which bytes that are not UTF-8 are written as `\xNN`."""
    return os.fsencode(name).decode(errors="backslashreplace")


def as_table(names: Sequence[str], labels: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    """Yield a table for a terminal: a line per photo, with file name, labels and probabilities."""
    width = max((len(show_name(name)) for name in names), default=0)
    for name, row in zip(names, rows, strict=True):
        scores = ", ".join(f"{label} {row['scores'][label]:.2f}" for label in row["labels"])
        text = row["error"] or show_name(scores) or "(no label)"
        note = f" ({UNLIKE})" if is_unfamiliar(row.get("familiarity")) else ""
        yield f"{show_name(name):<{width}}  {text}{note}\n"


def as_csv(names: Sequence[str], labels: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    r"""Yield CSV rows with the `COLUMNS`, and one probability per label.

    The labels are separated by `;`. If a label contains `;` or starts with `[`, the labels of a
    photo are a JSON list. If a label has the name of one of the `COLUMNS`, all probability columns
    are named `score:LABEL`. File names and labels are not escaped, so that programs read them
    unchanged; only bytes that are not UTF-8 become `\xNN`.
    """
    as_list = any(";" in label or label.startswith("[") for label in labels)
    clash = not set(COLUMNS).isdisjoint(label.casefold() for label in labels)
    yield join_cells([*COLUMNS, *(f"score:{label}" if clash else label for label in labels)])
    for name, row in zip(names, rows, strict=True):
        scores = [f"{row['scores'][label]:.6f}" if row["scores"] else "" for label in labels]
        found = ";".join(row["labels"])
        if as_list:
            found = json.dumps(row["labels"], ensure_ascii=False)
        other = [row[column] or "" for column in COLUMNS[2:-1]]
        familiarity = row.get("familiarity")
        other.append("" if familiarity is None else f"{familiarity:.4f}")
        yield join_cells([name, found, *other, *scores])


def join_cells(cells: Iterable[str]) -> str:
    """Return a line of a CSV."""
    text = io.StringIO()
    # With this line end, the writer quotes cells that contain \r or \n.
    csv.writer(text, lineterminator="\r\n").writerow(map(show_bytes, cells))
    return text.getvalue().removesuffix("\r\n") + "\n"


def as_jsonl(names: Sequence[str], labels: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    r"""Yield one JSON object per line: the key `file`, and the keys of a row.

    Control characters are written as JSON escapes. Bytes that are not UTF-8 become `\xNN`.
    """
    for name, row in zip(names, rows, strict=True):
        yield json.dumps({"file": show_bytes(name)} | row, ensure_ascii=False) + "\n"


def as_labelstudio(
    names: Sequence[str], labels: Sequence[str], rows: Iterable[Row]
) -> Iterator[str]:
    """Yield Label Studio tasks with predictions (https://labelstud.io/guide/predictions).

    Image paths are relative to the current folder, or to `/` if any path is absolute or outside the
    current folder. The score of a task, in 0.5..1, is the minimum of `max(p, 1 - p)` over the
    probabilities p of all labels. Unreadable files are omitted.
    """
    paths = map(Path, map(os.path.normpath, names))
    outside = any(path.is_absolute() or path.parts[:1] == ("..",) for path in paths)
    root = Path("/" if outside else Path.cwd())
    separator = "["
    for name, row in zip(names, rows, strict=True):
        if not row["error"]:
            task = _describe_task(os.path.relpath(name, root), row)
            yield f"{separator}\n{json.dumps(task, ensure_ascii=False)}"
            separator = ","
    yield "[]\n" if separator == "[" else "\n]\n"


def _describe_task(name: str, row: Row) -> dict[str, Any]:
    # The labelling interface must use these names: <Choices name="labels" toName="image" ...>
    choices: dict[str, Any] = {"id": "labels", "from_name": "labels", "to_name": "image"}
    choices |= {"type": "choices", "value": {"choices": row["labels"]}}
    prediction = {
        "model_version": "phototag",
        "score": min(max(score, 1 - score) for score in row["scores"].values()),
        "result": [choices] if row["labels"] else [],
    }
    path = quote(os.fsencode(Path(name).as_posix()))
    data = {"image": f"/data/local-files/?d={path}", "familiarity": row.get("familiarity")}
    return {"data": data, "predictions": [prediction]}


# Each function takes the file names, the model's labels and the rows, and yields text to write.
FORMATS: dict[str, Callable[[Sequence[str], Sequence[str], Iterable[Row]], Iterator[str]]] = {
    "table": as_table,
    "csv": as_csv,
    "jsonl": as_jsonl,
    "labelstudio": as_labelstudio,
}


def write_rows(
    format: str,
    names: Sequence[str],
    labels: Sequence[str],
    rows: Iterable[Row],
    write: Callable[[str], object],
) -> bool:
    """Write rows in one of the `FORMATS`; return whether any photo could be read."""
    any_readable = False

    def watch() -> Iterator[Row]:
        nonlocal any_readable
        for row in rows:
            any_readable |= not row["error"]
            yield row

    for text in FORMATS[format](names, labels, watch()):
        write(text)
    return any_readable


def print_rows(
    format: str, names: Sequence[str], labels: Sequence[str], rows: Iterable[Row]
) -> bool:
    """Print each row as soon as it is known; return whether any photo could be read.

    The table is written in the encoding of the terminal, and the other formats in UTF-8.
    """
    encoding = sys.stdout.encoding if format == "table" else "utf-8"

    def write(text: str) -> None:
        sys.stdout.buffer.write(text.encode(encoding, "backslashreplace"))
        sys.stdout.flush()

    return write_rows(format, names, labels, rows, write)
