import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from phototag.base.errors import InputError
from phototag.base.files import write_json
from phototag.dataset.manifest import read_kept
from phototag.review.corrections_file import append_answer
from phototag.review.effects import describe_effect
from phototag.verification.corrections import Answer
from tests.reviews import make_review

BEFORE = {"loss": 0.2, "f1_micro": 0.755, "f1_macro": 0.62, "mAP": 0.7}
AFTER = {"loss": 0.2, "f1_micro": 0.7611, "f1_macro": 0.6151, "mAP": 0.7}
SCORES = (
    "micro F1 0.755 -> 0.761 (+0.006), macro F1 0.620 -> 0.615 (-0.005), mAP 0.700 -> 0.700 "
    "(+0.000)."
)


@pytest.fixture
def project(tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With scores and answers of before in git."""
    folder = make_review(tmp_path / "project", packed)
    write_json(folder / "reports/evaluate/metrics.json", BEFORE)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test")
    append_answer(folder / "data/corrections.csv", make(folder, 3))
    lock(folder, "s")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "before"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    return folder


def make(folder: Path, row: int, answer: str = "yes", old: str = "no") -> Answer:
    sha256 = read_kept(folder / "data/manifest.csv")["sha256"][row]
    return Answer("im.jpg", sha256, "blue", answer, old, "ann", "2025-01-01", "errors")


def lock(folder: Path, splits: str) -> None:
    """Leave the dvc.lock that `dvc repro` would."""
    md5 = hashlib.md5((folder / "data/corrections.csv").read_bytes()).hexdigest()
    answers, manifest = ({"path": f"data/{name}.csv"} for name in ("corrections", "manifest"))
    resize = {"deps": [answers | {"md5": md5}], "outs": [manifest | {"md5": "m"}]}
    split = {"outs": [{"path": "data/splits.csv", "md5": splits}]}
    stages = {"resize": resize, "split": split, "evaluate": {"deps": [manifest | {"md5": "m"}]}}
    (folder / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}))


def train(folder: Path) -> None:
    lock(folder, "s")
    write_json(folder / "reports/evaluate/metrics.json", AFTER)


def answer(folder: Path, *answers: Answer) -> None:
    for each in answers:
        append_answer(folder / "data/corrections.csv", each)
    train(folder)


def test_one_sentence_tells_entries_and_scores(project: Path) -> None:
    # Rows 0, 2 and 4 of five are train's; the second answer says what stood there.
    answer(project, make(project, 0), make(project, 2, "no"), make(project, 4, "unsure"))
    told = "3 answers since HEAD changed 2 entries (1 to yes, 0 to no, 1 to unsure): "
    assert describe_effect(project, "HEAD") == told + SCORES


def test_what_was_taken_back_counts_for_nothing(project: Path) -> None:
    back = replace(make(project, 0, "no", "yes"), ranking="undo")
    answer(project, make(project, 0), back, make(project, 2))
    told = "1 answer since HEAD changed 1 entry (1 to yes, 0 to no, 0 to unsure): "
    assert describe_effect(project, "HEAD") == told + SCORES


def test_changed_labels_of_judged_photos_are_told(project: Path) -> None:
    answer(project, make(project, 8, "unsure"), make(project, 2))
    told = describe_effect(project, "HEAD")
    assert told.endswith(
        "1 of them is on judged photos: a part of the difference is the labels', not the model's."
    )


def test_another_split_is_told(project: Path) -> None:
    answer(project, make(project, 2))
    lock(project, "other")
    assert describe_effect(project, "HEAD").endswith(
        "(+0.000). The split is another too: photos changed sides, as labels balance it."
    )


def test_without_new_answers_there_is_nothing_to_tell(project: Path) -> None:
    train(project)
    assert describe_effect(project, "HEAD") == "There are no answers since HEAD."


def test_answers_that_were_not_trained_on_are_told(project: Path) -> None:
    train(project)
    append_answer(project / "data/corrections.csv", make(project, 0))
    with pytest.raises(InputError, match="not in the model yet: run `dvc repro` first"):
        describe_effect(project, "HEAD")
    train(project)
    describe_effect(project, "HEAD")
    # Or `dvc repro resize` alone has run.
    written = project / "dvc.lock"
    written.write_text(written.read_text().replace("md5: m\n", "md5: n\n", 1))
    with pytest.raises(InputError, match="not in the model yet"):
        describe_effect(project, "HEAD")


def test_no_such_revision_is_told(project: Path) -> None:
    train(project)
    with pytest.raises(InputError, match=r"git has no reports/evaluate/metrics\.json of other"):
        describe_effect(project, "other")
