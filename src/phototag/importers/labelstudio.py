"""Label Studio's JSON export: tasks with the choices that people made."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import TypeAdapter
from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.decoding.formats import PHOTO_EXTENSIONS
from phototag.importers.collection import (
    EVERY,
    NONE,
    Collection,
    Entry,
    Id,
    Place,
    check_label,
    choose_images,
    collect,
    confine,
    count,
    find_photo,
    locate,
    parse_json,
    shorten,
    shorten_text,
)

_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")  # what Label Studio puts before an uploaded file's name


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


_SHAPE = TypeAdapter(list[_Task])


def read_labelstudio(source: Path, text: str, images: Path | None) -> Collection:
    """Read an export (https://labelstud.io/guide/task_format).

    A photo carries what is chosen for it, as a whole or for a region. Of several annotations of
    one task the ground truth counts, where there is one; else a label that some gave and others
    did not is unknown. So are all labels of a task without a completed annotation.

    Args:
        source: The file.
        text: What it holds.
        images: The folder of the photos; None for one beside the file.

    Raises:
        InputError: It is no such file, a task stands twice, or a photo is missing.
    """
    tasks = parse_json(_SHAPE, text, str(source))
    seen_ids: dict[object, int] = {}
    answers: list[list[frozenset[str]]] = []
    controls: set[str] = set()
    others: set[str] = set()
    values: list[str] = []
    for index, task in enumerate(tasks):
        place = Place(str(source), f"[{index}] (task {task.id})")
        if (first := seen_ids.setdefault(task.id, index)) != index:
            raise InputError(f"{place}: this task stands in [{first}] already")
        values.append(_find_value(task.data, place))
        answers.append(_read_answers(task, place, controls, others))

    candidates = [_name_candidates(value) for value in values]
    folder = choose_images(source, [name for some in candidates[:20] for name in some], images)
    entries, seen = [], dict[str, Place]()
    progress = tqdm(tasks, "read", disable=None)
    for task, value, names, given in zip(progress, values, candidates, answers, strict=True):
        place = Place(str(source), f"[{seen_ids[task.id]}] (task {task.id})")
        name = next((name for name in names if _is_file(folder, name)), None)
        if name is None:
            raise InputError(
                f"{place}: {value} is not in {folder}: name the folder of the photos with --images"
            )
        file = confine(find_photo(folder, name, place, seen), folder, place)
        agreed = frozenset.intersection(*given) if given else NONE
        unknown = frozenset.union(*given) - agreed if given else EVERY
        entries.append(Entry(file, folder, agreed, unknown, str(task.id)))

    notes = []
    if len(controls) > 1:
        notes.append(f"labels of several controls were joined: {shorten(sorted(controls))}")
    if others:
        notes.append(f"results that are no labels were passed over: {shorten(sorted(others))}")
    done = sum(bool(given) for given in answers)
    what = f"Label Studio export: {count(len(tasks), 'task')}, {done} of them completed"
    return collect(source, what, entries, notes)


def _read_answers(
    task: _Task, place: Place, controls: set[str], others: set[str]
) -> list[frozenset[str]]:
    """Return the labels of each annotation that counts, and note controls and other results."""
    completed = [(n, one) for n, one in enumerate(task.annotations) if not one.was_cancelled]
    truths = [(n, one) for n, one in completed if one.ground_truth]
    answers = []
    for n, annotation in truths or completed:
        labels: set[str] = set()
        for m, result in enumerate(annotation.result):
            # choices, and the labels of regions: rectanglelabels, polygonlabels, brushlabels ...
            if result.type != "choices" and not result.type.endswith("labels"):
                others.add(result.type or "results without a type")
                continue
            key = f"annotations[{n}].result[{m}].value.{result.type}"
            chosen = result.value.get(result.type)
            if not isinstance(chosen, list) or not all(isinstance(one, str) for one in chosen):
                shown = shorten_text(repr(chosen))
                raise InputError(f"{place}: {key} should be a list of labels, not {shown}")
            controls.add(result.from_name)
            labels.update(check_label(one, f"{place}: {key}") for one in chosen)
        answers.append(frozenset(labels))
    return answers


def _find_value(data: dict[str, Any], place: Place) -> str:
    """Return what names the photo."""
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value}
    photos = [
        key for key, value in texts.items()
        if PurePosixPath(_read_path(value)).suffix.lower() in PHOTO_EXTENSIONS
    ]  # fmt: skip
    found = photos or list(texts)
    if len(found) != 1:
        keys = f"photos under {shorten(found)}" if found else "no photo"
        raise InputError(f"{place}: data holds {keys}; a task must hold one")
    return texts[found[0]]


def _read_path(value: str) -> str:
    """Return the path in a task's address: of an upload, a local file, a bucket, the web."""
    address = urlsplit(value.replace("\\", "/"))
    if local := parse_qs(address.query).get("d"):  # /data/local-files/?d=PATH
        return local[0]
    is_address = len(address.scheme) > 1 or value.startswith("/data/")
    return unquote(address.path) if is_address else value.replace("\\", "/")


def _name_candidates(value: str) -> Sequence[str]:
    """Return what the photo may be called in the user's folder, the longest first."""
    parts = [part for part in _read_path(value).split("/") if part not in ("", "..")]
    names = ["/".join(parts[start:]) for start in range(len(parts))]
    if parts and (uploaded := _UPLOADED.fullmatch(parts[-1])):
        names.append(uploaded[1])
    return names


def _is_file(folder: Path, name: str) -> bool:
    return os.path.isfile(locate(folder, name))  # noqa: PTH113
