"""COCO's instances: an image carries each category of which it has an annotation."""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter
from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.importers.collection import (
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
    parse_json,
)


@dataclass(slots=True)
class _Image:
    id: Id
    file_name: str = ""
    coco_url: str = ""  # LVIS names no file
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


_SHAPE = TypeAdapter(_Instances)


def read_coco(source: Path, text: str, images: Path | None) -> Collection:
    """Read an instances file (https://cocodataset.org/#format-data).

    What is not annotated is absent. In LVIS, which says of each image which categories were looked
    for in vain (`neg_category_ids`), all others are unknown.

    Args:
        source: The file.
        text: What it holds.
        images: The folder of the photos; None for one beside the file.

    Raises:
        InputError: It is no such file, an id is unknown or stands twice, or a photo is missing.
    """
    found = parse_json(_SHAPE, text, str(source))
    labels = _name_categories(found.categories, str(source))
    names = [image.file_name or image.coco_url.rpartition("/")[2] for image in found.images]
    rows: dict[object, int] = {}
    for row, image in enumerate(found.images):
        if (first := rows.setdefault(image.id, row)) != row:
            place = Place(str(source), f"images[{row}]")
            raise InputError(f"{place}: the id {image.id!r} stands in images[{first}] already")
    carried: list[set[str]] = [set() for _ in names]
    for index, annotation in enumerate(found.annotations):
        row, label = rows.get(annotation.image_id, -1), labels.get(annotation.category_id)
        if row < 0 or label is None:
            place = Place(str(source), f"annotations[{index}]")
            what = "image" if row < 0 else "category"
            wrong = annotation.image_id if row < 0 else annotation.category_id
            raise InputError(f"{place}: no {what} has the id {wrong!r}; add it, or take this out")
        carried[row].add(label)

    folder = choose_images(source, names[:20], images) if names else source.parent
    every = frozenset(labels.values())
    entries, seen = [], dict[str, Place]()
    for row, name in enumerate(tqdm(names, "read", disable=None)):
        image = found.images[row]
        place = Place(str(source), f"images[{row}]")
        path = find_photo(folder, name, place, seen)
        unknown = NONE
        if image.neg_category_ids is not None:
            absent = {labels.get(category, "") for category in image.neg_category_ids}
            unknown = every - carried[row] - absent
        file = confine(path, folder, place)
        entries.append(Entry(file, folder, frozenset(carried[row]), unknown, str(image.id)))
    what = (
        f"COCO instances: {count(len(names), 'image')}, "
        f"{count(len(found.annotations), 'annotation')}, "
        f"{count(len(labels), 'category', 'categories')}"
    )
    return collect(source, what, entries, [], every)


def _name_categories(categories: list[_Category], file: str) -> dict[object, str]:
    """Return id -> label."""
    labels: dict[object, str] = {}
    first: dict[object, int] = {}
    for index, category in enumerate(categories):
        place = Place(file, f"categories[{index}]")
        label = check_label(category.name, place)
        for what, value in (("id", category.id), ("name", (label,))):
            if (other := first.setdefault(value, index)) != index:
                shown = category.id if what == "id" else label
                raise InputError(
                    f"{place}: the {what} {shown!r} stands in categories[{other}] already"
                )
        labels[category.id] = label
    return labels
