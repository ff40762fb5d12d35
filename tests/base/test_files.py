import os
import subprocess
import sys
from pathlib import Path

import pytest

from phototag.base.files import (
    content_key,
    file_digest,
    read_json,
    replace_file,
    write_json,
    write_text,
)


def test_a_block_that_ends_well_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    with replace_file(path) as temporary:
        assert temporary.suffix == ".csv"
        temporary.write_text("a", encoding="utf-8")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "a"
    assert list(path.parent.iterdir()) == [path]


def test_a_block_that_raises_leaves_the_old_file(tmp_path: Path) -> None:
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


def test_text_is_utf8_with_unix_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "ä\nb\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa4\nb\n"


def test_json_keeps_values_and_letters(tmp_path: Path) -> None:
    value = {"Köln": [1, 0.1, None], "b": {"c": True}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "Köln" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_the_digest_is_that_of_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_digest(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_the_key_follows_settings_and_contents_but_not_names(tmp_path: Path) -> None:
    a, b, twin = tmp_path / "a", tmp_path / "b", tmp_path / "twin"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    twin.write_bytes(b"1")
    key = content_key({"lr": 0.1, "seed": 0}, [a, b])
    assert content_key({"seed": 0, "lr": 0.1}, [twin, b]) == key
    others = {
        content_key({"lr": 0.2, "seed": 0}, [a, b]),
        content_key({"lr": 0.1, "seed": 0}, [b, a]),
        content_key({"lr": 0.1, "seed": 0}, [a]),
    }
    a.write_bytes(b"3")
    others.add(content_key({"lr": 0.1, "seed": 0}, [a, b]))
    assert len(others | {key}) == 5


def test_what_a_killed_process_left_is_removed_and_a_running_ones_is_not(tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    (tmp_path / f".a.{killed.pid}.tmp.csv").write_text("half")
    kept = [f".a.{os.getppid()}.tmp.csv", ".a.b.tmp.csv", f".ab.{killed.pid}.tmp.csv", "a.txt"]
    for name in kept:
        (tmp_path / name).write_text("other")
    write_text(tmp_path / "a.csv", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "a.csv"])
