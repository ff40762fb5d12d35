"""What is said of a photo, in one line: for readers, as CSV, as JSON, as the course's rows.

Each photo takes one line in every format, so that a file that was cut off tells how far it came.
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
Line = Callable[[str, Tags], str]


def show_name(name: str) -> str:
    r"""Write a file's name on one line, so that every stream and encoding of Unicode takes it.

    Bytes that are no UTF-8 stand as `\xNN`, line breaks, tabs and other control characters as
    `\n`, `\t`, `\x1b`; everything else as it is.
    """
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), show_bytes(name))


def show_bytes(name: str) -> str:
    r"""Write the bytes of a name that are no UTF-8, which Python holds as surrogates, as `\xNN`."""
    return SURROGATE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", name)


def order_names(names: Sequence[str], format_: str) -> list[str]:
    """Return the photos in the order of the output: of image numbers for results.

    Raises:
        InputError: For results, a file's name holds no number, or two hold the same.
    """
    if format_ != "results":
        return list(names)
    numbered: dict[int, str] = {}
    for name in names:
        numbers = re.findall(r"\d+", Path(name).stem)
        if not numbers:
            raise InputError(
                f"{show_name(name)}: results.txt goes by image numbers, and this name has none"
            )
        if int(numbers[-1]) in numbered:
            raise InputError(f"{show_name(name)}: image number {int(numbers[-1])} comes twice")
        numbered[int(numbers[-1])] = name
    return [numbered[number] for number in sorted(numbered)]


def as_table(names: Sequence[str], labels: Sequence[str]) -> tuple[str, Line]:
    """For a reader: each photo's labels with their probabilities, behind the longest name."""
    width = max((len(show_name(name)) for name in names), default=0)

    def line(name: str, tags: Tags) -> str:
        told = ", ".join(f"{label} {tags.scores[label]:.2f}" for label in tags.labels)
        return f"{show_name(name):<{width}}  {show_name(tags.error or told or '(no label)')}\n"

    return "", line


def as_csv(names: Sequence[str], labels: Sequence[str]) -> tuple[str, Line]:
    """File, labels (separated by semicolons), error, and a column a label with its probability.

    Where a label is called like one of the first three columns, the columns of all labels are
    called `score:LABEL`. Words that a spreadsheet would compute get a `'` in front.
    """
    clash = not set(COLUMNS).isdisjoint(labels)
    titles = [f"score:{label}" if clash else label for label in labels]

    def line(name: str, tags: Tags) -> str:
        scores = [f"{tags.scores[label]:.6f}" if tags.scores else "" for label in labels]
        return _join([name, ";".join(tags.labels), tags.error or ""], scores)

    return _join([*COLUMNS, *titles]), line


def _join(words: Sequence[str], numbers: Sequence[str] = ()) -> str:
    shown = [show_name(word) for word in words]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([*map(escape_spreadsheet_cell, shown), *numbers])
    return text.getvalue()


def as_jsonl(names: Sequence[str], labels: Sequence[str]) -> tuple[str, Line]:
    r"""One JSON object a line: file, labels, scores, error.

    JSON has its own way to write control characters; only bytes that are no UTF-8 stand as `\xNN`.
    """

    def line(name: str, tags: Tags) -> str:
        said = {"labels": tags.labels, "scores": tags.scores, "error": tags.error}
        row = {"file": show_bytes(name), **said}
        return json.dumps(row, ensure_ascii=False) + "\n"

    return "", line


def as_results(names: Sequence[str], labels: Sequence[str]) -> tuple[str, Line]:
    """The course's results.txt: one row of 0 and 1 a photo.

    A photo that could not be read has a row of zeros, so that the rows stay in step.
    """

    def line(name: str, tags: Tags) -> str:
        return " ".join(str(int(label in tags.labels)) for label in labels) + "\n"

    return "", line


# Of photos and labels: the first line, if there is one, and what writes each photo's.
FORMATS: dict[str, Callable[[Sequence[str], Sequence[str]], tuple[str, Line]]] = {
    "table": as_table,
    "csv": as_csv,
    "jsonl": as_jsonl,
    "results": as_results,
    # Documents are made of these lines when the last one is there.
    "coco": as_jsonl,
    "labelstudio": as_jsonl,
}
