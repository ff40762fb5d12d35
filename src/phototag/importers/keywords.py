"""Import of photos by their keywords, as photo programs write them.

Keywords are in the metadata of a photo (XMP, IPTC, and EXIF as written by Windows) and in its XMP
sidecars, a.jpg.xmp and a.xmp.
"""

import io
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image, IptcImagePlugin
from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.decoding import formats
from phototag.decoding.sources import list_files, read_file
from phototag.importers.source import Source, SourceDataset, SourcePhoto
from phototag.importers.xmp import Packet, parse_packet
from phototag.verification.labels import check_label, normalize

DC, LIGHTROOM = "http://purl.org/dc/elements/1.1/", "http://ns.adobe.com/lightroom/1.0/"
FLAT = f"{DC} subject"
# Lists of paths such as `animals|cat`, and the separator of the names.
PATHS = {
    f"{LIGHTROOM} hierarchicalSubject": "|",
    "http://www.digikam.org/ns/1.0/ TagsList": "/",
    "http://ns.iview-multimedia.com/mediapro/1.0/ CatalogSets": "|",
    "http://ns.microsoft.com/photo/1.0/ LastKeywordXMP": "/",
    "http://ns.microsoft.com/photo/1.0 LastKeywordXMP": "/",
}
PARENT = "phototag"  # the keyword above those that `phototag predict -f xmp` wrote
WRITTEN = "urn:phototag:1.0/ keywords"  # property with the names of these keywords
_HIDDEN = (PARENT, "darktable", "_Digikam_Internal_Tags_")  # parents of tags of programs
_XP_KEYWORDS, _IPTC_KEYWORDS = 0x9C9E, (2, 25)
MAX_NOTES = 10
MIN_PHOTOS = 5  # a label of fewer photos can hardly be learned or judged


@dataclass
class Keywords:
    """The keywords of a photo.

    Attributes:
        flat: Keywords without parents.
        paths: Keywords with their parents, outermost first.
        written: Names that `phototag predict -f xmp` listed as its own.
        problems: Messages about metadata and sidecars that could not be read.
    """

    flat: set[str] = field(default_factory=set)
    paths: set[tuple[str, ...]] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def add(self, packet: Packet) -> None:
        """Add the keywords of an XMP packet."""
        self.written.update(map(normalize, packet.list_values(WRITTEN)))
        self.add_flat(packet.list_values(FLAT))
        for name, separator in PATHS.items():
            self.paths |= {tuple(split_path(text, separator)) for text in packet.list_values(name)}

    def add_flat(self, texts: Iterable[str]) -> None:
        """Add keywords of a list that has no parents, except that some programs write `a|b`."""
        for text in texts:
            names = [text] if text in self.written else split_path(text, "|")
            if len(names) > 1:
                self.paths.add(tuple(names))
            else:
                self.flat.update(names)

    @property
    def machine(self) -> set[str]:
        """The names of the keywords that were predicted and not entered by the user."""
        return self.written | {path[-1] for path in self.paths if path[:1] == (PARENT,)} | {PARENT}

    @property
    def human(self) -> set[str]:
        """The names of the keywords that the user entered, with the names of their parents."""
        own = [path for path in self.paths if path and path[0] not in _HIDDEN]
        return {name for path in own for name in path} | (self.flat - self.machine)


def split_path(text: str, separator: str) -> list[str]:
    """Return the visible names on the path of a keyword, in composed Unicode (NFC)."""
    names = [name.strip() for name in normalize(text).split(separator)]
    return [name for name in names if any(map(str.isprintable, name))]


def list_sidecars(name: str, names: Collection[str]) -> list[str]:
    """Return the sidecars of a photo, a.jpg.xmp before a.xmp.

    If there is a file named a, a.xmp is the sidecar of this file, not of a.jpg.

    Args:
        name: Name of the photo.
        names: Names of all files in its folder, or relative paths of all files in the source.
    """
    stem = str(PurePosixPath(name).with_suffix(""))
    bases = [name] if stem in names else [name, stem]
    return [base + end for base in bases for end in (".xmp", ".XMP") if base + end in names]


def read_embedded(photo: Path | bytes) -> Keywords:
    """Return the keywords in the metadata of a photo, which may be damaged."""
    keywords = Keywords()
    file = io.BytesIO(photo) if isinstance(photo, bytes) else photo
    # Decoders raise many types of exceptions for damaged files, which `resize` reports.
    with suppress(Exception), Image.open(file, formats=formats.FORMATS) as image:
        packet = image.info.get("xmp", b"")
        try:
            if packet:
                keywords.add(parse_packet(packet.encode() if isinstance(packet, str) else packet))
        except InputError as error:
            keywords.problems.append(str(error))
        with suppress(Exception):
            keywords.add_flat(_decode_iptc(IptcImagePlugin.getiptcinfo(image) or {}))
        value = image.getexif().get(_XP_KEYWORDS, b"")
        if isinstance(value, bytes):
            text = value.decode("utf-16-le", "ignore").partition("\0")[0]
            keywords.add_flat(text.split(";"))
    return keywords


def _decode_iptc(records: dict[tuple[int, int], Any]) -> Iterator[str]:
    found = records.get(_IPTC_KEYWORDS, [])
    for data in filter(None, found if isinstance(found, list) else [found]):
        try:
            yield data.decode()
        except UnicodeDecodeError:
            yield data.decode("latin-1")


def recognize(source: Source, number: int | None = None) -> bool:
    """Return whether any photo in a folder or zip has keywords; with --as, whether it has photos.

    The photos of other formats may have keywords too, so `read_source` calls this function only if
    the source has no other format.

    Args:
        source: Source of an import.
        number: Number of photos that are searched for keywords; None for all.
    """
    if source.names is None or source.options.format == "keywords":
        return bool(source.split_names[0])
    photos = tqdm(source.split_names[0][:number], "recognise", disable=None)
    files = set(list_files(source.path))
    return any(_read_photo(source, name, files).human for name in photos)


def read(source: Source) -> SourceDataset:
    """Read photos whose labels are their keywords.

    A photo has the names of all keywords on the path of a keyword as labels. Keywords that phototag
    predicted are ignored.

    Raises:
        InputError: The option `missing` is not given.
    """
    missing = source.options.missing
    if missing is None:
        raise InputError(
            f"{source.path}: a photo may lack a keyword because it does not apply or because "
            "nobody entered it: pass --missing absent (it does not apply), --missing unknown, or "
            "--missing absent-if-tagged (unknown only for photos without any keyword)"
        )
    files = set(list_files(source.path))
    names = tqdm(source.split_names[0], "read", disable=None)
    found = {name: _read_photo(source, name, files) for name in names}
    counts = Counter(keyword for keywords in found.values() for keyword in keywords.human)
    invalid = sorted(keyword for keyword in counts if not _is_label(keyword))
    least = source.options.min_photos or MIN_PHOTOS
    new = counts.keys() - (source.options.known_labels or set())
    rare = {keyword for keyword in new.difference(invalid) if counts[keyword] < least}
    skipped = {*invalid, *rare} if source.options.min_photos else {*invalid}
    advice = ", skipped" if source.options.min_photos else " (skip them with --min-photos)"
    photos = []
    for name, keywords in found.items():
        labels = keywords.human
        is_known = missing == "absent" or (missing == "absent-if-tagged" and labels)
        unknown = frozenset[str]() if is_known and not keywords.problems else None
        photos.append(SourcePhoto(name, source.path, frozenset(labels - skipped), unknown))
    problems = [text for keywords in found.values() for text in keywords.problems]
    notes = [f"{text}; other labels are unknown" for text in problems[:MAX_NOTES]]
    notes += source.describe_others()
    if invalid:
        example = f"{len(invalid)}, such as {invalid[0]!r}"
        notes.append(f"keywords that cannot be labels, skipped: {example}")
    machine = sum(bool(keywords.machine - keywords.human - {PARENT}) for keywords in found.values())
    for text, number in (
        ("files with keywords that could not be read, besides these", len(problems[MAX_NOTES:])),
        ("photos with keywords that phototag predicted, which were ignored", machine),
        (f"keywords of fewer than {least} photos{advice}", len(rare)),
    ):
        notes += [f"{text}: {number}"] if number else []
    tagged = sum(bool(keywords.human) for keywords in found.values())
    description = f"keywords: {len(photos)} photos, {tagged} of them with keywords"
    return SourceDataset(description, photos, sorted(source.options.known_labels or ()), notes)


def _is_label(keyword: str) -> bool:
    try:
        return bool(check_label(keyword, ""))
    except InputError:
        return False


def _read_photo(source: Source, name: str, files: Collection[str]) -> Keywords:
    """Return the keywords of a photo and its sidecars; a photo that cannot be read has none."""
    keywords = Keywords()
    with suppress(InputError):  # the import reports photos that cannot be read
        keywords = read_embedded(read_file(source.path, name))
        keywords.problems = [f"XMP in {name}: {text}" for text in keywords.problems]
    for sidecar in list_sidecars(name, files):
        try:
            keywords.add(parse_packet(read_file(source.path, sidecar)))
        except InputError as error:
            keywords.problems.append(f"{sidecar}: {error}")
    return keywords
