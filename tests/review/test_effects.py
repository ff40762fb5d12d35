import hashlib
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import f1_score

from phototag.base.errors import InputError
from phototag.base.files import write_json
from phototag.dataset.manifest import read_kept
from phototag.registry.predictions import PREDICTIONS
from phototag.review.effects import describe_effect
from phototag.review.session import append_answer
from phototag.verification.corrections import Answer
from tests.reviews import make_review


@pytest.fixture
def project(tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project whose git history has scores and an answer."""
    folder = make_review(tmp_path / "project", packed)
    evaluate(folder, ["blue", "grass"])
    (folder / "data/labels.yaml").write_text("")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test")
    append_answer(folder / "data/corrections.csv", make(folder, 3))
    add_photos(folder, "photos")
    lock(folder)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "before"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    return folder


def describe(folder: Path, revision: str = "HEAD") -> str:
    """Describe the effect; all files of the revision are in git."""

    def read(name: str) -> bytes | None:
        command = ["git", "-C", str(folder), "show", f"{revision}:{name}"]
        done = subprocess.run(command, capture_output=True, check=False)
        return None if done.returncode else done.stdout

    return describe_effect(folder, revision, read)


def make(folder: Path, row: int, answer: str = "yes", old: str = "no") -> Answer:
    sha256 = read_kept(folder / "data/manifest.csv")["sha256"][row]
    return Answer("im.jpg", sha256, "blue", answer, old, "ann", "2025-01-01", "errors")


def add_photos(folder: Path, content: str) -> None:
    """Write the .dvc file that `dvc add` would write."""
    outs = [{"path": "raw.zip", "md5": hashlib.md5(content.encode()).hexdigest()}]
    (folder / "data/raw.zip.dvc").write_text(yaml.safe_dump({"outs": outs}))


def lock(folder: Path, lr: float = 0.1) -> None:
    """Write the dvc.lock that `dvc repro` would write."""
    raw = yaml.safe_load((folder / "data/raw.zip.dvc").read_text())["outs"][0]
    deps = [raw | {"path": "data/raw.zip"}]
    for path in ("data/corrections.csv", "data/labels.yaml"):
        md5 = hashlib.md5((folder / path).read_bytes()).hexdigest()
        deps.append({"path": path, "md5": md5})
    manifest = {"path": "data/manifest.csv", "md5": deps[1]["md5"]}
    stages = {
        "resize": {"deps": deps, "outs": [dict(manifest)]},
        "train": {"deps": [manifest], "params": {"params.yaml": {"lr": lr}}},
        "evaluate": {"deps": [manifest]},
    }
    (folder / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}))


def answer(folder: Path, *answers: Answer) -> None:
    for each in answers:
        append_answer(folder / "data/corrections.csv", each)
    lock(folder)


def test_effect_counts_labels(project: Path) -> None:
    # Rows 0, 2 and 4 of five are in train. The second answer equals the label.
    answer(project, make(project, 0), make(project, 2, "no"), make(project, 4, "unsure"))
    counts = "Labels changed since HEAD: 2 (1 to yes, 0 to no, 1 to unsure)."
    assert describe(project).split("\n")[0] == counts


def test_undone_answers_do_not_count(project: Path) -> None:
    back = replace(make(project, 0, "no", "yes"), ranking="undo")
    # The last row undoes the answer in HEAD.
    committed = replace(make(project, 3, "no", "yes"), ranking="undo")
    answer(project, make(project, 0), back, make(project, 2), committed)
    counts = "Labels changed since HEAD: 2 (1 to yes, 1 to no, 0 to unsure)."
    assert describe(project).split("\n")[0] == counts


@pytest.mark.parametrize("changed", ["answers", "labels", "photos", "path", "manifest"])
def test_data_not_used_in_training_is_refused(project: Path, changed: str) -> None:
    describe(project)
    if changed == "answers":
        append_answer(project / "data/corrections.csv", make(project, 0))
    elif changed == "labels":
        (project / "data/labels.yaml").write_text("drop: [grass]\n")
    elif changed == "photos":
        add_photos(project, "other photos")
    elif changed == "path":
        params = project / "params.yaml"
        params.write_text(params.read_text().replace("raw: data/raw.zip", "raw: data/new/"))
        shutil.copy(project / "data/raw.zip.dvc", project / "data/new.dvc")
    else:  # The manifest differs if only `dvc repro resize` has run.
        written = yaml.safe_load((project / "dvc.lock").read_text())
        written["stages"]["resize"]["outs"][0] |= {"md5": "new"}
        (project / "dvc.lock").write_text(yaml.safe_dump(written))
    with pytest.raises(InputError, match="not trained with the latest photos, labels and answers"):
        describe(project)


def test_other_changed_inputs_are_named(project: Path) -> None:
    add_photos(project, "other photos")
    lock(project, lr=0.2)
    assert describe(project).endswith(
        "\nThese inputs changed too and may explain the difference: data/raw.zip, lr."
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dvc.lock", "<<<<<<< HEAD\n", r"dvc\.lock holds merge conflict markers"),
        ("dvc.lock", None, "not trained with the latest photos, labels and answers: run `dvc"),
        ("data/corrections.csv", "<<<<<<< HEAD\n", r"corrections\.csv holds merge conflict"),
        (PREDICTIONS, None, r"predictions\.csv is missing: run `dvc repro`"),
        (".git/HEAD", None, "not a git repository"),
    ],
)
def test_damaged_results_are_named(
    project: Path, name: str, text: str | None, message: str
) -> None:
    if text is None:
        (project / name).unlink()
    else:
        (project / name).write_text(text)
    with pytest.raises(InputError, match=message):
        describe(project)


def test_unknown_revision_is_refused(project: Path) -> None:
    for revision in ("other", "--help", "HEAD~1"):
        with pytest.raises(InputError, match=rf"{revision} is not a commit with dvc.lock: pass"):
            describe(project, revision)
    message = r"manifest\.csv of HEAD is neither in git nor in DVC's cache: pass another revision"
    with pytest.raises(InputError, match=message):
        describe_effect(project, "HEAD", lambda _: None)


def test_scores_are_compared_on_shared_photos_and_photos_are_counted(project: Path) -> None:
    """Photos are renamed and added, and labels are renamed, added and removed."""
    old = evaluate(project, ["blue", "grass"])
    write_json(project / "reports/resize/summary.json", {"renamed_labels": {"grass": "green"}})
    subprocess.run(["git", "-C", str(project), "add", "-A"], check=True)
    subprocess.run(["git", "-C", str(project), "commit", "-qm", "predictions"], check=True)
    manifest = pd.read_csv(project / "data/manifest.csv", keep_default_na=False)
    splits = pd.read_csv(project / "data/splits.csv")
    first = splits["image"] == splits["image"][0]  # removed; the next one moves to test
    manifest = manifest[manifest["file"] != splits["image"][0]]
    splits = splits[~first]
    splits.loc[1, "split"] = "test"
    extra = manifest.iloc[[0, 1]].assign(file=["b1.jpg", "b2.jpg"], sha256=["b1", "b2"])
    manifest = pd.concat([manifest, extra])
    splits = pd.concat([splits, pd.DataFrame({"image": ["b1.jpg", "b2.jpg"], "split": "test"})])
    for table, column in ((manifest, "file"), (splits, "image")):
        table[column] = "=" + table[column].str.replace("images/", "dog/")
    manifest.to_csv(project / "data/manifest.csv", index=False)
    splits.to_csv(project / "data/splits.csv", index=False)
    new = evaluate(project, ["green", "red"], seed=1)
    lock(project)
    old["label"] = old["label"].replace("grass", "green")
    shared = old.merge(new, on=["sha256", "label"], suffixes=("_old", "_new"))
    before, after = (
        f1_score(shared["target_new"], shared[f"predicted_{x}"]) for x in ("old", "new")
    )
    labels, photos, scores, *_ = describe(project).split("\n")
    assert labels.startswith("Labels changed since HEAD: 0 ")
    assert photos == (
        "Photos: 2 added, 1 removed, 1 moved to another split (train 24 -> 23, val 8 -> 7, "
        "test 8 -> 11)."
    )
    assert shared["sha256"].nunique() == 8
    assert scores.startswith("Scores on the 8 test photos and 1 labels that both evaluations share")
    assert f"micro F1 {before:.3f} -> {after:.3f} ({after - before:+.3f}, 95% interval " in scores
    low, high = map(float, re.search(r"interval (\S+) to (\S+)\), macro", scores).groups())  # type: ignore[union-attr]
    assert low < after - before < high


def evaluate(folder: Path, labels: list[str], seed: int = 0) -> pd.DataFrame:
    """Write predictions.csv and return it with the hash of each photo."""
    rng = np.random.default_rng(seed)
    splits = pd.read_csv(folder / "data/splits.csv")
    rows = splits[splits["split"] != "train"].merge(pd.DataFrame({"label": labels}), how="cross")
    rows["target"] = rng.integers(0, 2, len(rows))
    rows["probability"] = rng.random(len(rows)).round(3)
    rows["predicted"] = (rows["probability"] > 0.5).astype(int)
    escaped = rows.assign(image=rows["image"].str.replace("^=", "'=", regex=True))
    escaped.to_csv(folder / "reports/evaluate/predictions.csv", index=False)
    hashes = read_kept(folder / "data/manifest.csv").set_index("file")["sha256"]
    return rows[rows["split"] == "test"].assign(sha256=rows["image"].map(hashes))
