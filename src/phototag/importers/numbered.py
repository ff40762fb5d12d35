"""Import of numbered photos (images/imN.jpg) and label files (annotations/CLASS.txt).

A label file lists the numbers N of the photos with this label. The course dataset has this layout,
and `phototag import` writes it, together with sources.csv.
"""

from collections import Counter

from phototag.base.errors import InputError
from phototag.dataset.manifest import check_labels
from phototag.dataset.targets import UNKNOWN
from phototag.importers.source import Source, SourceDataset, SourcePhoto
from phototag.verification.labels import find_invalid_names, image_number, read_labels
from phototag.verification.layout import find_layout
from phototag.verification.listing import read_sources


def recognize(source: Source) -> bool:
    """Return whether a source has numbered photos in images/ and label files in annotations/."""
    if source.names is None:
        return False
    try:
        layout = find_layout(source.path)
    except InputError:
        return False
    has_label_files = any(name.lower().endswith(".txt") for name in layout.annotations)
    return has_label_files and any(image_number(name) is not None for name in layout.images)


def read(source: Source) -> SourceDataset:
    """Read numbered photos and their label files.

    Raises:
        InputError: Two photos have the same number, or a line in a label file is not a number.
    """
    layout = find_layout(source.path)
    photos = [name for name in layout.images if image_number(name) is not None]
    photos.sort(key=lambda name: image_number(name) or 0)
    for name, reason in find_invalid_names(photos).items():
        raise InputError(f"{source.path / name}: {reason}; remove one of them")
    labels = read_labels(source.path, layout.annotations, photos, unknown=layout.unknown)
    check_labels(labels.targets)
    notes = []
    if others := sorted(set(layout.images) - set(photos)):
        notes.append(f"skipped files not named imN.jpg: {len(others)}, such as {others[0]!r}")
    for problem in labels.problems:
        if problem.kind == "not an image number":
            place = source.path / problem.place
            raise InputError(f"{place}: {problem.text}; fix the line or remove the file")
    counts = Counter(problem.kind for problem in labels.problems)
    notes += [f"problems in label files: {kind}: {count}" for kind, count in counts.items()]
    dataset = []
    sources = read_sources(source.path, layout.sources)
    for row, name in enumerate(photos):
        cells = sources.get(image_number(name), {})
        values = {label: column[row] for label, column in labels.targets.items()}
        carried = frozenset(label for label, value in values.items() if value == 1)
        unknown = frozenset(label for label, value in values.items() if value == UNKNOWN)
        origin, id_, group = (cells.get(column, "") for column in ("source", "id", "group"))
        number = image_number(name)
        photo = SourcePhoto(name, source.path, carried, unknown, id_, group, number, origin=origin)
        dataset.append(photo)
    description = f"numbered photos: {len(photos)}, label files: {len(labels.targets)}"
    return SourceDataset(description, dataset, sorted(labels.targets), notes)
