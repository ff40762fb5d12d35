"""XMP sidecars of photos: which file is the sidecar of a photo, and its replacement."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal

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

Naming = Literal["a.jpg.xmp", "a.xmp"]  # habits of naming the sidecar of a.jpg


class Folder:
    """The names of the files in a folder, and the habit of naming its sidecars.

    Attributes:
        names: Names of all files and subfolders.
        naming: The more frequent habit of the existing sidecars, `a.jpg.xmp` if there are none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = {file.name for file in path.iterdir()}
        remove_unfinished(path / name for name in self.names if name.lower().endswith(".tmp.xmp"))
        own = [name for name in self.names if not is_system_file(name)]
        self.stems = Counter(Path(name).stem for name in own)
        bases = [Path(name).stem for name in self.names if name.lower().endswith(".xmp")]
        full = sum(base in self.names for base in bases)
        short = sum(base not in self.names and base in self.stems for base in bases)
        self.naming: Naming = "a.xmp" if short > full else "a.jpg.xmp"

    def choose(self, photo: str, naming: Naming | None) -> tuple[Path, list[Path]]:
        """Return the sidecar to write for a photo, and its other existing sidecars.

        The sidecar is the existing one, unless `naming` is given. A sidecar a.xmp is not written if
        other files, such as a.cr2, are named a too, because it may describe one of these.
        """
        stem = Path(photo).stem
        is_shared = self.stems[stem] > 1 or (stem != photo and stem in self.names)
        if is_shared and naming == "a.xmp":
            raise InputError(f"{stem}.xmp may describe another file named {stem}: use a.jpg.xmp")
        is_short = (naming or self.naming) == "a.xmp" and not is_shared
        wanted = f"{stem}.xmp" if is_short else f"{photo}.xmp"
        found = list_sidecars(photo, self.names)
        usable = [name for name in found if not is_shared or name.startswith(f"{photo}.")]
        if naming:
            usable = [name for name in usable if name.lower() == wanted.lower()]
        chosen = usable[0] if usable else wanted
        return self.path / chosen, [self.path / name for name in found if name != chosen]


class SidecarWriter:
    """Writes predicted labels into the sidecars of photos, and counts what was done.

    Attributes:
        counts: Number of sidecars that were created, changed, deleted, unchanged and refused.
    """

    def __init__(self, report: Callable[[str], object], naming: Naming | None = None) -> None:
        """Report refused sidecars with `report`; see `Folder.choose` for `naming`."""
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
        for name, row in zip(names, rows, strict=True):
            if not row["error"]:
                any_readable = True
                self._write_photo(Path(name), row["labels"])
        return any_readable

    def remove(self, sidecars: Iterable[Path]) -> None:
        """Remove the labels that phototag wrote from each sidecar."""
        for sidecar in tqdm(sidecars, "undo", disable=None):
            self._update(sidecar, [])

    def describe(self) -> str:
        """Return a line with the counts."""
        kinds = ("created", "changed", "deleted", "unchanged", "refused")
        return "sidecars: " + ", ".join(f"{self.counts[kind]} {kind}" for kind in kinds)

    def _write_photo(self, photo: Path, labels: Sequence[str]) -> None:
        try:
            folder = self.folders.get(photo.parent) or Folder(photo.parent)
            self.folders[photo.parent] = folder
            sidecar, others = folder.choose(photo.name, self.naming)
        except (InputError, OSError) as error:
            self._refuse(photo, error)
            return
        if not labels and sidecar.name not in folder.names and not others:
            return
        keywords, moved = read_embedded(photo), []
        for other in others:
            with suppress(InputError):  # it is not changed
                packet = parse_packet(read_path(other))
                keywords.add(packet)
                moved += [other] if packet.list_values(WRITTEN) else []
        if self._update(sidecar, labels, keywords):
            for other in moved:
                self._update(other, [])

    def _update(self, path: Path, labels: Sequence[str], other: Keywords | None = None) -> bool:
        """Replace the labels in a sidecar; return whether this succeeded."""
        try:
            old = _read(path)
            new = set_keywords(old, labels, other)
            if new != old:
                _replace(path, old, new)
        except (InputError, OSError) as error:
            self._refuse(path, error)
            return False
        if new != old:
            self.counts["created" if old is None else "changed" if new else "deleted"] += 1
        elif new:
            self.counts["unchanged"] += 1
        return True

    def _refuse(self, path: Path, error: InputError | OSError) -> None:
        self.counts["refused"] += 1
        name, text = show_name(str(path)), getattr(error, "strerror", None) or str(error)
        start = "" if text.startswith(name) else f"{name}: "
        self.report(f"{start}{text}; nothing was changed")


def find_sidecars(sources: Iterable[str], stdin: BinaryIO) -> list[Path]:
    """Return the sidecars in folders, and those of single photos.

    Args:
        sources: Paths of photos, sidecars and folders (searched recursively), or `-` to read paths
            from stdin.
        stdin: Stream with a list of paths.
    """
    found: dict[Path, None] = {}
    for source in sources:
        for name in read_paths(stdin) if source == "-" else [source]:
            path = Path(name)
            if path.is_dir():
                names = [each for each in list_files(path) if each.lower().endswith(".xmp")]
                remove_unfinished(path / each for each in names)
                found |= {path / each: None for each in names if "/." not in f"/{each}"}
            elif path.suffix.lower() == ".xmp":
                found[path] = None
            else:
                near = {file.name for file in path.parent.glob("*")}
                names = list_sidecars(path.name, near)
                if not names and path.name not in near:
                    raise InputError(f"{show_name(name)}: no such file or folder")
                found |= {path.with_name(each): None for each in names}
    return list(found)


def _read(path: Path) -> bytes | None:
    """Return the content of a sidecar, or None if there is no file."""
    try:
        return read_path(path)
    except InputError:
        if os.path.lexists(path):
            raise
        return None


def _replace(path: Path, old: bytes | None, new: bytes | None) -> None:
    """Replace the content of a sidecar; None means that there is no file.

    Raises:
        InputError: The sidecar is a link, write-protected, or not `old` any more.
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
        raise InputError("another program has just changed it: run the command again")
