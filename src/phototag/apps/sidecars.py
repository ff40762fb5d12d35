"""XMP sidecars of photos: which file is the sidecar of a photo, and its replacement."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from phototag.apps.formats import Row, show_name
from phototag.apps.photo_files import read_paths
from phototag.apps.sidecar_text import set_keywords
from phototag.base.errors import InputError
from phototag.base.files import remove_unfinished, replace_file
from phototag.decoding.sources import list_files, read_path
from phototag.decoding.system_files import is_system_file
from phototag.importers.keywords import WRITTEN, Keywords, list_sidecars, read_embedded
from phototag.importers.xmp import parse_packet


class ChangedError(Exception):
    """The sidecar has been changed since it was read."""


class Folder:
    """The names of the files in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        remove_unfinished(path.glob(".*.tmp.xmp"))
        self.names = {file.name for file in path.iterdir()}
        self.stems = Counter(Path(name).stem for name in self.names if not is_system_file(name))

    def choose(self, photo: str, naming: str) -> tuple[Path, list[Path]]:
        """Return the sidecar to write for a photo, and its other existing sidecars.

        If the photo has no sidecar, a new one is named like a.jpg.xmp or, if `naming` is "a.xmp",
        like a.xmp. A sidecar a.xmp is not written if other files, such as a.cr2, are named a too,
        because it may describe one of these.
        """
        stem = Path(photo).stem
        is_shared = self.stems[stem] + (stem in self.names) > 1
        new = f"{stem}.xmp" if naming == "a.xmp" and not is_shared else f"{photo}.xmp"
        found = list_sidecars(photo, self.names)
        usable = [name for name in found if not is_shared or name.startswith(f"{photo}.")]
        chosen = usable[0] if usable else new
        return self.path / chosen, [self.path / name for name in found if name != chosen]


class SidecarWriter:
    """Writes predicted labels into the sidecars of photos, and counts what was done.

    Attributes:
        report: Function that prints a message about a refused sidecar.
        naming: Name of new sidecars, see `Folder.choose`.
        counts: Number of sidecars that were created, changed, deleted, unchanged and refused.
    """

    def __init__(self, report: Callable[[str], object], naming: str = "a.jpg.xmp") -> None:
        self.report, self.naming = report, naming
        self.counts = Counter[str]()
        self.folders: dict[Path, Folder] = {}

    def write(self, names: Iterable[str], rows: Iterable[Row]) -> bool:
        """Write the labels of each photo into its sidecar; return whether any photo was readable.

        Args:
            names: Paths of the photos.
            rows: Predictions, see `phototag.apps.formats`.
        """
        any_readable = False
        for photo, row in zip(map(Path, names), rows, strict=True):
            if row["error"]:
                continue
            any_readable = True
            sidecar, others = self._open(photo.parent).choose(photo.name, self.naming)
            keywords = read_embedded(photo)
            for other in others:
                with suppress(InputError):  # it is not changed
                    keywords.add(parse_packet(read_path(other)))
            self._update(sidecar, row["labels"], keywords)
        return any_readable

    def remove(self, sources: Iterable[str], stdin: BinaryIO) -> None:
        """Remove the labels that phototag wrote.

        Args:
            sources: Paths of photos, sidecars and folders (searched recursively), or `-` to read
                paths from stdin.
            stdin: Stream with a list of paths.
        """
        sidecars: dict[Path, None] = {}
        for source in sources:
            for name in read_paths(stdin) if source == "-" else [source]:
                sidecars |= dict.fromkeys(self._find(Path(name)))
        for sidecar in tqdm(sidecars, "undo", disable=None):
            self._update(sidecar, [])

    def describe(self) -> str:
        """Return a line with the counts."""
        kinds = ("created", "changed", "deleted", "unchanged", "refused")
        return "sidecars: " + ", ".join(f"{self.counts[kind]} {kind}" for kind in kinds)

    def _open(self, path: Path) -> Folder:
        try:
            if path not in self.folders:
                self.folders[path] = Folder(path)
        except OSError as error:
            raise InputError(f"{show_name(str(path))}: {error.strerror}") from None
        return self.folders[path]

    def _find(self, path: Path) -> list[Path]:
        """Return the sidecars in a folder, the sidecars of a photo, or the sidecar itself."""
        if path.is_dir():
            remove_unfinished(path.rglob(".*.tmp.xmp"))
            names = [name for name in list_files(path) if "/." not in f"/{name}"]
            return [path / name for name in names if name.lower().endswith(".xmp")]
        near = self._open(path.parent).names
        names = [path.name] if path.suffix.lower() == ".xmp" else list_sidecars(path.name, near)
        if near.isdisjoint([path.name, *names]):
            raise InputError(f"{show_name(str(path))}: no such file or folder")
        return [path.with_name(name) for name in names]

    def _update(self, path: Path, labels: Sequence[str], other: Keywords | None = None) -> None:
        """Replace the labels in a sidecar; read it again if another program has just saved it.

        `other` are the keywords in the photo, or None to undo. Then a sidecar into which phototag
        did not write is not parsed, because it may be damaged.
        """
        try:
            old = _read(path)
            new = set_keywords(old, labels, other) if other or _is_ours(old) else old
            if new != old:
                _replace(path, old, new)
        except (ChangedError, FileNotFoundError):
            self._update(path, labels, other)
            return
        except (InputError, OSError) as error:
            self.counts["refused"] += 1
            name, text = show_name(str(path)), getattr(error, "strerror", None) or str(error)
            start = "" if text.startswith(name) else f"{name}: "
            self.report(f"{start}{text}; nothing was changed")
            return
        if new != old:
            self.counts["created" if old is None else "changed" if new else "deleted"] += 1
        elif new:
            self.counts["unchanged"] += 1


def _is_ours(data: bytes | None) -> bool:
    """Return whether phototag wrote into a sidecar, in whatever encoding it was saved since."""
    return WRITTEN.split()[0].encode() in (data or b"").replace(b"\0", b"")


def _read(path: Path) -> bytes | None:
    """Return the content of a sidecar, or None if there is no file."""
    return read_path(path) if os.path.lexists(path) else None


def _replace(path: Path, old: bytes | None, new: bytes | None) -> None:
    """Replace the content of a sidecar; None means that there is no file.

    Raises:
        InputError: The sidecar is a link or write-protected.
        ChangedError: The content is not `old` any more.
    """
    if path.is_symlink():
        raise InputError("a link, which is not replaced")
    if old is not None and not path.stat().st_mode & 0o222:
        raise InputError("write-protected")
    if new is None:
        _check_unchanged(path, old)
        path.unlink()
        return
    with replace_file(path, clean=False) as temporary:
        temporary.write_bytes(new)
        if old is not None:
            shutil.copymode(path, temporary)
        _check_unchanged(path, old)


def _check_unchanged(path: Path, old: bytes | None) -> None:
    if _read(path) != old:
        raise ChangedError
