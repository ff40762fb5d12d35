"""DVC's cache: the one place outside of a data set to which its links may lead.

With `cache.type symlink` DVC puts a link into its cache in the place of each file that it tracks.
"""

import configparser
import os
from pathlib import Path


def is_cached(file: Path, source: Path) -> bool:
    """Tell whether a file lies in DVC's cache.

    That is the cache of the project one works in, wherever its own config puts it. Of another
    project that holds the source, only the cache in its own folder counts: a config that came with
    photos must not open the rest of the disk.

    Args:
        file: Without links in its path.
        source: The data set.
    """
    caches = []
    if here := _find_project(Path.cwd()):
        caches.append(_find_cache(here / ".dvc").resolve())
    if around := _find_project(source.absolute()):
        caches.append(around.resolve() / ".dvc/cache")
    return any(file.is_relative_to(cache) for cache in caches)


def _find_project(folder: Path) -> Path | None:
    found = (place for place in (folder, *folder.parents) if (place / ".dvc").is_dir())
    return next(found, None)


def _find_cache(project: Path) -> Path:
    """Return `dvc cache dir`, without starting DVC; of the four levels of its config, the last."""
    environ = os.environ.get
    home = Path(environ("XDG_CONFIG_HOME") or Path.home() / ".config")
    places = [
        Path(environ("DVC_SYSTEM_CONFIG_DIR") or "/etc/xdg/dvc"),
        Path(environ("DVC_GLOBAL_CONFIG_DIR") or home / "dvc"),
        project,
    ]
    cache = project / "cache"
    for file in (*(place / "config" for place in places), project / "config.local"):
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(file, encoding="utf-8")
            value = parser.get("cache", "dir").strip("'\"")
        except (configparser.Error, UnicodeDecodeError):  # no such section or key, or no config
            continue
        cache = file.parent / Path(value).expanduser()
    return cache
