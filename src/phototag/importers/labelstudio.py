"""Import of Label Studio's JSON export (https://labelstud.io/guide/task_format)."""

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from reprlib import repr as short_repr
from typing import Any

from pydantic import TypeAdapter

from phototag.base.errors import InputError
from phototag.decoding.formats import PHOTO_EXTENSIONS
from phototag.importers.photo_files import find_photos, list_names
from phototag.importers.source import Id, Source, SourceDataset, SourcePhoto
from phototag.verification.labels import check_label

# Label Studio adds a prefix to the names of uploads, and a suffix if the name already exists.
_PREFIX = re.compile(r"^(?:\d+-)?[0-9a-f]{8}-(?=.)")
_ORIGINAL = re.compile("name|original", re.IGNORECASE)
_SUFFIX = re.compile(r"_(?=[a-zA-Z]*[0-9A-Z])[a-zA-Z0-9]{7}(?=\.\w+$|$)")


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
    data: dict[str, Any]
    id: Id | None = None
    annotations: list[_Annotation] | None = None


def recognize(source: Source) -> bool:
    """Return whether a source is a JSON list with the keys of a Label Studio export."""
    return any(source.is_json("[", ("data", key)) for key in ("annotations", "predictions"))


def read(source: Source) -> SourceDataset:
    """Read the photos and labels of an export.

    A photo has the labels that were chosen for the photo or for one of its regions. If some
    annotations of a photo are marked as ground truth, the others are ignored. If the annotations
    disagree on a label, it is unknown. If no annotation is completed, all labels are unknown;
    predictions are ignored.

    Raises:
        InputError: A field is missing or invalid, or a photo is missing.
    """
    tasks = source.parse_json(TypeAdapter(list[_Task]))
    photos, names, completed = [], [], 0
    for row, task in enumerate(tasks):
        id_ = "" if task.id is None else str(task.id)
        place = f"{source.path}: [{row}]" + (f" (task {id_})" if id_ else "")
        names.append(_list_names(task.data, place))
        given = _read_annotations(task, place)
        agreed = frozenset.intersection(*given) if given else frozenset()
        unknown = frozenset.union(*given) - agreed if given else None
        photos.append(SourcePhoto("", None, agreed, unknown, id_, place=place))
        completed += bool(given)
    description = f"Label Studio export: {len(tasks)} tasks, {completed} completed"
    return SourceDataset(description, find_photos(source, photos, names), [], [])


def _read_annotations(task: _Task, location: str) -> list[frozenset[str]]:
    """Return the labels of each ground truth annotation (default: each completed annotation)."""
    completed = [one for one in task.annotations or () if not one.was_cancelled]
    ground_truth = [one for one in completed if one.ground_truth]
    found = []
    for annotation in ground_truth or completed:
        labels: set[str] = set()
        for result in annotation.result:
            # The type of a region's result is, for example, rectanglelabels or polygonlabels.
            if result.type not in ("choices", "taxonomy") and not result.type.endswith("labels"):
                continue
            chosen: Any = result.value.get(result.type)
            items = chosen if isinstance(chosen, list) else [chosen]
            # A choice in a taxonomy is a path, and all names on the path are labels.
            parts = [part for one in items for part in (one if isinstance(one, list) else [one])]
            if items is not chosen or not all(isinstance(part, str) for part in parts):
                raise InputError(
                    f"{location}: {result.type} should be a list of labels, not "
                    f"{short_repr(chosen)}"
                )
            labels.update(check_label(part, location) for part in parts)
        found.append(frozenset(labels))
    return found


def _list_names(data: dict[str, Any], location: str) -> list[str]:
    """Return the possible names of a task's photo in the folder of photos."""
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value}
    if any(text.startswith("data:") for text in texts.values()):
        raise InputError(f"{location}: data contains a photo as a data URL: write it to a file")
    photos = {
        key: text
        for key, text in texts.items()
        if any(PurePosixPath(p).suffix.lower() in PHOTO_EXTENSIONS for p in list_names(text))
    }
    photos = photos or texts
    # In addition to the address, a task may contain the file name before the upload.
    addresses = {text for key, text in photos.items() if not _ORIGINAL.search(key)}
    addresses = addresses or set(photos.values())
    if len(addresses) != 1:
        raise InputError(f"{location}: data contains {len(addresses)} photos, should contain 1")
    (address,) = addresses
    names = [name for text in (address, *photos.values()) for name in list_names(text)]
    names += [_PREFIX.sub("", name) for name in names if "/" not in name]
    if "upload/" in address:
        names += [_SUFFIX.sub("", name) for name in names]
    return list(dict.fromkeys(names))
