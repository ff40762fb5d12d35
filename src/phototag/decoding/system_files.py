"""System files: files that operating systems and tools create next to photos."""

import re
from collections.abc import Iterable, Sequence

# A name that starts with a dot is hidden: .DS_Store and ._im1.jpg (macOS), .picasa.ini, .Trashes,
# .AppleDouble, .git, .stfolder (Syncthing), .dropbox, .thumbnails.
_FOLDER = re.compile(
    r"""\..+
    | __macosx | temporary\ items | network\ trash\ folder            # macOS
    | \$recycle\.bin | recycler | system\ volume\ information | found\.\d{3}  # Windows
    | @eadir | [@#]recycle | @recently-snapshot | \#snapshot | @__thumb  # Synology, QNAP
    | lost\+found | __pycache__ | _gsdata_
    """,
    re.IGNORECASE | re.VERBOSE,
)
_FILE = re.compile(
    r"""\..+
    | icon[\r\uf00d]                                                  # macOS
    | (eh)?thumbs(_vista)?\.db(:encryptable)? | desktop\.ini | .+:zone\.identifier  # Windows
    | .+@syno(eastream|resource) | picasa\.ini | zbthumbnail\.info
    | .+\.(xmp | aae | thm | pp3 | dop)                               # sidecars of a photo
    | .+\.(tmp | temp | part | partial | filepart | crdownload | download)  # unfinished downloads
    | .+\.(bak | orig | swp | lnk | url) | .+~ | ~[$~].*
    | ~syncthing~.+ | .+\.!(sync | ut)
    """,
    re.IGNORECASE | re.VERBOSE,
)


def is_system_file(name: str) -> bool:
    """Return whether a path, relative to the dataset, is a system file or lies in such a folder."""
    *folders, file = name.split("/")
    return bool(_FILE.fullmatch(file)) or any(_FOLDER.fullmatch(folder) for folder in folders)


def split_system_files(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split paths into the user's files and system files, each in the given order."""
    own: list[str] = []
    system: list[str] = []
    for name in names:
        (system if is_system_file(name) else own).append(name)
    return own, system


def describe_system_files(names: Sequence[str]) -> list[str]:
    """Return a sentence with the number of system files and an example, or an empty list."""
    if not names:
        return []
    files = "1 system file was" if len(names) == 1 else f"{len(names)} system files were"
    return [f"{files} ignored, such as {names[0]!r}."]
