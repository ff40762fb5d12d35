"""Sources of photos for `phototag import`, written as other tools write them.

A photo has the label of each bright channel, which a small network learns within seconds.
"""

import csv
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from PIL import Image
from pillow_heif import register_heif_opener
from pycocotools.coco import COCO

from phototag.dataset.targets import UNKNOWN
from tests.importers.imports import annotate, make_task, write
from tests.importers.sidecars import list_keywords

NUMBER = 48
LABELS = ("red", "green", "blue")
FOLDERS = ("rouge à lèvres", "зелёный", "blau & mehr")  # names of label folders

register_heif_opener()


@dataclass(frozen=True)
class Source:
    """A written source and the expected result of its import.

    Attributes:
        path: Path to import.
        kind: Name of the expected format.
        photos: Photo files, [num_photos].
        targets: Expected targets 1, 0 or `UNKNOWN`, int8 [num_photos, num_labels].
        labels: Labels of the channels red, green and blue.
        ids: Expected ids, if the source has any.
        groups: Expected groups, if the source has any.
        options: Options of `phototag import`.
    """

    path: Path
    kind: str
    photos: list[Path]
    targets: np.ndarray
    labels: Sequence[str] = LABELS
    ids: Sequence[object] = ()
    groups: Sequence[str] = ()
    options: Sequence[str] = ()


def make_photos(folder: Path, names: Sequence[str]) -> list[Path]:
    """Write different photos with every combination of bright channels, in the suffix's format."""
    photos = [folder / name for name in names]
    for number, (photo, bright) in enumerate(zip(photos, list_truth(), strict=True)):
        rng = np.random.default_rng([number, *photo.name.encode()])
        pixels = (rng.integers(0, 100, (6, 8, 3)) + 150 * (bright > 0)).astype(np.uint8)
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save(photo)
    return photos


def list_truth() -> np.ndarray:
    """Return 1 for each bright channel of each photo, int8 [num_photos, 3]."""
    return (np.arange(NUMBER)[:, None] >> np.arange(3) & 1).astype(np.int8)


def hide_entries() -> np.ndarray:
    """Return the true targets with a fifth unknown, and all of the first photo unknown."""
    hidden = np.random.default_rng(0).random((NUMBER, 3)) < 0.2
    hidden[0] = True
    return np.where(hidden, np.int8(UNKNOWN), list_truth())


def hide_photos() -> np.ndarray:
    """Return the true targets, with photos without a bright channel unknown."""
    truth = list_truth()
    return np.where(truth.any(axis=1, keepdims=True), truth, np.int8(UNKNOWN))


def name_photos(pattern: str = "{}.jpg") -> list[str]:
    return [pattern.format(number) for number in range(101, 101 + NUMBER)]


def name_labels(row: np.ndarray) -> list[str]:
    """Return the labels whose target is 1."""
    return [label for label, value in zip(LABELS, row, strict=True) if value == 1]


def write_rows(path: Path, rows: Sequence[Sequence[object]], **dialect: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, **dialect).writerows(rows)
    return path


def write_list(folder: Path) -> Source:
    """Write a CSV of labels from a spreadsheet, with two photos per photographer."""
    photos, targets = make_photos(folder, name_photos("im Urlaub/{}.png")), hide_photos()
    groups = [f"guest {number // 2}" for number in range(NUMBER)]
    rows = [
        (photo.relative_to(folder), ";".join(name_labels(row)) or "?", group)
        for photo, row, group in zip(photos, targets, groups, strict=True)
    ]
    path = write_rows(folder / "photos.csv", [("file", "label", "group"), *rows], delimiter=";")
    return Source(path, "list", photos, targets, groups=groups)


def write_tags(folder: Path, mark: str) -> Source:
    """Write a CSV of keywords with other columns; an empty cell means no label."""
    photos = make_photos(folder, name_photos("{}.webp"))
    rows = [
        (number, photo.name, "2024-05-01", mark.join(name_labels(row)))
        for number, (photo, row) in enumerate(zip(photos, list_truth(), strict=True), start=1)
    ]
    path = write_rows(folder / "export.csv", [("id", "filename", "taken", "keywords"), *rows])
    options = () if mark.strip() else ("--separator", mark)
    ids = [row[0] for row in rows]
    return Source(path, "list", photos, list_truth(), ids=ids, options=options)


def write_one_hot(folder: Path) -> Source:
    """Write a one-hot CSV with pandas: an index, floats, NaN as an empty cell, and some ?."""
    photos, targets = make_photos(folder / "images", name_photos()), hide_entries()
    table = pd.DataFrame(np.where(targets == UNKNOWN, np.nan, targets), columns=list(LABELS))
    table.insert(0, "image_path", [f"images/{photo.name}" for photo in photos])
    table["blue"] = table["blue"].astype(object).where(table["blue"].notna(), "?")
    table["nobody"] = 0
    table.to_csv(folder / "table.csv")
    return Source(folder / "table.csv", "one-hot", photos, targets)


def write_folders(folder: Path) -> Source:
    """Write one folder per label, with copies in several folders and photos outside of them."""
    kinds = [("heic", "avif", "JPG", "png")[number // 8 % 4] for number in range(NUMBER)]
    made = make_photos(folder, [f"IMG {n}.{kind}" for n, kind in enumerate(kinds)])
    photos, targets = [], hide_photos()
    for photo, row in zip(made, targets, strict=True):
        copies = [folder / name / photo.name for name, has in zip(FOLDERS, row, strict=True)
                  if has == 1]  # fmt: skip
        for copy in copies:
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(photo, copy)
        if copies:
            photo.unlink()
        photos.append(min(copies, default=photo))
    return Source(folder, "folders", photos, targets, FOLDERS)


def write_coco(folder: Path) -> Source:
    """Write COCO instances with boxes, polygons and a crowd."""
    photos = make_photos(folder / "val2017", name_photos("000000000{}.jpg"))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (photo, row) in enumerate(zip(photos, list_truth(), strict=True)):
        image: dict[str, Any] = {"id": int(photo.stem), "width": 64, "height": 48}
        image |= {"license": 1, "date_captured": "2013-11-14 17:02:52", "file_name": photo.name}
        images.append(image)
        for label in np.flatnonzero(row == 1):
            shape: dict[str, Any] = {"segmentation": [[8, 8, 40, 8, 40, 40]], "iscrowd": 0}
            if number == NUMBER - 1:
                shape = {"segmentation": {"counts": [0, 64 * 48], "size": [48, 64]}, "iscrowd": 1}
            box = {"image_id": image["id"], "category_id": 10 * (int(label) + 1), **shape}
            # Every second image has two annotations of the same category.
            annotations += [box | {"bbox": [8, 8, 32, 32], "area": 512.0}] * (1 + number % 2)
    instances = {
        "info": {"year": 2017, "version": "1.0", "description": "COCO 2017 Dataset"},
        "licenses": [{"id": 1, "name": "Attribution License", "url": ""}],
        "images": images,
        "annotations": [{"id": n, **one} for n, one in enumerate(annotations, start=1)],
        "categories": [
            {"id": 10 * n, "name": name, "supercategory": "colour"}
            for n, name in enumerate((*LABELS, "nobody"), start=1)
        ],
    }
    path = write(folder / "annotations/instances_val2017.json", instances)
    # The expected targets are what pycocotools reads.
    coco = COCO(str(path))
    ids = [image["id"] for image in images]
    read = np.array([[image in coco.catToImgs[10 * n] for n in (1, 2, 3)] for image in ids])
    return Source(path, "coco", photos, read.astype(np.int8), ids=ids)


def write_labelstudio(folder: Path) -> Source:
    """Write a Label Studio export of uploads and local files, with disagreeing annotations."""
    photos, targets = make_photos(folder, name_photos("träume {}.png")), hide_entries()
    tasks = []
    for number, (photo, row) in enumerate(zip(photos, targets, strict=True), start=7):
        image = f"/data/upload/3/8a1b2c{number:02}-{quote(photo.name)}"
        if number % 2:
            image = f"/data/local-files/?d={quote(f'photos/{photo.name}')}"
        choices = name_labels(row)
        given = [annotate(*choices)]
        if (row == UNKNOWN).all():
            given = [annotate(was_cancelled=True)]
        elif (row == UNKNOWN).any():
            doubted = [label for label, v in zip(LABELS, row, strict=True) if v == UNKNOWN]
            given.append(annotate(*choices, *doubted))
        tasks.append(make_task(number, image, *given))
    path = write(folder / "project-3-at-2026-01-09-21-52-49513742.json", tasks)
    ids = [task["id"] for task in tasks]
    return Source(path, "labelstudio", photos, targets, ids=ids)


def write_metadata(folder: Path, kind: str) -> Source:
    """Write an ImageFolder of two splits, each with a metadata file."""
    targets = hide_photos() if kind == "jsonl" else list_truth()
    names = [f"{'train' if n % 4 else 'test'}/{name}" for n, name in enumerate(name_photos())]
    photos = make_photos(folder, names)
    for split in ("train", "test"):
        rows = [
            (photo.name, name_labels(row), f"A photo; {photo.stem}", bool((row != UNKNOWN).all()))
            for photo, row in zip(photos, targets, strict=True)
            if photo.parent.name == split
        ]
        if kind == "csv":
            cells = [(file, ";".join(labels), text) for file, labels, text, _ in rows]
            write_rows(folder / split / "metadata.csv", [("file_name", "labels", "text"), *cells])
            continue
        lines = [
            {"file_name": file, "labels": labels if known else None, "text": text}
            for file, labels, text, known in rows
        ]
        write(folder / split / "metadata.jsonl", "".join(f"{json.dumps(one)}\n" for one in lines))
    return Source(folder, "imagefolder", photos, targets)


def write_course(folder: Path) -> Source:
    """Write the zip of the course, with photos and numbers in reverse order."""
    photos, targets = make_photos(folder / "images", name_photos("im{}.jpg")), list_truth()
    _write_numbers(folder / "annotations", photos, targets == 1)
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*"), reverse=True):
            archive.write(file, f"data/{file.relative_to(folder)}")
    return Source(path, "numbered", photos, targets)


def write_import(folder: Path) -> Source:
    """Write the result of an import, with unknown labels."""
    photos, targets = make_photos(folder / "images", name_photos("im{}.jpg")), hide_entries()
    _write_numbers(folder / "annotations", photos, targets == 1)
    _write_numbers(folder / "unknown", photos, targets == UNKNOWN)
    return Source(folder, "numbered", photos, targets)


def write_keywords(folder: Path) -> Source:
    """Write photos with keywords in sidecars of both names and in the photos themselves."""
    photos, targets = make_photos(folder, name_photos()), hide_photos()
    for number, (photo, row) in enumerate(zip(photos, targets, strict=True)):
        if keywords := name_labels(row):
            packet = list_keywords(*keywords)
            if number % 3 == 0:
                write(folder / f"{photo.name}.xmp", packet)
            elif number % 3 == 1:
                write(photo.with_suffix(".xmp"), packet)
            else:
                segment = b"http://ns.adobe.com/xap/1.0/\0" + packet.encode()
                size = (len(segment) + 2).to_bytes(2)
                data = photo.read_bytes()
                photo.write_bytes(data[:2] + b"\xff\xe1" + size + segment + data[2:])
    options = ["--missing", "absent-if-tagged"]
    return Source(folder, "keywords", photos, targets, options=options)


def _write_numbers(folder: Path, photos: Sequence[Path], chosen: np.ndarray) -> None:
    numbers = np.array([photo.stem.removeprefix("im") for photo in photos])
    for label, column in zip(LABELS, chosen.T, strict=True):
        write(folder / f"{label}.txt", "".join(f"{n}\n" for n in numbers[column][::-1]))


WRITERS: dict[str, Callable[[Path], Source]] = {
    "list": write_list,
    "tags": partial(write_tags, mark=", "),
    "tags-spaces": partial(write_tags, mark=" "),
    "one-hot": write_one_hot,
    "folders": write_folders,
    "coco": write_coco,
    "labelstudio": write_labelstudio,
    "imagefolder-csv": partial(write_metadata, kind="csv"),
    "imagefolder-jsonl": partial(write_metadata, kind="jsonl"),
    "course": write_course,
    "import": write_import,
    "keywords": write_keywords,
}
