import json
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from phototag.base.errors import InputError
from phototag.cli import app, typer_app
from phototag.schema.params import read_all_params
from tests.conftest import SHIPPED_PARAMS
from tests.projects import make_project


def test_summary_shows_scores_report_and_next_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports/evaluate").mkdir(parents=True)
    (tmp_path / "reports/evaluate/metrics.json").write_text(
        json.dumps({"f1_micro": 0.71234, "known": 72})
    )
    decision = {"name": "phototag", "version": 3, "champion": False, "reason": "micro F1 too low"}
    (tmp_path / "reports/register").mkdir()
    (tmp_path / "reports/register/decision.json").write_text(json.dumps(decision))
    shown = CliRunner().invoke(typer_app, ["summary"])
    assert shown.exit_code == 0
    assert "  f1_micro  0.7123\n  known     72\n" in shown.output
    assert "version 3, challenger (micro F1 too low)" in shown.output
    assert str(tmp_path / "reports/evaluate/report.html") in shown.output
    assert "make ui" in shown.output


def test_summary_tells_figures_that_git_has_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    metrics = tmp_path / "reports/evaluate/metrics.json"
    metrics.parent.mkdir(parents=True)
    metrics.write_text(json.dumps({"loss": 0.1, "f1_micro": 0.71234}))
    git = ["git", "-c", "user.name=t", "-c", "user.email=t"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "results"]):
        subprocess.run([*git, *arguments], check=True)
    assert "in git" not in CliRunner().invoke(typer_app, ["summary"]).output
    metrics.write_text(json.dumps({"loss": 0.1, "f1_micro": 0.75}))
    shown = CliRunner().invoke(typer_app, ["summary"]).output
    assert "f1_micro  0.7500   (in git: 0.7123)" in shown
    assert "loss      0.1000\n" in shown
    assert "git restore dvc.lock reports" in shown


def test_a_mistake_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["phototag", "summary"])
    with pytest.raises(SystemExit, match="error: there is no evaluation here yet"):
        app()
    assert "Traceback" not in capsys.readouterr().err


def import_photos(to: str) -> str:
    """Import a photo, and return what was printed."""
    Path("in").mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save("in/im1.jpg")
    Path("in/cat.txt").write_text("1\n")
    shown = CliRunner().invoke(typer_app, ["import", "in", "--to", to])
    assert shown.exit_code == 0, shown.output
    return shown.output


def test_import_says_what_to_run_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(SHIPPED_PARAMS, "params.yaml")
    shown = import_photos("data/raw.zip")
    assert "recognised as numbered photos: 1, and 1 label file\n" in shown
    assert "1 photos in data/raw.zip: cat 1" in shown
    assert "dvc add data/raw.zip" in shown
    assert "params.yaml says `data.raw: data/raw.zip` now. Next, so that DVC and git" in shown
    assert shown.endswith("and `dvc repro`.\n")
    before, after = SHIPPED_PARAMS.read_text(), Path("params.yaml").read_text()
    assert after == before.replace("  raw: data/sample   ", "  raw: data/raw.zip  ", 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "params.yaml is missing: run from the repository's root; then write"),
        ("data: {raw: [", "params.yaml is not valid YAML: "),
        ("seed: 0\n", "params.yaml: data.raw is missing; then write"),
    ],
)
def test_import_tells_the_key_that_it_cannot_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("params.yaml").write_text(content)
    shown = import_photos("data/raw.zip")
    assert message in shown
    assert "; then write `data.raw: data/raw.zip` into it. Next, so that" in shown
    assert (Path("params.yaml").read_text() if content is not None else None) == content


def test_import_says_what_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for value, name in enumerate("ab"):
        Image.new("L", (4, 4), value).save(f"{name}.png")
    Path("list.csv").write_text("file,cat,dog\na.png,1,\nb.png,?,1\n")
    shown = CliRunner().invoke(typer_app, ["import", "list.csv", "--as", "one-hot"]).output
    assert "recognised as one-hot CSV: 2 rows\n" in shown
    assert "\nnot known: cat 1, dog 1\n" in shown


@pytest.mark.parametrize("to", ["data/my photos.zip", "it's: #1 [x]/$raw.zip", "raw", "../raw.zip"])
def test_what_to_run_next_may_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    shutil.copy(SHIPPED_PARAMS, "params.yaml")
    steps = [shlex.split(line) for line in import_photos(to).splitlines() if line.startswith("  ")]
    raw = read_all_params(Path("params.yaml")).data.raw
    if to.startswith(".."):  # DVC refuses to keep it, and in a copy `..` is elsewhere
        assert raw == str(tmp_path / "raw.zip")
        assert steps == []
    else:
        assert raw == to
        files = [f"{to}.dvc", str(Path(to).with_name(".gitignore"))]
        assert steps == [
            ["dvc", "add", to],
            ["git", "add", *files],
            ["git", "commit", "-m", "Add photos", *files],
        ]


@pytest.mark.slow
def test_pasted_steps_bring_photos_into_an_experiments_copy(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    (tmp_path / "a b").mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (40, 48, 48, 3), np.uint8)
    for number, pixels in enumerate(colours):
        Image.fromarray(pixels).save(tmp_path / f"a b/im{number}.jpg")
    (tmp_path / "a b/cat.txt").write_text("".join(f"{n}\n" for n in range(0, 40, 2)))
    told = project("phototag", "import", "../a b", "--to", "own/of me/raw.zip")
    steps = "\n".join(line for line in told.splitlines() if line.startswith("  "))
    project("bash", "-e", "-c", steps)
    # Only as far as the photos go.
    project("dvc", "repro", "resize")
    project("dvc", "exp", "run", "--temp", "-S", "resize.min_side=40", "resize")
    assert not project("git", "status", "--porcelain", "--", "own")


@pytest.mark.slow
def test_a_clone_with_windows_line_ends_has_dvcs_bytes(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    name = tmp_path / "clone"
    project("git", "-c", "core.autocrlf=true", "clone", "-q", ".", str(name))
    for path in project("git", "ls-files", "-z").split("\0")[:-1]:
        assert (name / path).read_bytes() == (project.folder / path).read_bytes(), path


@pytest.mark.parametrize("command", ["ui", "demo"])
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_in_use_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as server:
        server.bind((address, 0))
        server.listen()
        port = server.getsockname()[1]
        shown = CliRunner().invoke(typer_app, [command, "--port", str(port)])
    assert isinstance(shown.exception, InputError)
    assert str(shown.exception).startswith(f"port {port} cannot be used")
    assert "--port" in str(shown.exception)
    assert list(tmp_path.iterdir()) == []  # not even a store was made


@pytest.mark.parametrize("command", [["history"], ["sync"], ["promote", "1"], ["rollback"], ["ui"]])
def test_commands_tell_in_one_sentence_that_the_store_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], port: int
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://a@127.0.0.1:{port}/none")
    if command == ["ui"]:
        command = ["ui", "--port", str(port)]
    shown = CliRunner().invoke(typer_app, command)
    assert isinstance(shown.exception, InputError), shown.exception
    assert "MLflow cannot be reached" in str(shown.exception)
