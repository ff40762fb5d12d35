"""Sources for the tests of importers, and the results of importing them."""

import csv
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from phototag.decoding.sources import list_files, read_file
from phototag.importers.importer import import_photos
from phototag.importers.source import ImportOptions, SourceDataset


class Imported(NamedTuple):
    """The result of an import, by the names of the photos in the source.

    Attributes:
        summary: Dataset returned by `import_photos`.
        carried: Photo -> labels, joined by spaces.
        unknown: Photo -> unknown labels, joined by spaces; only photos with unknown labels.
        ids: Photo -> id in the source.
    """

    summary: SourceDataset
    carried: dict[str, str]
    unknown: dict[str, str]
    ids: dict[str, str]


def paint(path: Path, value: int) -> None:
    """Write a small photo in a shade of gray, 0..255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, value, value)).save(path)


def write(path: Path, content: Any) -> Path:
    """Write a text as it is, and any other value as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def annotate(*choices: str, **more: Any) -> dict[str, Any]:
    """Return an annotation as Label Studio 1.x exports it."""
    chosen = {
        "value": {"choices": list(choices)},
        "id": "Dx_aB91ISN",
        "from_name": "labels",
        "to_name": "image",
        "type": "choices",
        "origin": "manual",
    }
    return {
        "id": 12,
        "completed_by": 1,
        "result": [chosen] if choices else [],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-01-09T21:52:49.513742Z",
        "lead_time": 4.288,
        "task": 1,
    } | more


def make_task(number: int, image: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    """Return a task as Label Studio 1.x exports it."""
    return {
        "id": number,
        "annotations": list(annotations),
        "file_upload": image.rpartition("/")[2],
        "drafts": [],
        "predictions": [{"model_version": "m", "result": annotate("wrong")["result"]}],
        "data": {"image": image},
        "meta": {},
        "total_annotations": len(annotations),
        "project": 3,
    }


def run_import(source: Path, to: Path, **hints: Any) -> Imported:
    """Import a source into a zip and return the result by the names in its sources.csv."""
    summary = import_photos(source, to, ImportOptions(**hints))
    rows = list(csv.DictReader(io.StringIO(read_file(to, "sources.csv").decode())))
    names = {row["file"].removeprefix("im").partition(".")[0]: row["source"] for row in rows}
    images = [name for name in list_files(to) if name.startswith("images/")]
    assert sorted(images) == sorted(f"images/{row['file']}" for row in rows)
    found: dict[str, dict[str, list[str]]] = {
        "annotations": {name: [] for name in names.values()},
        "unknown": {},
    }
    for file in list_files(to):
        folder, _, label = file.partition("/")
        if folder in found:
            for number in read_file(to, file).decode().split():
                found[folder].setdefault(names[number], []).append(label.removesuffix(".txt"))
    carried, unknown = (
        {name: " ".join(sorted(labels)) for name, labels in table.items()}
        for table in found.values()
    )
    return Imported(summary, carried, unknown, {row["source"]: row.get("id", "") for row in rows})
