"""Formats in which a prediction takes one line: table, CSV, JSON lines, results.txt.

One line per photo makes it possible to resume a file that was cut off.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from phototag.base.errors import InputError
from phototag.pages.escaping import escape_spreadsheet_cell
from phototag.serving.tagger import Tags

COLUMNS = ["file", "labels", "error"]
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
SURROGATE = re.compile(r"[\ud800-\udfff]")
FormatLine = Callable[[str, Tags], str]


def show_name(name: str) -> str:
    r"""Return a file name on one line, without characters that a stream could refuse.

    Bytes that are not UTF-8 become `\xNN`; line breaks, tabs and other control characters become
    `\n`, `\t`, `\x1b`.
    """
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), show_bytes(name))


def show_bytes(name: str) -> str:
    r"""Return a name with `\xNN` for bytes that are not UTF-8, which Python keeps as surrogates."""
    return SURROGATE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", name)


def order_names(names: Sequence[str], format_: str) -> list[str]:
    """Return the files in the order of the output, which is by image number for results.

    Raises:
        InputError: For results, a file name has no number, or two have the same.
    """
    if format_ != "results":
        return list(names)
    numbered: dict[int, str] = {}
    for name in names:
        numbers = re.findall(r"\d+", Path(name).stem)
        if not numbers:
            raise InputError(
                f"{show_name(name)}: no image number in the name, by which results.txt is sorted: "
                "rename the file or choose another format"
            )
        number = int(numbers[-1])
        if number in numbered:
            raise InputError(
                f"{show_name(name)}: image number {number} is also in {show_name(numbered[number])}"
            )
        numbered[number] = name
    return [numbered[number] for number in sorted(numbered)]


def as_table(names: Sequence[str], labels: Sequence[str]) -> tuple[str, FormatLine]:
    """Return the format for terminals: file and labels with probabilities, in two columns."""
    width = max((len(show_name(name)) for name in names), default=0)

    def format_line(name: str, tags: Tags) -> str:
        scores = ", ".join(f"{label} {tags.scores[label]:.2f}" for label in tags.labels)
        return f"{show_name(name):<{width}}  {show_name(tags.error or scores or '(no label)')}\n"

    return "", format_line


def as_csv(names: Sequence[str], labels: Sequence[str]) -> tuple[str, FormatLine]:
    """Return the CSV format: file, labels separated by ;, error, one probability per label.

    If a label is named file, labels or error, the probability columns are named `score:LABEL`.
    Text that a spreadsheet would evaluate as a formula gets a leading `'`.
    """
    clash = not set(COLUMNS).isdisjoint(labels)
    titles = [f"score:{label}" if clash else label for label in labels]

    def format_line(name: str, tags: Tags) -> str:
        scores = [f"{tags.scores[label]:.6f}" if tags.scores else "" for label in labels]
        return _join_cells([name, ";".join(tags.labels), tags.error or ""], scores)

    return _join_cells([*COLUMNS, *titles]), format_line


def _join_cells(words: Sequence[str], numbers: Sequence[str] = ()) -> str:
    text = io.StringIO()
    cells = [escape_spreadsheet_cell(show_name(word)) for word in words]
    csv.writer(text, lineterminator="\n").writerow([*cells, *numbers])
    return text.getvalue()


def as_jsonl(names: Sequence[str], labels: Sequence[str]) -> tuple[str, FormatLine]:
    r"""Return the JSON lines format: one object per line with file, labels, scores and error.

    JSON escapes control characters; bytes that are not UTF-8 become `\xNN`.
    """

    def format_line(name: str, tags: Tags) -> str:
        row = {"file": show_bytes(name), "labels": tags.labels, "scores": tags.scores}
        return json.dumps(row | {"error": tags.error}, ensure_ascii=False) + "\n"

    return "", format_line


def as_results(names: Sequence[str], labels: Sequence[str]) -> tuple[str, FormatLine]:
    """Return the format of the course's results.txt: one row of 0 and 1 per photo.

    A photo that could not be read gets a row of zeros, so that rows match image numbers.
    """

    def format_line(name: str, tags: Tags) -> str:
        return " ".join(str(int(label in tags.labels)) for label in labels) + "\n"

    return "", format_line


# Name -> function that takes files and labels and returns a header, which may be empty, and the
# function that formats one photo.
FORMATS: dict[str, Callable[[Sequence[str], Sequence[str]], tuple[str, FormatLine]]] = {
    "table": as_table,
    "csv": as_csv,
    "jsonl": as_jsonl,
    "results": as_results,
    # These lines are converted to a document at the end.
    "coco": as_jsonl,
    "labelstudio": as_jsonl,
}
