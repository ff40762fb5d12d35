"""Predictions as one JSON document for tools of labelling, made of JSON lines at the end."""

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

# For Label Studio: <Choices name="labels" toName="image" choice="multiple">
CONTROL, OBJECT = "labels", "image"
LYING = (5, 6, 7, 8)  # EXIF orientations of a photo that is turned by a quarter


def as_coco(names: Sequence[str], labels: Sequence[str], rows: Iterable[str]) -> Iterator[str]:
    """COCO's instances: each label of a photo is an annotation of the whole photo, with its score.

    Files that cannot be read are left out.

    Args:
        names: The files, relative to where one is.
        labels: The categories, which are numbered from 1.
        rows: Each photo's JSON line.
    """
    measured = tqdm(names, "measure", disable=None)
    sizes = {name: size for name in measured if (size := _measure(name))}
    numbers = {name: number for number, name in enumerate(sizes, start=1)}
    categories = ({"id": n, "name": label} for n, label in enumerate(labels, start=1))

    def box_labels() -> Iterator[dict[str, Any]]:
        for name, row in zip(names, map(json.loads, rows), strict=True):
            if row["error"]:
                sizes.pop(name, None)  # its header could be read
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

    annotations = ({"id": number, **box} for number, box in enumerate(box_labels(), start=1))
    # The images last: by then it is known which could be read.
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
    """Label Studio's tasks with pre-annotations (https://labelstud.io/guide/predictions).

    A task's score is how sure the model is of the label of which it is least sure, 0.5..1. Files
    that cannot be read are left out.

    Args:
        names: The files. What Label Studio calls LOCAL_FILES_DOCUMENT_ROOT, out of which it serves
            nothing, is the current folder; or `/`, where a name is absolute or leads out of that.
        labels: All of them.
        rows: Each photo's JSON line.
    """
    root = Path("/" if any(map(_leads_out, names)) else Path.cwd())
    tasks = (
        _describe_task(os.path.relpath(name, root), row)
        for name, row in zip(names, map(json.loads, rows), strict=True)
        if not row["error"]
    )
    yield from _write_list(tasks)
    yield "\n"


# Of photos, labels and each photo's JSON line.
DOCUMENTS: dict[str, Callable[[Sequence[str], Sequence[str], Iterable[str]], Iterator[str]]] = {
    "coco": as_coco,
    "labelstudio": as_labelstudio,
}


def _leads_out(name: str) -> bool:
    path = Path(os.path.normpath(name))
    return path.is_absolute() or path.parts[:1] == ("..",)


def _describe_task(name: str, row: dict[str, Any]) -> dict[str, Any]:
    result = {
        "id": CONTROL,
        "type": "choices",
        "from_name": CONTROL,
        "to_name": OBJECT,
        "value": {"choices": row["labels"]},
    }
    prediction = {
        "model_version": "phototag",
        "score": min(max(score, 1 - score) for score in row["scores"].values()),
        "result": [result] if row["labels"] else [],
    }
    path = quote(os.fsencode(Path(name).as_posix()))
    return {"data": {"image": f"/data/local-files/?d={path}"}, "predictions": [prediction]}


def _measure(name: str) -> tuple[int, int] | None:
    """Return a photo's width and height as one sees it, or None for no photo."""
    try:
        with Image.open(name, formats=FORMATS) as image:
            width, height = image.size
            lying = image.getexif().get(0x0112) in LYING
    except Exception:  # decoders of hostile files raise anything at all
        return None
    return (height, width) if lying else (width, height)


def _write_list(values: Iterable[Any]) -> Iterator[str]:
    """Write a JSON list, an element a line."""
    separator = "["
    for value in values:
        yield separator + "\n" + json.dumps(value, ensure_ascii=False)
        separator = ","
    yield "[]" if separator == "[" else "\n]"
