"""COCO instances (https://cocodataset.org/#format-data), and LVIS.

An image carries each category of which it has an annotation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter
from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.importers.photo_files import choose_images_folder, find_photo
from phototag.importers.source import Id, Source, SourceDataset, SourcePhoto, check_label


@dataclass(slots=True)
class _Image:
    id: Id
    file_name: str = ""
    coco_url: str = ""  # LVIS has no file_name
    neg_category_ids: list[Id] | None = None


@dataclass(slots=True)
class _Category:
    id: Id
    name: str


@dataclass(slots=True)
class _Annotation:
    image_id: Id
    category_id: Id


@dataclass(slots=True)
class _Instances:
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation] = field(default_factory=list)


def recognize(source: Source) -> bool:
    """Return whether a source is a JSON object, as COCO instances are."""
    return source.is_json("{", ("images", "categories"))


def read(source: Source) -> SourceDataset:
    """Read an instances file.

    A category without an annotation is absent. In LVIS, whose images have `neg_category_ids`,
    only those categories are absent, and all others without an annotation are unknown.

    Raises:
        InputError: The structure is wrong, an id is unknown or used twice, or a photo is missing.
    """
    instances = source.parse_json(TypeAdapter(_Instances))
    images, categories, annotations = instances.images, instances.categories, instances.annotations
    rows = _index([image.id for image in images], f"{source.path}: images", "id")
    place = f"{source.path}: categories"
    _index([category.id for category in categories], place, "id")
    names = [
        check_label(category.name, f"{place}[{index}]") for index, category in enumerate(categories)
    ]
    _index(names, place, "name")
    labels = {category.id: name for category, name in zip(categories, names, strict=True)}
    carried: list[set[str]] = [set() for _ in images]
    for index, annotation in enumerate(annotations):
        for kind, known, id_ in (
            ("image", rows, annotation.image_id),
            ("category", labels, annotation.category_id),
        ):
            if id_ not in known:
                raise InputError(
                    f"{source.path}: annotations[{index}]: no {kind} has the id {id_!r}; add the "
                    f"{kind} or remove the annotation"
                )
        carried[rows[annotation.image_id]].add(labels[annotation.category_id])

    files = [image.file_name or image.coco_url.rpartition("/")[2] for image in images]
    folder = choose_images_folder(source.path, files[:20], source.options.images)
    photos, seen = [], dict[str, str]()
    for row, image in enumerate(tqdm(images, "read", disable=None)):
        location = f"{source.path}: images[{row}]"
        name = find_photo(folder, files[row], location, seen, folder)
        unknown: frozenset[str] = frozenset()
        if image.neg_category_ids is not None:
            absent = {labels.get(category, "") for category in image.neg_category_ids}
            unknown = frozenset(names) - carried[row] - absent
        photos.append(SourcePhoto(name, folder, frozenset(carried[row]), unknown, str(image.id)))
    description = (
        f"COCO instances: {len(images)} images, {len(annotations)} annotations, "
        f"{len(categories)} categories"
    )
    return SourceDataset.collect(source.path, description, photos, offered=names)


def _index(values: Sequence[Any], place: str, kind: str) -> dict[Any, int]:
    """Return the position of each value.

    Raises:
        InputError: A value is used twice.
    """
    positions: dict[Any, int] = {}
    for position, value in enumerate(values):
        if (first := positions.setdefault(value, position)) != position:
            raise InputError(f"{place}[{position}]: {kind} {value!r} is already used in [{first}]")
    return positions
