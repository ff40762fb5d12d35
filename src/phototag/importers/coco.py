"""Import of COCO instances files (https://cocodataset.org/#format-data).

The labels of an image are the categories of its annotations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from phototag.base.errors import InputError
from phototag.importers.photo_files import find_photos, list_names
from phototag.importers.source import Id, Source, SourceDataset, SourcePhoto
from phototag.verification.labels import check_label, normalize


@dataclass(slots=True)
class _Image:
    id: Id
    file_name: str


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
    """Return whether a source is a JSON object with the keys of a COCO instances file."""
    return source.is_json("{", ("images", "categories"))


def read(source: Source) -> SourceDataset:
    """Read the photos and labels of a COCO instances file.

    Raises:
        InputError: A field is invalid, an id is unknown or used twice, or a photo is missing.
    """
    instances = source.parse_json(TypeAdapter(_Instances))
    images, categories = instances.images, instances.categories
    _check_ids(images, f"{source.path}: images")
    _check_ids(categories, f"{source.path}: categories")
    used = {annotation.category_id for annotation in instances.annotations}
    labels = {
        category.id: check_label(category.name, f"{source.path}: categories[{index}]")
        for index, category in enumerate(categories)
        if category.id in used  # names of unused categories may be invalid
    }
    carried: dict[Id, set[str]] = {image.id: set() for image in images}
    for index, annotation in enumerate(instances.annotations):
        try:
            carried[annotation.image_id].add(labels[annotation.category_id])
        except KeyError as error:
            raise InputError(
                f"{source.path}: annotations[{index}]: no image or category has the id {error}: "
                "add it, or remove the annotation"
            ) from None
    names = [list_names(image.file_name) for image in images]
    photos = []
    for row, image in enumerate(images):
        place = f"{source.path}: images[{row}]"
        chosen = frozenset(carried[image.id])
        photos.append(SourcePhoto(image.file_name, None, chosen, id=str(image.id), place=place))
    description = (
        f"COCO instances: {len(images)} images, {len(instances.annotations)} annotations, "
        f"{len(categories)} categories"
    )
    defined = [normalize(category.name).strip() for category in categories]
    return SourceDataset(description, find_photos(source, photos, names), defined, [])


def _check_ids(records: Sequence[_Image | _Category], place: str) -> None:
    """Check that records with the same id are equal."""
    positions: dict[Id, int] = {}
    for position, record in enumerate(records):
        first = positions.setdefault(record.id, position)
        if record != records[first]:
            raise InputError(f"{place}[{position}]: id {record.id!r} is already used in [{first}]")
