import hashlib
import re
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
from phototag.review.effects import describe_effect
from phototag.review.session import append_answer
from phototag.verification.corrections import Answer
from tests.reviews import make_review

BEFORE = {"loss": 0.2, "f1_micro": 0.755, "f1_macro": 0.62, "mAP": 0.7}
AFTER = {"loss": 0.2, "f1_micro": 0.7611, "f1_macro": 0.6151, "mAP": 0.7}
NO_INTERVALS = (
    " (no intervals: reports/evaluate/predictions.csv of HEAD is neither in git nor in DVC's "
    "cache)."
)
SCORES = (
    "\nScores: micro F1 0.755 -> 0.761 (+0.006), macro F1 0.620 -> 0.615 (-0.005), mAP 0.700 -> "
    "0.700 (+0.000)" + NO_INTERVALS
)


@pytest.fixture
def project(tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project whose git history has scores and an answer."""
    folder = make_review(tmp_path / "project", packed)
    write_json(folder / "reports/evaluate/metrics.json", BEFORE)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test")
    append_answer(folder / "data/corrections.csv", make(folder, 3))
    (folder / "data/raw.zip").write_text("photos")
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


def lock(folder: Path, lr: float = 0.1) -> None:
    """Write the dvc.lock that `dvc repro` would write."""
    raw, answers = ({"path": f"data/{name}"} for name in ("raw.zip", "corrections.csv"))
    for file in (raw, answers):
        file["md5"] = hashlib.md5((folder / file["path"]).read_bytes()).hexdigest()
    manifest = {"path": "data/manifest.csv", "md5": answers["md5"]}
    stages = {
        "resize": {"deps": [raw, answers], "outs": [dict(manifest)]},
        "train": {"deps": [manifest], "params": {"params.yaml": {"lr": lr}}},
        "evaluate": {"deps": [manifest]},
    }
    (folder / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}))


def train(folder: Path) -> None:
    lock(folder)
    write_json(folder / "reports/evaluate/metrics.json", AFTER)


def answer(folder: Path, *answers: Answer) -> None:
    for each in answers:
        append_answer(folder / "data/corrections.csv", each)
    train(folder)


def test_effect_counts_labels_and_compares_scores(project: Path) -> None:
    # Rows 0, 2 and 4 of five are in train. The second answer equals the label.
    answer(project, make(project, 0), make(project, 2, "no"), make(project, 4, "unsure"))
    counts = "Labels changed since HEAD: 2 (1 to yes, 0 to no, 1 to unsure)."
    assert describe(project, "HEAD") == counts + SCORES
    # `split.test` was set to 0.
    on_val = {f"final_val_{name}": value for name, value in AFTER.items()}
    write_json(project / "reports/evaluate/metrics.json", on_val)
    assert describe(project, "HEAD").endswith(
        "\nScores: on another split than before, so not comparable" + NO_INTERVALS
    )


def test_undone_answers_do_not_count(project: Path) -> None:
    back = replace(make(project, 0, "no", "yes"), ranking="undo")
    # The last row undoes the answer in HEAD.
    committed = replace(make(project, 3, "no", "yes"), ranking="undo")
    answer(project, make(project, 0), back, make(project, 2), committed)
    counts = "Labels changed since HEAD: 2 (1 to yes, 1 to no, 0 to unsure)."
    assert describe(project, "HEAD") == counts + SCORES


def test_answers_not_used_in_training_are_refused(project: Path) -> None:
    train(project)
    append_answer(project / "data/corrections.csv", make(project, 0))
    with pytest.raises(InputError, match="not trained with the latest labels: run `dvc repro`"):
        describe(project, "HEAD")
    train(project)
    describe(project, "HEAD")
    # The manifest differs if only `dvc repro resize` has run.
    written = yaml.safe_load((project / "dvc.lock").read_text())
    written["stages"]["resize"]["outs"][0] |= {"md5": "new"}
    (project / "dvc.lock").write_text(yaml.safe_dump(written))
    with pytest.raises(InputError, match="not trained with the latest labels"):
        describe(project, "HEAD")


def test_other_changed_inputs_are_named(project: Path) -> None:
    (project / "data/raw.zip").write_text("other photos")
    train(project)
    lock(project, lr=0.2)
    assert describe(project, "HEAD").endswith(
        f"(+0.000){NO_INTERVALS}\nThese inputs changed too and may explain the difference: "
        "data/raw.zip, lr."
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dvc.lock", "<<<<<<< HEAD\n", r"dvc\.lock holds merge conflict markers"),
        ("dvc.lock", None, "not trained with the latest labels: run `dvc repro`"),
        ("data/corrections.csv", "<<<<<<< HEAD\n", r"corrections\.csv holds merge conflict"),
        ("reports/evaluate/metrics.json", '{"f1', r"metrics\.json is not valid JSON"),
        ("reports/evaluate/metrics.json", '{"mAP": null}', r"metrics\.json should contain only"),
        ("reports/evaluate/metrics.json", None, r"metrics\.json is missing: run `dvc repro`"),
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
        describe(project, "HEAD")


def test_unknown_revision_is_refused(project: Path) -> None:
    train(project)
    for revision in ("other", "--help", "HEAD~1"):
        with pytest.raises(
            InputError, match=rf"{revision} is not a commit with reports/.*: pass another"
        ):
            describe(project, revision)


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
    train(project)
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
