import errno
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phototag.base.errors import InputError
from phototag.base.files import (
    content_key,
    project_root,
    read_json,
    replace_file,
    report_failed_write,
    write_json,
    write_table,
    write_text,
)
from tests.processes import MAX_FILE, full_disk


def test_file_is_replaced_when_the_block_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    with replace_file(path) as temporary:
        assert temporary.suffix == ".csv"
        temporary.write_text("a", encoding="utf-8")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "a"
    assert list(path.parent.iterdir()) == [path]


def test_old_file_stays_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old", encoding="utf-8")

    def fail() -> None:
        with replace_file(path) as temporary:
            temporary.write_text("half of the n", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "x") as archive:
        archive.writestr("im1.jpg", bytes(2 * MAX_FILE))


def refuse(path: Path) -> None:
    """Fail like `open` in a folder that belongs to another user."""
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


@pytest.mark.parametrize(
    "write",
    [
        refuse,
        lambda path: refuse(path.parents[2]),  # like `mkdir` of a parent folder
        lambda path: path.write_bytes(bytes(2 * MAX_FILE)),
        lambda path: pd.DataFrame({"x": np.zeros(MAX_FILE)}).to_csv(path),
        lambda path: np.save(path.open("wb"), np.zeros(MAX_FILE)),
        write_zip,
    ],
)
def test_full_disk_is_reported_and_keeps_the_old_file(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "file"
    path.write_text("old", encoding="utf-8")
    expected = r"/file could not be written \(.+\): free some disk space"
    with (
        full_disk(),
        pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))}{expected}"),
        report_failed_write(tmp_path),
        replace_file(path) as temporary,
    ):
        write(temporary)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replace_file(tmp_path / "file"):
        (tmp_path / "missing").read_bytes()
    with pytest.raises(PermissionError), replace_file(tmp_path / "file"):
        refuse(tmp_path / "other" / "input")


def test_json_round_trip_keeps_values_and_letters(tmp_path: Path) -> None:
    value = {"Köln": [1, 0.1, None], "b": {"c": True}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    data = (tmp_path / "a.json").read_bytes()
    assert "Köln".encode() in data
    assert b"\r" not in data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n<<<<<<< HEAD\n"f1": 1\n=======\n"f1": 2\n>>>>>>> other\n}', "holds merge conflict"),
        ('{"f1": 2\n>>>>>>> other\n}', "holds merge conflict"),
        ('{"f1": ">>>>>>> 0.', "is not valid JSON"),
        ("", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("1" * 5000, "is not valid JSON"),
        ('{"f1": "\udcff"}', None),
    ],
)
def test_damaged_json_is_refused_by_name(tmp_path: Path, text: str, message: str | None) -> None:
    path = tmp_path / "metrics.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    if message is None:
        assert read_json(path) == {"f1": "\ufffd"}
        return
    with pytest.raises(InputError, match=rf"metrics\.json {message}"):
        read_json(path)


def test_content_key_depends_on_settings_and_contents_but_not_on_names(tmp_path: Path) -> None:
    a, b, copy = tmp_path / "a", tmp_path / "b", tmp_path / "copy"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    copy.write_bytes(b"1")
    key = content_key({"lr": 0.1, "seed": 0}, [a, b])
    assert content_key({"seed": 0, "lr": 0.1}, [copy, b]) == key
    others = {
        content_key({"lr": 0.2, "seed": 0}, [a, b]),
        content_key({"lr": 0.1, "seed": 0}, [b, a]),
        content_key({"lr": 0.1, "seed": 0}, [a]),
    }
    a.write_bytes(b"3")
    others.add(content_key({"lr": 0.1, "seed": 0}, [a, b]))
    assert len(others | {key}) == 5


def test_temporary_files_of_killed_processes_only_are_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f".a.{ended.pid}.tmp.csv").write_text("half")
    kept = [f".a.{os.getppid()}.tmp.csv", ".a.b.tmp.csv", f".ab.{ended.pid}.tmp.csv", "a.txt"]
    for name in kept:
        (tmp_path / name).write_text("other")
    write_text(tmp_path / "a.csv", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "a.csv"])


def test_project_root_is_found_from_a_subfolder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "params.yaml").touch()
    (tmp_path / "docs" / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "docs" / "images")
    assert project_root() == tmp_path
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "docs"))
    assert project_root() == tmp_path / "docs"


def test_folder_outside_a_project_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is not inside a phototag project"):
        project_root()


def test_tables_have_8_significant_digits(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": ["a", 'b"c,d', None], "value": [1 / 3, 2.0, float("nan")]})
    write_table(tmp_path / "table.csv", table)
    expected = 'text,value\na,0.33333333\n"b""c,d",2\n,\n'
    assert (tmp_path / "table.csv").read_bytes() == expected.encode()
