import json
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from phototag.base.errors import InputError
from phototag.base.keys import apply_overrides
from phototag.cli import app, typer_app
from phototag.cli.models import MODEL, THRESHOLDS
from phototag.schema.params import read_all_params
from tests.conftest import SHIPPED_PARAMS
from tests.forks import run_forked
from tests.models import make_model
from tests.projects import Project, make_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the shipped params.yaml."""
    shutil.copy(SHIPPED_PARAMS, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "import .",
        "recipe",
        "summary",
        "curve",
        "review",
        "tune",
        "sync",
        "predict a.jpg",
        "demo",
        "export a.onnx",
        "ui",
        "history",
        "promote 1",
        "rollback",
    ],
)
def test_commands_outside_a_project_say_so_and_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(typer_app, command.split())
    assert isinstance(shown.exception, InputError)
    assert "is not inside a phototag project" in str(shown.exception)
    assert not list(tmp_path.iterdir())


def test_default_files_are_those_of_the_project(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(project / "made")
    names = ("models/model.safetensors", "reports/evaluate/thresholds.json")
    for made, name in zip(model, names, strict=True):
        (project / name).parent.mkdir(parents=True)
        made.rename(project / name)
    (project / "photos").mkdir()
    Image.new("RGB", (30, 20), (200, 0, 0)).save(project / "photos/a.png")
    monkeypatch.chdir(project / "photos")
    shown = CliRunner().invoke(typer_app, ["predict", "a.png"])
    assert shown.stdout == "a.png  blue 1.00\n"


def test_removed_command_names_its_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["phototag", "experiments", "l2"])
    with pytest.raises(SystemExit, match=r"was removed: run `python -m benchmarks\.claims run`"):
        app()


def test_summary_shows_scores_report_and_next_commands(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Importing MLflow would take seconds.
    monkeypatch.setitem(sys.modules, "phototag.tracking.store", None)
    (project / "reports/evaluate").mkdir(parents=True)
    (project / "reports/evaluate/metrics.json").write_text(
        json.dumps({"f1_micro": 0.71234, "known": 72})
    )
    decision = {"name": "phototag", "version": 3, "champion": False, "reason": "micro F1 too low"}
    decision["time"] = "2026-01-02 03:04:05.678901"
    (project / "reports/register").mkdir()
    (project / "reports/register/decision.json").write_text(json.dumps(decision))
    report = project / "reports/evaluate/report.html"
    report.write_text("")
    shown = CliRunner().invoke(typer_app, ["summary"])
    assert shown.exit_code == 0
    assert "  f1_micro  0.7123\n\nScores on 72 known entries (pairs of a photo and" in shown.output
    assert "version 3, challenger (micro F1 too low)" in shown.output
    assert f"Report:     {report}\n" in shown.output
    assert "`phototag history` shows the current champion" in shown.output
    assert "make ui" in shown.output
    scores = "predictor,metric,value\n" + "".join(
        f"{name},{metric},{value}\n"
        for name, value in (("model", 0.25), ("model at best F1", 0.5))
        for metric in ("recall_micro", "precision_micro")
    )
    (report.parent / "scores.csv").write_text(scores)
    labels = "label,support,f1,target,abstains\nNA,4,,precision 0.9,1\ncat,5,0.5,f1,0\n"
    (report.parent / "per_label.csv").write_text(labels)
    output = CliRunner().invoke(typer_app, ["summary"]).output
    assert "Too few positives to judge (fewer than 5): NA (4)\n" in output
    assert "0 of 1 labels reach their target; these abstain: NA." in output
    assert "recall is 0.25 instead of 0.50 and precision is 0.25" in output
    (report.parent / "scores.csv").write_text(scores.replace("0.25", "0"))
    output = CliRunner().invoke(typer_app, ["summary"]).output
    assert "recall is 0.00 instead of 0.50 (micro averages)" in output
    report.unlink()
    shown = CliRunner().invoke(typer_app, ["summary"])
    assert "report.html\n\n" not in shown.output
    assert shown.output.endswith(
        "The report is not in this clone: run `dvc pull` if the project has a DVC remote, or "
        "`dvc repro`.\n"
    )


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, ["dvc exp run -S lr=0.00025", "phototag import SOURCE", "make ui"]),
        (
            {"optimizer": "lbfgs", "data.raw": "data/raw", "recipe": "pretrained"},
            ["phototag recipe pretrained-best", "phototag review", "make ui"],
        ),
        (
            {"optimizer": "lbfgs", "recipe": "pretrained-best"},
            ["phototag recipe finetuned", "phototag import SOURCE", "make ui"],
        ),
        ({"optimizer": "lbfgs", "recipe": "hub-large"}, ["phototag import SOURCE", "make ui"]),
    ],
)
def test_summary_suggests_what_fits_the_recipe_and_the_photos(
    project: Path, params: dict[str, object], expected: list[str]
) -> None:
    values = apply_overrides(yaml.safe_load((project / "params.yaml").read_text()), params)
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    (project / "reports/evaluate").mkdir(parents=True)
    (project / "reports/evaluate/metrics.json").write_text('{"f1_micro": 0.5}')
    (project / "reports/evaluate/report.html").write_text("")
    lines = CliRunner().invoke(typer_app, ["summary"]).output.splitlines()
    suggested = lines[lines.index("Next:") + 1 :]
    assert [line.split("  # ")[0].strip() for line in suggested] == expected


def test_summary_compares_with_a_commit_of_the_same_photos_only(project: Path) -> None:
    def write(manifest: str, score: float) -> None:
        files = {"data/manifest.csv": manifest, "data/splits.csv": "0"}
        deps = [{"path": path, "md5": md5} for path, md5 in files.items()]
        lock = {"stages": {"evaluate": {"deps": deps}}}
        (project / "dvc.lock").write_text(yaml.safe_dump(lock))
        (project / "reports/evaluate/metrics.json").write_text(f'{{"f1_micro": {score}}}')

    def suggests() -> bool:
        return "dvc metrics diff" in CliRunner().invoke(typer_app, ["summary"]).output

    (project / "reports/evaluate").mkdir(parents=True)
    (project / "reports/evaluate/report.html").write_text("")
    write("1", 0.5)
    assert not suggests()  # there is no commit
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "results"]):
        subprocess.run(["git", *command], check=True)
    assert not suggests()  # the scores are equal
    write("1", 0.6)
    assert suggests()
    write("2", 0.6)
    assert not suggests()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("evaluate/metrics.json", "[1]"),
        ("evaluate/metrics.json", ""),
        ("evaluate/metrics.json", "{\n<<<<<<< HEAD\n"),
        ("register/decision.json", "{\n<<<<<<< HEAD\n"),
    ],
)
def test_summary_of_damaged_results_names_the_file(project: Path, name: str, text: str) -> None:
    for folder in ("evaluate", "register"):
        (project / "reports" / folder).mkdir(parents=True)
    (project / "reports/evaluate/metrics.json").write_text("{}")
    (project / "reports" / name).write_text(text)
    shown = CliRunner().invoke(typer_app, ["summary"])
    assert isinstance(shown.exception, InputError)
    assert f"{name} " in str(shown.exception)


def test_error_is_one_line_without_traceback(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["phototag", "summary"])
    with pytest.raises(SystemExit, match=r"error: .*metrics\.json is missing: run `dvc repro`"):
        app()
    assert "Traceback" not in capsys.readouterr().err

    for error, reason in (
        (PermissionError(13, "Permission denied", "out.csv"), "permission denied"),
        (IsADirectoryError(21, "Is a directory", "out.csv"), "is a directory"),
    ):

        def refuse(error: OSError = error) -> None:
            raise error

        monkeypatch.setattr("phototag.cli.typer_app", refuse)
        with pytest.raises(SystemExit, match=rf"error: out\.csv: {reason}: "):
            app()


def import_photos(to: str) -> str:
    """Import a photo, and return what was printed."""
    for folder in ("in/images", "in/annotations"):
        Path(folder).mkdir(parents=True)
    Image.new("RGB", (4, 4)).save("in/images/im1.jpg")
    Path("in/annotations/cat.txt").write_text("1\n")
    shown = CliRunner().invoke(typer_app, ["import", "in", "--to", to])
    assert shown.exit_code == 0, shown.output
    return shown.output


def test_import_prints_the_next_commands(project: Path) -> None:
    shown = import_photos("data/raw.zip")
    assert "recognised as numbered photos: 1, label files: 1\n" in shown
    assert "1 photos in data/raw.zip: cat 1" in shown
    assert "dvc add data/raw.zip" in shown
    assert "Set data.raw in params.yaml to data/raw.zip.\nRun these commands" in shown
    assert shown.endswith("and run `dvc repro`.\n")
    before, after = SHIPPED_PARAMS.read_text(), Path("params.yaml").read_text()
    assert after == before.replace("  raw: data/sample   ", "  raw: data/raw.zip  ", 1)


def test_import_counts_unknown_labels(project: Path) -> None:
    for value, name in enumerate("ab"):
        Image.new("L", (4, 4), value).save(f"{name}.png")
    Path("list.csv").write_text("file,cat,dog\na.png,1,\nb.png,?,1\n")
    shown = CliRunner().invoke(typer_app, ["import", "list.csv", "--as", "one-hot"]).output
    assert "recognised as one-hot CSV: 2 rows\n" in shown
    assert "\nphotos with unknown labels: cat 1, dog 1\n" in shown


@pytest.mark.parametrize("to", ["data/my photos.zip", "it's: #1 [x]/$raw.zip", "raw", "../raw.zip"])
def test_printed_commands_are_quoted_for_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    shutil.copy(SHIPPED_PARAMS, "params.yaml")
    steps = [shlex.split(line) for line in import_photos(to).splitlines() if line.startswith("  ")]
    raw = read_all_params(Path("params.yaml")).data.raw
    if to.startswith(".."):  # DVC tracks only files inside the project
        assert raw == str(tmp_path / "raw.zip")
        assert steps == []
    else:
        assert raw == to
        files = [f"{to}.dvc", str(Path(to).with_name(".gitignore"))]
        assert steps == [
            ["dvc", "add", to],
            ["git", "add", *files],
            ["git", "commit", "-m", "Add photos", *files, "params.yaml"],
        ]


def run_steps(project: Project, printed: str) -> dict[str, int]:
    """Run the printed commands, and return the size of each file that DVC's cache did not have."""
    cache = project.folder / ".dvc/cache/files"
    before = set(cache.rglob("*"))
    steps = "\n".join(line for line in printed.splitlines() if line.startswith("  "))
    project("bash", "-e", "-c", steps)
    added = [path for path in set(cache.rglob("*")) - before if path.is_file()]
    return {path.suffix: path.stat().st_size for path in added}


@pytest.mark.slow
def test_printed_commands_make_photos_available_to_experiments(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    for folder in ("images", "annotations"):
        (tmp_path / "a b" / folder).mkdir(parents=True)
    colours = np.random.default_rng(0).integers(0, 256, (40, 48, 48, 3), np.uint8)
    for number, pixels in enumerate(colours):
        Image.fromarray(pixels).save(tmp_path / f"a b/images/im{number}.jpg")
    (tmp_path / "a b/annotations/cat.txt").write_text("".join(f"{n}\n" for n in range(0, 40, 2)))
    printed = project("phototag", "import", "../a b", "--to", "own/of me/raw.zip")
    raw = project.folder / "own/of me/raw"
    assert run_steps(project, printed) == {"": raw.with_suffix(".zip").stat().st_size}
    # The other stages would take long.
    project("dvc", "repro", "resize")
    project("dvc", "exp", "run", "--temp", "-S", "resize.min_side=40", "resize")
    assert not project("git", "status", "--porcelain", "--", "own")

    # The printed commands convert the zip to a folder of imports, and add the photos.
    for number, label in enumerate(("cat", "dog")):
        (tmp_path / "new" / label).mkdir(parents=True)
        Image.fromarray(255 - colours[number]).save(tmp_path / f"new/{label}/IMG_1.png")
    new = ["import", "../new", "--add"]
    code, _, message = run_forked(new, folder=project.folder, variables=project.environment)
    assert code == 1
    convert, add = (text.replace("SOURCE", "../new") for text in message.decode().split("`")[1::2])
    run_steps(project, project("bash", "-e", "-c", convert))
    printed = project("bash", "-e", "-c", add)
    assert "2 new, 0 already known, 0 without labels; the dataset now has 42\n" in printed
    sizes = run_steps(project, printed)
    assert sizes.pop(".dir") < 500  # DVC's list of the files in the folder
    assert sizes == {"": (raw / "002-new.zip").stat().st_size}
    assert [path.name for path in sorted(raw.iterdir())] == ["001-raw.zip", "002-new.zip"]
    assert not project("git", "status", "--porcelain", "--", "own")


@pytest.mark.slow
def test_clone_with_autocrlf_has_the_same_bytes(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    name = tmp_path / "clone"
    project("git", "-c", "core.autocrlf=true", "clone", "-q", ".", str(name))
    for path in project("git", "ls-files", "-z").split("\0")[:-1]:
        assert (name / path).read_bytes() == (project.folder / path).read_bytes(), path


@pytest.mark.parametrize("command", ["ui", "demo"])
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_port_in_use_is_refused_at_once(project: Path, command: str, address: str) -> None:
    for file in (MODEL, THRESHOLDS):
        (project / file).parent.mkdir(parents=True)
        (project / file).touch()
    before = sorted(project.iterdir())
    with socket.socket() as server:
        server.bind((address, 0))
        server.listen()
        port = server.getsockname()[1]
        shown = CliRunner().invoke(typer_app, [command, "--port", str(port)])
    assert isinstance(shown.exception, InputError)
    assert str(shown.exception).startswith(f"port {port} cannot be used")
    assert "--port" in str(shown.exception)
    assert sorted(project.iterdir()) == before  # no store was created


@pytest.mark.parametrize("command", [["history"], ["sync"], ["promote", "1"], ["rollback"], ["ui"]])
def test_commands_report_a_store_that_cannot_be_reached(
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
    assert "MLflow at postgresql://" in str(shown.exception)


def test_mistakes_in_options_and_params_are_reported_without_importing_pytorch(
    tmp_path: Path,
) -> None:
    params = SHIPPED_PARAMS.read_text(encoding="utf-8").replace("\nepochs:", "\nepoch:")
    (tmp_path / "params.yaml").write_text(params, encoding="utf-8")
    mistakes = {
        "predict a.jpg": "model.safetensors is missing: run `dvc repro`",
        "demo --thresholds b": "model.safetensors is missing: run `dvc repro`",
        "export --model m.onnx": "Missing argument",
        "export params.yaml": "already exists",
        "review": "\nerror: models/model.safetensors is missing: run `dvc repro`\n",
        "review --effect HEAD~9": "not a git repository",
    }
    script = "import sys; from phototag.cli import app\n"
    script += "for sys.argv in [['', *line.split()] for line in sys.stdin]:\n"
    script += "    try: app()\n"
    script += "    except SystemExit as end: print(end, file=sys.stderr)\n"
    script += "assert not {'torch', 'sklearn', 'mlflow'} & sys.modules.keys()\n"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        input="\n".join(mistakes),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [message for message in mistakes.values() if message not in done.stderr] == []
