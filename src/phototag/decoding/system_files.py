"""What operating systems and tools leave among photos: nobody's photos, nobody's labels."""

import re
from collections.abc import Iterable, Sequence

# Folders are left whole. A name that starts with a dot is hidden: .DS_Store, ._im1.jpg (macOS),
# .picasa.ini, .Trashes, .AppleDouble, .git, .stfolder (Syncthing), .dropbox, .thumbnails.
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
    | .+\.(xmp | aae | thm | pp3 | dop)                               # beside a photo
    | .+\.(tmp | temp | part | partial | filepart | crdownload | download)  # under way
    | .+\.(bak | orig | swp | lnk | url) | .+~ | ~[$~].*
    | ~syncthing~.+ | .+\.!(sync | ut)
    """,
    re.IGNORECASE | re.VERBOSE,
)


def is_system_file(name: str) -> bool:
    """Tell a file that a system or a tool has left, by its path relative to the data set."""
    *folders, file = name.split("/")
    return bool(_FILE.fullmatch(file)) or any(_FOLDER.fullmatch(folder) for folder in folders)


def split_system_files(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Divide files into those that people brought and those that were left, each in order."""
    brought: list[str] = []
    left: list[str] = []
    for name in names:
        (left if is_system_file(name) else brought).append(name)
    return brought, left


def describe_system_files(left: Sequence[str]) -> list[str]:
    """Say in a sentence how many were passed over, and show one; nothing where there is none."""
    if not left:
        return []
    files = "1 file" if len(left) == 1 else f"{len(left)} files"
    was = "was" if len(left) == 1 else "were"
    return [f"{files} of operating systems and tools {was} passed over (such as {left[0]!r})."]
