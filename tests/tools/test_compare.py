"""The report about a change, and the scripts with which CI posts it."""

import json
import os
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image
from sklearn.metrics import f1_score

from phototag.base.errors import InputError
from phototag.experiments.dvc_tools import WORKSPACE, list_experiments
from tests.projects import ROOT, Project
from tools.compare import Comparison, compare, describe_labels, main, summarize, write_report

EXECUTABLE = "#!/bin/sh\n"


@pytest.fixture
def change(trained: Project, experiments: dict[str, str]) -> str:
    """The revision of the experiment `slow-lr` in `trained`."""
    assert experiments["slow-lr"]
    return dict(list_experiments(trained.folder))["slow-lr"]


@pytest.mark.slow
def test_report_shows_what_an_experiment_changed(
    trained: Project, change: str, tmp_path: Path
) -> None:
    text = write_report(trained.folder, "HEAD", change, tmp_path)
    assert text == (tmp_path / "report.md").read_text()
    assert "| params.yaml | lr      | 0.0005 | 1e-05" in text.replace("HEAD  ", "HEAD")
    assert "| reports/evaluate/metrics.json | loss" in text
    for name in ("labels", "pr_curve"):
        assert f"]({name}.png)" in text
        assert Image.open(tmp_path / f"{name}.png").size[0] > 400
    # Equal inputs give equal bytes.
    assert write_report(trained.folder, "HEAD", change, tmp_path / "again") == text
    for name in ("labels.png", "pr_curve.png"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.slow
def test_scores_are_those_of_the_same_photos(trained: Project, change: str, tmp_path: Path) -> None:
    found = compare(trained.folder, "HEAD", change)
    for revision, column in (("HEAD", "base"), (change, "change")):
        copy = tmp_path / f"{column}.csv"
        path = "reports/evaluate/predictions.csv"
        trained("dvc", "get", "-q", ".", path, "--rev", revision, "-o", str(copy))
        table = pd.read_csv(copy).query("split == 'test'")
        wide = [table.pivot(index="image", columns="label")[v] for v in ("target", "predicted")]
        assert found.photos == f"{len(wide[0])} test photos and 3 labels"
        scores = found.scores.set_index("metric")[column]
        for average in ("micro", "macro"):
            expected = f1_score(*wide, average=average, zero_division=0)
            assert scores[f"f1_{average}"] == pytest.approx(expected)
        own = found.labels.set_index("label")[column]
        assert own[wide[0].columns].to_numpy() == pytest.approx(
            f1_score(*wide, average=None, zero_division=0)
        )


@pytest.mark.slow
def test_clone_without_the_results_still_compares_the_metrics(
    results: Project, tmp_path: Path
) -> None:
    clone = results.clone(tmp_path / "clone")
    metrics = clone.folder / "reports/evaluate/metrics.json"
    values = json.loads(metrics.read_text())
    metrics.write_text(json.dumps(values | {"loss": values["loss"] + 1}))
    text = write_report(clone.folder, "HEAD", WORKSPACE, tmp_path / "report")
    assert "predictions.csv is missing at HEAD: run `dvc repro` there, or `dvc pull" in text
    assert re.search(r"\| loss +\| \d\.\d+ +\| \d\.\d+ +\| 1.0 +\|", text)
    assert "Params (`dvc params diff`)\n\nNo change." in text
    assert ".png" not in text


def make_comparison(difference: float, half: float) -> Comparison:
    row = {"change": 0.5 + difference, "base": 0.5, "difference": difference}
    row |= {"low": difference - half, "high": difference + half}
    scores = pd.DataFrame([{"metric": "f1_micro", **row}])
    labels = pd.DataFrame([{"label": name, "positives": 9, **row} for name in ("a|b", "c")])
    return Comparison("30 test photos", scores, labels)


@pytest.mark.parametrize(
    ("difference", "half", "expected"),
    [
        (0.1, 0.05, "the change is **better**"),
        (-0.1, 0.05, "the change is **worse**"),
        (0.1, 0.2, "the change is **not clearly different**"),
        (0.1, float("nan"), "too few groups for an interval"),
    ],
)
def test_summary_names_the_outcome(difference: float, half: float, expected: str) -> None:
    assert expected in summarize(make_comparison(difference, half))


def test_labels_are_escaped_and_rare_ones_omitted() -> None:
    labels = make_comparison(0.1, 0.05).labels
    labels.loc[1, "positives"] = 4
    text = describe_labels(labels)
    assert "| a&#124;b | 9 | 0.500 | 0.600 | +0.1000 (+0.0500 to +0.1500) |" in text
    assert "| c |" not in text
    assert "did not change for any label" in describe_labels(labels.assign(difference=0.0))


def test_unknown_revision_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with pytest.raises(InputError, match="git has no revision mian: pass another one as BASE"):
        main("mian")


class Sandbox:
    """A git repository with .ci/, a bare remote, and substitutes for programs that CI runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder / "repository", folder / "programs"
        for place in (self.folder / ".ci", self.programs, self.folder / ".venv/bin"):
            place.mkdir(parents=True)
        subprocess.run(["git", "init", "-q", "--bare", folder / "remote.git"], check=True)
        for name in ("compare", "comment"):
            (self.folder / ".ci" / name).write_text((ROOT / ".ci" / name).read_text())
            (self.folder / ".ci" / name).chmod(0o755)
        self.git("init", "-q", "-b", "main")
        self.git("remote", "add", "origin", str(folder / "remote.git"))

    def git(self, *arguments: str, folder: Path | None = None) -> str:
        names = ("-c", "user.name=t", "-c", "user.email=t@t")
        command = ["git", "-C", str(folder or self.folder), *names, *arguments]
        return subprocess.check_output(command, text=True).strip()

    def program(self, path: Path, script: str) -> None:
        path.write_text(EXECUTABLE + script)
        path.chmod(0o755)

    def run(self, *command: str) -> None:
        environment = os.environ | {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "GITHUB_SERVER_URL": "https://git.example.org",
            "GITHUB_REPOSITORY": "team/photos",
        }
        subprocess.run(command, cwd=self.folder, env=environment, check=True)


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def test_ci_compares_results_of_one_machine(sandbox: Sandbox) -> None:
    """The base is the common ancestor, and both revisions run, although git has their results."""
    for name, content in (("params", "base"), ("results", "of another machine")):
        (sandbox.folder / name).write_text(content)
    (sandbox.folder / ".gitignore").write_text(".venv\nruns\n")
    sandbox.git("add", "-A")
    sandbox.git("commit", "-qm", "base")
    sandbox.git("switch", "-qc", "change")
    (sandbox.folder / "params").write_text("change")
    # The script is replaced while it runs.
    script = sandbox.folder / ".ci/compare"
    script.write_text(script.read_text().replace("set -euo", "# Another line.\nset -euo"))
    sandbox.git("commit", "-qam", "change")
    sandbox.git("switch", "-q", "main")
    (sandbox.folder / "params").write_text("later")
    sandbox.git("commit", "-qam", "a later commit of the base")
    sandbox.git("switch", "-q", "change")
    sandbox.program(
        sandbox.programs / "make",
        'echo "$1 $(cat params)" >>runs\n[ "$1" = setup-dev ] || cp params results\n',
    )
    sandbox.program(sandbox.folder / ".venv/bin/dvc", "exit 0\n")
    sandbox.program(sandbox.folder / ".venv/bin/python", 'shift 2; echo "$@" >>runs\n')
    sandbox.run(".ci/compare", "main")
    *runs, revisions = (sandbox.folder / "runs").read_text().splitlines()
    assert runs == ["setup-dev base", "repro base", "setup-dev change", "repro change"]
    compared = [sandbox.git("show", f"{each}:results") for each in revisions.split()]
    assert compared == ["base", "change"]


def test_comment_shows_the_pushed_figures_and_is_replaced(sandbox: Sandbox) -> None:
    output = sandbox.folder / "build/compare"
    output.mkdir(parents=True)
    sandbox.program(sandbox.programs / "gh", 'printf "%s\\n" "$*" >>../../calls\n')
    texts = []
    for content in (b"first", b"second"):
        (output / "labels.png").write_bytes(content)
        (output / "report.md").write_text("# Results\n\n![labels](labels.png) [a](b.html)\n")
        sandbox.run(".ci/comment", "12")
        texts.append((output / "comment.md").read_text())
        remote = output.parents[2] / "remote.git"
        commit = sandbox.git("rev-parse", "refs/figures/pull-12", folder=remote)
        address = f"https://git.example.org/team/photos/raw/{commit}/labels.png"
        assert texts[-1] == f"# Results\n\n![labels]({address}) [a](b.html)\n"
        assert sandbox.git("show", f"{commit}:labels.png") == content.decode()
    assert texts[0] != texts[1]
    (output / "labels.png").unlink()
    (output / "report.md").write_text("The labels cannot be compared.\n")
    sandbox.run(".ci/comment", "12")
    assert (output / "comment.md").read_text() == "The labels cannot be compared.\n"
    expected = "pr comment 12 --edit-last --create-if-none --body-file comment.md"
    assert (sandbox.folder / "calls").read_text().splitlines() == [expected] * 3


def test_workflow_is_valid() -> None:
    """Checks of the file only; GitHub does not run it here."""
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    workflow = yaml.load(text, yaml.BaseLoader)  # "on" would become true
    assert workflow["on"] == ["push", "pull_request"]
    for name, job in workflow["jobs"].items():
        assert int(job["timeout-minutes"]) <= 120, name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            command = step.get("run", "")
            # Values of a pull request, such as the name of a branch, are no part of a command.
            assert "${{" not in command
            for word in command.split():
                if word.startswith(".ci/"):
                    assert os.access(ROOT / word, os.X_OK)
                elif word.startswith('"$') and "GITHUB_" not in word:
                    assert word.strip('"$') in job["env"]
    job = workflow["jobs"]["compare"]
    assert job["if"] == "github.event_name == 'pull_request'"
    assert job["permissions"] == {"contents": "write", "pull-requests": "write"}
    assert job["steps"][0]["with"]["fetch-depth"] == "0"
    assert "fork" not in job["steps"][-1]["run"]
    assert "head.repo.full_name == github.repository" in job["steps"][-1]["if"]
