"""Import of Label Studio's JSON export (https://labelstud.io/guide/task_format)."""

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
from phototag.importers.photo_files import PhotoList, choose_images_folder
from phototag.importers.source import Id, Source, SourceDataset, SourcePhoto, check_label

_UPLOAD = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio adds a prefix to the names of uploads


@dataclass(slots=True)
class _Result:
    type: str = ""
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
    """Return whether a source is a JSON list with the keys of a Label Studio export."""
    return source.is_json("[", ("data", "annotations"))


def read(source: Source) -> SourceDataset:
    """Read the photos and labels of an export.

    A photo has the labels that were chosen for the photo or for one of its regions. If some
    annotations of a task are marked as ground truth, the others are ignored. If the annotations
    disagree on a label, it is unknown. If no annotation is completed, all labels are unknown.

    Raises:
        InputError: A field is missing or invalid, or a photo is missing or listed twice.
    """
    tasks = source.parse_json(TypeAdapter(list[_Task]))
    locations = [f"{source.path}: [{row}] (task {task.id})" for row, task in enumerate(tasks)]
    names = [
        _list_names(_find_address(task.data, location))
        for task, location in zip(tasks, locations, strict=True)
    ]
    folder = choose_images_folder(source.path, names[0] if names else [], source.options.images)
    listed, completed = PhotoList(folder), 0
    for row, task in enumerate(tqdm(tasks, "read", disable=None)):
        name = listed.find(folder, names[row], locations[row])
        given = _read_annotations(task, locations[row])
        agreed = frozenset.intersection(*given) if given else frozenset()
        unknown = frozenset.union(*given) - agreed if given else None
        listed.add(SourcePhoto(name, folder, agreed, unknown, str(task.id)), locations[row])
        completed += bool(given)
    description = f"Label Studio export: {len(tasks)} tasks, {completed} completed"
    photos, notes = listed.finish()
    return SourceDataset(description, photos, [], notes)


def _read_annotations(task: _Task, location: str) -> list[frozenset[str]]:
    """Return the labels of each ground truth annotation (default: each completed annotation)."""
    completed = [one for one in task.annotations if not one.was_cancelled]
    ground_truth = [one for one in completed if one.ground_truth]
    found = []
    for annotation in ground_truth or completed:
        labels: set[str] = set()
        for result in annotation.result:
            # The type of a region's result is, for example, rectanglelabels or polygonlabels.
            if result.type != "choices" and not result.type.endswith("labels"):
                continue
            chosen = result.value.get(result.type)
            if not isinstance(chosen, list) or not all(isinstance(one, str) for one in chosen):
                raise InputError(
                    f"{location}: {result.type} should be a list of labels, not "
                    f"{short_repr(chosen)}"
                )
            labels.update(check_label(label, location) for label in chosen)
        found.append(frozenset(labels))
    return found


def _find_address(data: dict[str, Any], location: str) -> str:
    """Return the path or URL of a task's photo, found in the data of the task."""
    texts = [value for value in data.values() if isinstance(value, str) and value]
    suffixes = [PurePosixPath(_extract_path(text)).suffix.lower() for text in texts]
    photos = [t for t, suffix in zip(texts, suffixes, strict=True) if suffix in PHOTO_EXTENSIONS]
    found = photos or texts
    if len(found) != 1:
        raise InputError(f"{location}: data contains {len(found)} photos, should contain 1")
    return found[0]


def _extract_path(address: str) -> str:
    """Return the path of a photo; if the address is a URL, extract the path from the URL."""
    address = address.replace("\\", "/")
    url = urlsplit(address)
    if local := parse_qs(url.query).get("d"):  # /data/local-files/?d=PATH
        return local[0]
    is_url = len(url.scheme) > 1 or address.startswith("/data/")
    return unquote(url.path) if is_url else address


def _list_names(address: str) -> list[str]:
    """Return the possible names of a photo in the folder of photos, from long to short."""
    parts = [part for part in _extract_path(address).split("/") if part not in ("", "..")]
    names = ["/".join(parts[start:]) for start in range(len(parts))]
    if parts and (upload := _UPLOAD.fullmatch(parts[-1])):
        names.append(upload[1])
    return names
