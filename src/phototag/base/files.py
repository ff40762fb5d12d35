"""Read files, and write files by renaming a complete temporary file."""

import errno
import glob
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from phototag.base.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

CONFLICT = re.compile("^(<<<<<<<|>>>>>>>) ", re.MULTILINE)  # written by git into a file
_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp(?:\.[^.]*)?", re.ASCII | re.DOTALL)
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
MAX_AGE = 14 * 24 * 3600  # seconds; older temporary files are removed


def project_root() -> Path:
    """Return the project's root: the current folder or its nearest parent with a params.yaml.

    If the environment variable `DVC_ROOT` is set, return its value: DVC runs a queued or `--temp`
    experiment in a copy of the project, and `DVC_ROOT` is then the path of the main checkout.

    Raises:
        InputError: The current folder is not inside a project.
    """
    if root := os.environ.get("DVC_ROOT"):
        return Path(root).resolve()
    folder = Path.cwd()
    for candidate in (folder, *folder.parents):
        if (candidate / "params.yaml").is_file():
            return candidate
    raise InputError(
        f"{folder} is not inside a phototag project (it and its parent folders have no "
        "params.yaml): run this command in a clone of the repository"
    )


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Print the message of an InputError or of a failed file access without traceback, and exit."""
    try:
        with report_failed_write(Path.cwd()):
            yield
    except InputError as error:
        sys.exit(f"error: {error}")
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        reason = (error.strerror or str(error)).lower()
        sys.exit(f"error: {error.filename}: {reason}: change the permissions or the path")


@contextmanager
def report_failed_write(path: Path) -> Iterator[None]:
    """Raise an InputError that names `path` if the block cannot write this file or folder."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        cause = _find_failed_write(error, path)
        if cause is None:
            raise
        raise InputError(
            f"{path} could not be written ({getattr(cause, 'strerror', None) or cause}): free some "
            "disk space or choose a folder that is writable, and run the command again"
        ) from error


def _find_failed_write(error: BaseException | None, path: Path) -> BaseException | None:
    """Return the first of `error` and the errors before it that reports a failed write, or None."""
    if error is None:
        return None
    # NumPy reports "9 requested and 4 written", and safetensors "(os error 28)".
    numbers = {getattr(error, "errno", None), *map(int, re.findall(r"os error (\d+)", str(error)))}
    failed = bool(re.search(r"\d requested and \d+ written", str(error)) or numbers & FULL_DISK)
    if isinstance(error, PermissionError | FileExistsError | NotADirectoryError) and error.filename:
        # The error is about the output only if it names a parent folder or a file next to `path`.
        named = Path(error.filename)
        failed = path.is_relative_to(named) or path.parent == named.parent
    return error if failed else _find_failed_write(error.__context__, path)


def check_folder(folder: Path) -> None:
    """Raise an InputError if a path contains an escape such as %20, which MLflow decodes."""
    if escape := re.search("%[0-9a-fA-F]{2}", str(folder)):
        raise InputError(
            f"{folder} contains {escape[0]}, and MLflow cannot load models from such a folder: "
            "rename the folder"
        )


@contextmanager
def replace_file(path: Path, clean: bool = True) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename the file to `path` if the block succeeds.

    If the process is killed, `path` holds either the complete old file or the complete new one.
    Missing parent folders are created. Temporary files of killed processes are removed, unless
    `clean` is false because the search for them would be slow in a folder with many files.
    """
    with report_failed_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if clean:
        pattern = f".{glob.escape(path.stem)}.*.tmp{glob.escape(path.suffix)}"
        remove_unfinished(path.parent.glob(pattern))
    # The suffix is kept because some writers infer the file format from it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        with report_failed_write(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(paths: Iterable[Path]) -> None:
    """Remove the files that are temporary files of `replace_file`, left by a killed process."""
    for path in paths:
        match = _TEMPORARY.fullmatch(path.name)
        if match and int(match[1]) not in psutil.pids():
            path.unlink(missing_ok=True)


def remove_stale(paths: Iterable[Path]) -> None:
    """Remove each file, such as unfinished features, that is unmodified for two weeks."""
    for path in paths:
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > MAX_AGE:
                path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write text to a file in UTF-8 with Unix line endings, and escape lone surrogates."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write a value to a file as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write a table to a CSV file, with floating-point numbers rounded to 8 significant digits."""
    with replace_file(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.8g", lineterminator="\n")


def read_table(path: Path, **options: Any) -> "pd.DataFrame":
    """Read a CSV file that a stage wrote; `options` are those of `pandas.read_csv`.

    Raises:
        InputError: The file is damaged.
    """
    import pandas as pd

    try:
        table: pd.DataFrame = pd.read_csv(path, **options)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not a valid table ({reason}): run `dvc repro`") from None
    return table


def read_source(path: Path) -> str:
    """Read a UTF-8 text file of the project, such as params.yaml.

    Raises:
        InputError: The file is missing or not valid UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run this command in the project's root") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None


def check_conflicts(text: str, source: str | Path) -> str:
    """Return the text of a file; raise an InputError if git wrote conflict markers into it."""
    if CONFLICT.search(text):
        raise InputError(f"{source} holds merge conflict markers: resolve the conflicts first")
    return text


def read_json(path: Path) -> Any:
    """Read a JSON file and return its content; raise an InputError if the file is damaged."""
    return parse_json(path.read_bytes().decode(errors="replace"), path)


def parse_json(text: str, source: str | Path) -> Any:
    """Parse the text of a JSON file; error messages start with `source`."""
    check_conflicts(text, source)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} is not valid JSON ({error}): run `dvc repro`") from None


def file_digest(path: Path) -> str:
    """Return the SHA-256 hash of a file as a hexadecimal string."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_key(settings: Any, paths: Iterable[Path]) -> str:
    """Return a hash of settings and of file contents, as 16 hexadecimal digits.

    The settings must be JSON serializable. The order of the files matters; their names do not.
    """
    digests = [file_digest(path) for path in paths]
    text = json.dumps([settings, digests], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
