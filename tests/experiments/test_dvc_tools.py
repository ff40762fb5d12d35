import hashlib
import subprocess
from pathlib import Path

import pytest

from phototag.experiments.dvc_tools import read_tracked


def test_tracked_files_are_read_from_git_and_dvcs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "ann")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ann@example.org")
    md5 = hashlib.md5(b"predictions").hexdigest()
    project = tmp_path / "project"
    cached = project / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"predictions")
    (project / ".dvc/.gitignore").write_text("/cache\n")
    (project / ".dvc/config").touch()
    (project / "out.csv.dvc").write_text(f"outs:\n- md5: {md5}\n  hash: md5\n  path: out.csv\n")
    (project / "params.yaml").write_text("seed: 0\n")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    (project / "params.yaml").write_text("seed: 1\n")

    assert read_tracked(project, "HEAD", "out.csv") == b"predictions"
    assert read_tracked(project, "HEAD", "params.yaml") == b"seed: 0\n"
    assert read_tracked(project, "HEAD", "other.csv") is None
    cached.unlink()
    assert read_tracked(project, "HEAD", "out.csv") is None
