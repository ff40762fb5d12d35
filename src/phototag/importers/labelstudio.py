"""Label Studio's JSON export (https://labelstud.io/guide/task_format)."""

import os
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from reprlib import repr as short_repr
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import TypeAdapter
from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.decoding.formats import PHOTO_EXTENSIONS
from phototag.importers.photo_files import choose_images_folder, find_photo, resolve_name
from phototag.importers.source import Id, Source, SourceDataset, SourcePhoto, check_label

_UPLOAD = re.compile(r"[0-9a-f]{8}-(.+)")  # the prefix that Label Studio adds to an uploaded file


@dataclass(slots=True)
class _Result:
    type: str = ""
    from_name: str = ""
    value: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Annotation:
    result: list[_Result]
    was_cancelled: bool | None = False
    ground_truth: bool | None = False


@dataclass(slots=True)
class _Task:
    id: Id
    data: dict[str, Any]
    annotations: list[_Annotation]


def recognize(source: Source) -> bool:
    """Return whether a source is a JSON list, as a Label Studio export is."""
    return source.is_json("[", ("data", "annotations"))


def read(source: Source) -> SourceDataset:
    """Read an export.

    A photo carries the labels chosen for the photo or for a region of it. If a task has several
    annotations, those marked as ground truth count; if none is, a label on which they differ is
    unknown. All labels of a task without a completed annotation are unknown.

    Raises:
        InputError: The structure is wrong, a task is listed twice, or a photo is missing.
    """
    tasks = source.parse_json(TypeAdapter(list[_Task]))
    skipped: set[str] = set()
    locations, addresses, given = [], [], []
    rows: dict[object, int] = {}
    for row, task in enumerate(tasks):
        location = f"{source.path}: [{row}] (task {task.id})"
        if (first := rows.setdefault(task.id, row)) != row:
            raise InputError(f"{location}: the task is already listed in [{first}]")
        locations.append(location)
        addresses.append(_find_address(task.data, location))
        given.append(_read_annotations(task, location, skipped))

    candidates = [_list_candidates(address) for address in addresses]
    some = [name for names in candidates[:20] for name in names]
    folder = choose_images_folder(source.path, some, source.options.images)
    photos, seen = [], dict[str, str]()
    for row, task in enumerate(tqdm(tasks, "read", disable=None)):
        paths = {name: resolve_name(folder, name) for name in candidates[row]}
        existing = [name for name, path in paths.items() if os.path.lexists(path)]
        if not existing:
            raise InputError(
                f"{locations[row]}: {addresses[row]} is not in {folder}: pass the folder of the "
                "photos with --images"
            )
        name = find_photo(folder, existing[0], locations[row], seen, folder)
        agreed = frozenset.intersection(*given[row]) if given[row] else frozenset()
        unknown = frozenset.union(*given[row]) - agreed if given[row] else None
        photos.append(SourcePhoto(name, folder, agreed, unknown, str(task.id)))
    notes = []
    if skipped:
        notes.append(f"skipped results that are not labels: {', '.join(sorted(skipped))}")
    completed = sum(bool(annotations) for annotations in given)
    description = f"Label Studio export: {len(tasks)} tasks, {completed} completed"
    return SourceDataset.collect(source.path, description, photos, notes)


def _read_annotations(task: _Task, location: str, skipped: set[str]) -> list[frozenset[str]]:
    """Return the labels of each annotation that counts; add the types of other results."""
    completed = [(n, one) for n, one in enumerate(task.annotations) if not one.was_cancelled]
    ground_truth = [(n, one) for n, one in completed if one.ground_truth]
    found = []
    for n, annotation in ground_truth or completed:
        labels: set[str] = set()
        for m, result in enumerate(annotation.result):
            # Regions have the types rectanglelabels, polygonlabels, brushlabels and the like.
            if result.type != "choices" and not result.type.endswith("labels"):
                skipped.add(result.type or "results without a type")
                continue
            key = f"{location}: annotations[{n}].result[{m}].value.{result.type}"
            chosen = result.value.get(result.type)
            if not isinstance(chosen, list) or not all(isinstance(one, str) for one in chosen):
                raise InputError(f"{key} should be a list of labels, not {short_repr(chosen)}")
            labels.update(check_label(label, key) for label in chosen)
        found.append(frozenset(labels))
    return found


def _find_address(data: dict[str, Any], location: str) -> str:
    """Return the address of the photo in the data of a task."""
    texts = [value for value in data.values() if isinstance(value, str) and value]
    suffixes = [PurePosixPath(_extract_path(text)).suffix.lower() for text in texts]
    photos = [t for t, suffix in zip(texts, suffixes, strict=True) if suffix in PHOTO_EXTENSIONS]
    found = photos or texts
    if len(found) != 1:
        raise InputError(f"{location}: number of photos in data is {len(found)}, should be 1")
    return found[0]


def _extract_path(address: str) -> str:
    """Return the path in the address of an upload, a local file, a bucket or a web page."""
    address = address.replace("\\", "/")
    url = urlsplit(address)
    if local := parse_qs(url.query).get("d"):  # /data/local-files/?d=PATH
        return local[0]
    is_url = len(url.scheme) > 1 or address.startswith("/data/")
    return unquote(url.path) if is_url else address


def _list_candidates(address: str) -> list[str]:
    """Return the names that a photo may have in the folder of photos, the longest first."""
    parts = [part for part in _extract_path(address).split("/") if part not in ("", "..")]
    names = ["/".join(parts[start:]) for start in range(len(parts))]
    if parts and (upload := _UPLOAD.fullmatch(parts[-1])):
        names.append(upload[1])
    return names
