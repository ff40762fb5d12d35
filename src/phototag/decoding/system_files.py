"""System files: files that operating systems and tools create next to photos."""

import re
from collections.abc import Iterable, Sequence

# Names that start with a dot are hidden, such as .DS_Store and ._im1.jpg (macOS) or .git.
_FOLDER = re.compile(
    r"""\..+ | __macosx
    | \$recycle\.bin | recycler | system\ volume\ information  # Windows
    | @eadir | [@#]recycle | \#snapshot | lost\+found         # network drives and Linux
    """,
    re.IGNORECASE | re.VERBOSE,
)
_FILE = re.compile(
    r"""\..+ | icon[\r\uf00d]                                        # macOS
    | (eh)?thumbs\.db | desktop\.ini | .+:zone\.identifier        # Windows
    | .+@syno(eastream|resource) | picasa\.ini
    | .+\.(xmp | aae | thm)                                       # files next to a photo
    | .+\.(tmp | temp | part | partial | crdownload | download)   # unfinished downloads
    | .+\.(bak | orig | swp | lnk | url) | .+~ | ~[$~].* | ~syncthing~.+
    """,
    re.IGNORECASE | re.VERBOSE,
)


def is_system_file(name: str) -> bool:
    """Return whether a relative path is a system file or is inside a system folder."""
    *folders, file = name.split("/")
    return bool(_FILE.fullmatch(file)) or any(_FOLDER.fullmatch(folder) for folder in folders)


def split_system_files(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split paths into the user's files and the system files; both lists keep the given order."""
    own: list[str] = []
    system: list[str] = []
    for name in names:
        (system if is_system_file(name) else own).append(name)
    return own, system


def describe_system_files(names: Sequence[str]) -> list[str]:
    """Return a list with one sentence about the ignored system files, or an empty list."""
    if not names:
        return []
    files = "1 system file was" if len(names) == 1 else f"{len(names)} system files were"
    return [f"{files} ignored, such as {names[0]!r}."]
