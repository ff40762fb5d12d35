"""The report's own layouts: photos called imN.jpg, and label files of their numbers."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from phototag.base.errors import InputError
from phototag.dataset.manifest import check_labels
from phototag.decoding.sources import list_files
from phototag.decoding.system_files import split_system_files
from phototag.importers.collection import Collection, Entry, count, read_source_file
from phototag.verification.labels import (
    image_number,
    is_about_photo,
    normalize,
    parse_annotation,
    refuse_names,
)
from phototag.verification.listing import decode_text

STRICT = "_r1"  # MIRFLICKR's suffix of label files that hold only clear cases


def read_numbered(
    source: Path, names: Sequence[str], annotations: Path, potential: bool
) -> Collection:
    """Read the course's data or MIRFLICKR-25000.

    Args:
        source: A folder or zip.
        names: The files in it.
        annotations: The folder or zip with the label files, which may be the same.
        potential: Take MIRFLICKR's CLASS.txt also where there is a CLASS_r1.txt.

    Raises:
        InputError: Two photos have one number, there is no label file, or a line of one is wrong.
    """
    names = [name for name in names if not _is_text(name)]
    photos = [name for name in names if image_number(name) is not None]
    notes = []
    if others := sorted(set(names) - set(photos)):
        why = f"not named imN.jpg, with a number N (such as {others[0]!r})"
        notes.append(_pass_over(len(others), why))
    photos.sort(key=lambda name: image_number(name) or 0)
    for name, reason in refuse_names(photos).items():
        raise InputError(f"{source / name}: {reason}; remove one of them")
    present = {image_number(name): name for name in photos}
    carried: dict[str, set[str]] = {name: set() for name in photos}
    unknown: dict[str, set[str]] = {name: set() for name in photos}
    files, not_known = _choose_label_files(annotations, potential, notes)
    check_labels(sorted(files))
    for sets, chosen in ((carried, files), (unknown, not_known)):
        for label, name in sorted(chosen.items()):
            numbers = _read_numbers(annotations, name)
            for number in numbers:
                if number in present:
                    sets[present[number]].add(label)
            if missing := sum(number not in present for number in numbers):
                notes.append(f"{name}: {missing} of {len(numbers)} images are not in {source}")
    entries = [
        Entry(
            name,
            source,
            frozenset(carried[name]),
            frozenset(unknown[name]),
            number=image_number(name),
        )
        for name in photos
    ]
    what = f"numbered photos: {len(photos)}, and {count(len(files), 'label file')}"
    return Collection(what, entries, sorted(files), notes)


def has_label_files(source: Path, names: Sequence[str]) -> bool:
    """Tell whether a source holds label files, for its own photos or others."""
    texts = [name for name in names if _is_text(name) and not is_about_photo(name)]
    return any(_is_label_file(source, name) for name in texts)


def _is_label_file(source: Path, name: str) -> bool:
    # An empty file is a label without photos; prose is some README.
    words = _read_text(source, name).split(maxsplit=1)
    return all(word.isascii() and word.isdigit() for word in words[:1])


def _choose_label_files(
    source: Path, potential: bool, notes: list[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Find the label files and note what was left aside; label -> file, also of what is unknown."""
    texts = [name for name in split_system_files(list_files(source))[0] if _is_text(name)]
    placed = [name for name in texts if _split_path(name)[-2:-1] == ["annotations"]]
    # As `phototag import` writes it.
    beside = [name for name in texts if placed and _split_path(name)[-2:-1] == ["unknown"]]
    if placed and len(texts) > len(placed) + len(beside):
        number = len(texts) - len(placed) - len(beside)
        notes.append(_pass_over(number, "texts outside annotations/"))
    plain = [name for name in placed or texts if not is_about_photo(name)]
    if about := len(placed or texts) - len(plain):
        notes.append(_pass_over(about, "texts about single photos"))
    found: dict[str, str] = {}
    prose: list[str] = []
    for name in plain:
        if _is_label_file(source, name):
            stem = normalize(PurePosixPath(name).stem)
            if stem in found:
                raise InputError(f"{found[stem]} and {name} are label files of one name")
            found[stem] = name
        else:
            prose.append(name)
    notes += [f"{name} was passed over: its first word is no image number" for name in prose[:5]]
    if len(prose) > 5:
        notes.append(_pass_over(len(prose) - 5, "texts of the same kind"))
    if not found:
        raise InputError(
            f"{source} holds no label file (CLASS.txt); name their place: --annotations"
        )
    unknown = {normalize(PurePosixPath(name).stem): name for name in beside}
    if strangers := sorted(unknown.keys() - found.keys()):
        raise InputError(
            f"{source / unknown[strangers[0]]}: annotations/ has no file of this name; add it"
        )
    strict = {stem for stem in found if stem.endswith(STRICT)}
    if not strict:
        return found, unknown
    if potential:
        return {stem: name for stem, name in found.items() if stem not in strict}, unknown
    left = sorted(found.keys() - strict)
    notes.append(
        f"took the {len(strict)} strict label files ({STRICT}) and left out {', '.join(left)}; "
        "--potential takes those instead"
    )
    return {stem.removesuffix(STRICT): found[stem] for stem in strict}, {}


def _pass_over(number: int, why: str) -> str:
    return f"{number} {'file was' if number == 1 else 'files were'} passed over: {why}"


def _read_text(source: Path, name: str) -> str:
    data = read_source_file(source, name)
    try:
        return decode_text(data, name)
    except InputError:  # prose in some other encoding; numbers are the same in all
        return data.decode("utf-8", errors="replace")


def _read_numbers(source: Path, name: str) -> list[int]:
    lines, problems = parse_annotation(_read_text(source, name).encode(), name)
    for problem in problems:
        if problem.line:
            raise InputError(f"{problem.place}: {problem.text}")
    return sorted(lines)


def _is_text(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() == ".txt"


def _split_path(name: str) -> list[str]:
    return name.casefold().split("/")
