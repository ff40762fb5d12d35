"""Formats in which all predictions are one JSON document: COCO and Label Studio.

A document is made at the end from the JSON lines of `formats.as_jsonl`.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image
from tqdm import tqdm

from phototag.apps.formats import show_bytes
from phototag.decoding.formats import FORMATS

# Names in Label Studio's configuration: <Choices name="labels" toName="image" choice="multiple">
CONTROL, OBJECT = "labels", "image"
QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def as_coco(names: Sequence[str], labels: Sequence[str], rows: Iterable[str]) -> Iterator[str]:
    """Yield a COCO instances file, with one annotation of the whole photo per label.

    Files that cannot be read are left out.

    Args:
        names: Paths of the files.
        labels: Names of all labels; category ids start at 1.
        rows: JSON line of each file.
    """
    measured = tqdm(names, "measure", disable=None)
    sizes = {name: size for name in measured if (size := _photo_size(name))}
    numbers = {name: number for number, name in enumerate(sizes, start=1)}
    categories = ({"id": n, "name": label} for n, label in enumerate(labels, start=1))

    def annotate() -> Iterator[dict[str, Any]]:
        for name, row in zip(names, map(json.loads, rows), strict=True):
            if row["error"]:
                sizes.pop(name, None)  # the header was readable, the pixels were not
            for label in row["labels"] if name in sizes else ():
                yield {
                    "image_id": numbers[name],
                    "category_id": labels.index(label) + 1,
                    "bbox": [0, 0, *sizes[name]],
                    "area": sizes[name][0] * sizes[name][1],
                    "segmentation": [],
                    "iscrowd": 0,
                    "score": row["scores"][label],
                }

    annotations = ({"id": number, **box} for number, box in enumerate(annotate(), start=1))
    # The images are written last, because the unreadable ones are then known.
    yield '{"info": {"description": "Predictions of phototag"}, "licenses": [],\n"categories": '
    yield from _write_list(categories)
    yield ',\n"annotations": '
    yield from _write_list(annotations)
    yield ',\n"images": '
    yield from _write_list(
        {"id": numbers[name], "file_name": show_bytes(name), "width": width, "height": height}
        for name, (width, height) in sizes.items()
    )
    yield "}\n"


def as_labelstudio(
    names: Sequence[str], labels: Sequence[str], rows: Iterable[str]
) -> Iterator[str]:
    """Yield Label Studio tasks with predictions (https://labelstud.io/guide/predictions).

    The score of a task is the smallest confidence over its labels, 0.5..1. Files that cannot be
    read are left out.

    Args:
        names: Paths of the files. Set Label Studio's LOCAL_FILES_DOCUMENT_ROOT to the current
            folder, or to `/` if a path is absolute or leads out of the current folder.
        labels: Names of all labels.
        rows: JSON line of each file.
    """
    root = Path("/" if any(map(_leads_out, names)) else Path.cwd())
    tasks = (
        _describe_task(os.path.relpath(name, root), row)
        for name, row in zip(names, map(json.loads, rows), strict=True)
        if not row["error"]
    )
    yield from _write_list(tasks)
    yield "\n"


# Name -> function that takes files, labels and JSON lines and yields the document's text.
DOCUMENTS: dict[str, Callable[[Sequence[str], Sequence[str], Iterable[str]], Iterator[str]]] = {
    "coco": as_coco,
    "labelstudio": as_labelstudio,
}


def _leads_out(name: str) -> bool:
    path = Path(os.path.normpath(name))
    return path.is_absolute() or path.parts[:1] == ("..",)


def _describe_task(name: str, row: dict[str, Any]) -> dict[str, Any]:
    choices: dict[str, Any] = {
        "id": CONTROL,
        "type": "choices",
        "from_name": CONTROL,
        "to_name": OBJECT,
    }
    choices["value"] = {"choices": row["labels"]}
    prediction = {
        "model_version": "phototag",
        "score": min(max(score, 1 - score) for score in row["scores"].values()),
        "result": [choices] if row["labels"] else [],
    }
    path = quote(os.fsencode(Path(name).as_posix()))
    return {"data": {"image": f"/data/local-files/?d={path}"}, "predictions": [prediction]}


def _photo_size(name: str) -> tuple[int, int] | None:
    """Return width and height after EXIF rotation, in pixels, or None for an unreadable photo."""
    try:
        with Image.open(name, formats=FORMATS) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112) in QUARTER_TURNS
    except Exception:  # decoders raise many types of errors for damaged files
        return None
    return (height, width) if turned else (width, height)


def _write_list(values: Iterable[Any]) -> Iterator[str]:
    """Yield a JSON list with one element per line."""
    separator = "["
    for value in values:
        yield separator + "\n" + json.dumps(value, ensure_ascii=False)
        separator = ","
    yield "[]" if separator == "[" else "\n]"
