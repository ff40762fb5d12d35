"""The log of served photos: what is read back after crashes, full disks, new days and old files."""

import hashlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from phototag.base.errors import InputError
from phototag.server import log
from phototag.server.log import PredictionLog, read_log
from phototag.serving.tagger import Tags

PHOTO = b"the bytes of a photo"
SHA256 = hashlib.sha256(PHOTO).hexdigest()
FEATURES = np.random.default_rng(0).normal(size=1280).astype(np.float32)
TAGS = Tags(["über"], {"über": 0.75, "b": 0.25}, None, None, 12.5, 0.1, SHA256, FEATURES)
BROKEN = Tags([], {}, "not an image", sha256=SHA256)


def write(log: PredictionLog, count: int = 1) -> None:
    log.write("album", "3", [PHOTO] * count, [TAGS] * count)


def test_what_was_written_is_read_back_without_photos_that_could_not_be_read(
    tmp_path: Path,
) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    plain = Tags([], {"a": 0.1}, None, sha256=SHA256)
    PredictionLog(tmp_path / "log").write("album", "3", [PHOTO] * 3, [TAGS, BROKEN, plain])
    first, second = read_log(tmp_path / "log")
    assert before < first.time < datetime.now(UTC)
    assert (first.sha256, first.model, first.version) == (SHA256, "album", "3")
    assert (first.labels, first.scores) == (TAGS.labels, TAGS.scores)
    assert first.features is not None
    np.testing.assert_array_equal(first.features, FEATURES.astype(np.float16))
    assert (first.familiarity, second.familiarity, second.features) == (12.5, None, None)
    (file,) = (tmp_path / "log").iterdir()
    assert re.fullmatch(rf"predictions-\d{{8}}-{os.getpid()}\.jsonl", file.name)
    assert file.stat().st_mode & 0o007 == 0


def test_lines_of_many_threads_are_complete(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: write(log, 5), range(40)))
    assert len(list(read_log(tmp_path))) == 200


KILLED = """
import os, sys
from pathlib import Path
from tests.server.test_log import PredictionLog, write
log = PredictionLog(Path(sys.argv[1]))
write(log, 3)
os.write(log.file, b'{"time": "2026-01-01T00:00:00.000+00:00", "sha256": "ab')
os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_log_of_a_killed_process_is_read_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(map(str, (root, root / "src")))
    environment = os.environ | {"PYTHONPATH": paths}
    killed = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=environment)
    assert killed.wait() == -9
    assert len(list(read_log(tmp_path))) == 3
    # In a container, the next process has the same number.
    monkeypatch.setattr(os, "getpid", lambda: killed.pid)
    log = PredictionLog(tmp_path)
    write(log, 2)
    assert len(list(tmp_path.iterdir())) == 1
    assert len(list(read_log(tmp_path))) == 5


def test_full_disk_raises_an_error_and_damages_one_line_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = PredictionLog(tmp_path)
    write(log)
    whole = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda file, line: whole(file, line[:40]))
        with pytest.raises(OSError, match="cut off: free some disk space"):
            write(log)
    write(log)
    assert len(list(read_log(tmp_path))) == 2


class Clock(datetime):
    """A clock that shows the time `shown`."""

    shown = datetime(2026, 3, 1, 12, tzinfo=UTC)

    @classmethod
    def now(cls, _: object = None) -> datetime:  # type: ignore[override]
        return cls.shown


def test_files_and_photos_of_old_days_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "datetime", Clock)
    kept = {"predictions-2026.jsonl", "other.jsonl", "predictions-20200101-1.txt"}
    for name in kept:
        (tmp_path / name).touch()
    writer = PredictionLog(tmp_path, days=7, keeps_photos=True)
    for day in range(10):
        monkeypatch.setattr(Clock, "shown", datetime(2026, 3, 1 + day, tzinfo=UTC))
        write(writer)
        write(writer)
    days = [f"202603{day:02}" for day in range(3, 11)]
    found = {path.name for path in tmp_path.iterdir()} - kept - {"photos"}
    assert found == {f"predictions-{day}-{os.getpid()}.jsonl" for day in days}
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == days
    assert [photo.time.day for photo in read_log(tmp_path)] == [
        d for d in range(3, 11) for _ in "ab"
    ]
    (photo,) = (tmp_path / "photos/20260310").iterdir()
    assert (photo.name, photo.read_bytes()) == (SHA256, PHOTO)


def test_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no files predictions-\*.jsonl"):
        list(read_log(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="could not be written"):
        PredictionLog(tmp_path / "file")
