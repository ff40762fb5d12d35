"""The review page without a browser."""

import hashlib
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from streamlit.testing.v1 import AppTest

from phototag.base.errors import InputError
from phototag.dataset.targets import UNKNOWN
from phototag.evaluation.targets import ABSTAIN
from phototag.review import page
from phototag.review.evidence import INPUTS, Evidence
from phototag.review.rankings import rank_errors
from phototag.review.rendering import render_view
from phototag.review.results import EDITED, INCOMPLETE, Results
from phototag.review.session import ReviewSession, append_answer
from phototag.review.view import View
from phototag.verification.corrections import Answer
from tests.models import LABELS
from tests.reviews import read_rows


def open_view(project: Path, evidence: Evidence, size: int = 3, who: str = "ann") -> View:
    path = project / "data/corrections.csv"
    session = ReviewSession(path, evidence, rank_errors(evidence), "errors", who)
    view = View(size, session)
    view.update(session)
    return view


def press(view: View, action: str, value: str = "", **marks: str) -> str:
    """Press a key of the page on the screen and draw the next page."""
    marks = {name.removeprefix("n"): mark for name, mark in marks.items()}
    if view.size > 1 and view.current is not None:
        marks = dict.fromkeys(map(str, view.pages[view.current]), "") | marks
    note = view.handle({"page": view.token, "action": action, "value": value, "marks": marks})
    view.update(view.session.reload())
    return note


def test_key_of_another_page_is_ignored(project: Path, evidence: Evidence) -> None:
    view = open_view(project, evidence, 1)
    event = {"page": view.token, "action": "yes", "marks": {}}
    view.handle(event)
    view.update(view.session.reload())
    view.handle(event)
    assert len(read_rows(project)) == 1
    assert view.current == 1


@pytest.mark.parametrize(("action", "other"), [("yes", "no"), ("no", "yes")])
def test_rest_of_a_grid_gets_the_key_and_marked_photos_another_answer(
    project: Path, evidence: Evidence, action: str, other: str
) -> None:
    view = open_view(project, evidence)
    shown = next(page_ for page_ in view.pages if len(page_) == 3)
    view.current = view.pages.index(shown)
    press(view, action, **{f"n{shown[1]}": "exception", f"n{shown[2]}": "unsure"})
    assert [row[2] for row in read_rows(project)] == [action, other, "unsure"]
    photos = [view.session.queue[n].photo for n in shown]
    assert [row[0] for row in read_rows(project)] == [evidence.photos.files[n] for n in photos]
    after = view.current
    assert press(view, "undo") == ""
    assert view.pages[view.current or 0] == shown
    assert after != view.current
    assert [row[5] for row in read_rows(project)] == ["errors"] * 3 + ["undo"] * 3
    assert press(view, "undo") == "There is no answer to undo."


def test_answers_of_others_stay_unless_the_photo_is_marked(
    project: Path, evidence: Evidence
) -> None:
    ann, bob = open_view(project, evidence), open_view(project, evidence, who="bob")
    shown = next(page_ for page_ in ann.pages if len(page_) == 3)
    ann.current = ann.pages.index(shown)
    bob.session.answer({bob.session.queue[n]: "unsure" for n in shown[:2]})
    ann.update(ann.session.reload())
    assert render_view(ann, "").count('data-answered="unsure, by bob"') == 2
    press(ann, "yes", **{f"n{shown[0]}": "exception"})
    states = [ann.session.state(ann.session.queue[n]) for n in shown]
    assert states == ["no", "unsure", "yes"]


def test_undone_answer_about_a_merged_label_is_named(project: Path, evidence: Evidence) -> None:
    view = open_view(project, evidence)
    row = (evidence.photos.files[0], evidence.photos.sha256[0], "pink", "yes", "no", "ann")
    append_answer(view.session.path, Answer(*row, "2025-01-01", "errors"))
    shown = view.current
    assert press(view, "undo") == "Undone, but not on this page: 1 about pink."
    assert view.current == shown


def test_chosen_label_limits_the_pages(project: Path, evidence: Evidence) -> None:
    view = open_view(project, evidence, 1)
    labels = [LABELS[question.label] for question in view.session.queue]
    html = render_view(view, "")
    for label in LABELS:
        assert f">{label} ({labels.count(label)} open)</option>" in " ".join(html.split())
    press(view, "select", "green")
    assert [labels[n] for [n] in view.pages] == ["green"] * labels.count("green")
    for _ in view.pages:
        press(view, "no")
    assert view.current is None
    assert "All questions about green are answered" in render_view(view, "")
    # The last answer is about green; the one before that is found without the filter.
    view.session.answer({view.session.queue[labels.index("blue")]: "yes"})
    press(view, "undo")
    assert not view.label
    assert view.current == labels.index("blue")


@pytest.mark.parametrize("size", [1, 3])
def test_names_are_escaped_and_paths_are_whole(
    project: Path, evidence: Evidence, size: int
) -> None:
    view = open_view(project, evidence, size)
    evidence.photos.labels[:] = ["<i>", 'a"<i>', "<i>c"]
    evidence.photos.files[view.session.queue[0].photo] = "dog/<i>holiday</i>_2207.jpg"
    html = render_view(view, "<u>")
    assert "<i>" not in html
    assert "<u>" not in html
    assert ">dog/&lt;i&gt;holiday&lt;/i&gt;_2207.jpg<" in html


@pytest.mark.parametrize(("given", "word"), [(1, "yes"), (0, "no"), (UNKNOWN, "unknown")])
def test_page_states_the_dataset_label_and_score_beside_the_threshold(
    project: Path, evidence: Evidence, given: int, word: str
) -> None:
    view = open_view(project, evidence, 1)
    question = view.session.queue[0]
    evidence.photos.targets[question.photo, question.label] = given
    evidence.thresholds[question.label] = 0.123
    score = evidence.probabilities[question.photo, question.label]
    text = " ".join(render_view(view, "").split())
    assert f"Dataset label: <b>{word}</b>. Model score: {score:.2f} (threshold 0.12)." in text
    evidence.thresholds[question.label] = ABSTAIN
    text = " ".join(render_view(view, "").split())
    assert f"Model score: {score:.2f} (the model abstains)." in text
    assert "2.00" not in text


def test_results_stay_while_files_are_missing(project: Path, tmp_path: Path) -> None:
    results = Results(project, "errors")
    evidence, queue = results.evidence, results.queue
    for name in INPUTS:
        shutil.move(project / name, tmp_path / "moved")
        assert results.refresh() == INCOMPLETE
        assert results.evidence is evidence
        render_view(open_view(project, evidence), "")  # the photos are still readable
        shutil.move(tmp_path / "moved", project / name)
        assert results.refresh() == ""
    # A model that `evaluate` has not evaluated yet is not used.
    thresholds = project / "reports/evaluate/thresholds.json"
    written = thresholds.read_text()
    thresholds.write_text(written.replace('"key"', '"old"'))
    assert results.refresh() == INCOMPLETE
    thresholds.write_text(written)
    assert results.refresh() == ""
    assert results.evidence is not evidence
    assert results.queue == queue
    with pytest.raises(InputError, match="is missing"):
        Results(tmp_path, "errors")


def test_edits_since_the_last_repro_are_noted(project: Path) -> None:
    edits, lock = project / "data/labels.yaml", project / "dvc.lock"
    edits.write_text("")
    deps = [{"path": "data/labels.yaml", "md5": hashlib.md5(b"").hexdigest()}]
    lock.write_text(yaml.safe_dump({"stages": {"resize": {"deps": deps}}}))
    results = Results(project, "errors")
    assert results.refresh() == ""
    edits.write_text("rename: {blue: azure}\n")
    assert results.refresh() == EDITED
    lock.unlink()  # the labels of an unknown `dvc repro`
    assert Results(project, "errors").refresh() == ""


def test_page_shows_why_an_answer_cannot_be_stored(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["page", str(project), "errors", "ann"])
    shown = AppTest.from_file(str(page.__file__), default_timeout=60).run()
    answer(shown)
    assert [row[2] for row in read_rows(project)] == ["yes"]
    (project / "data/corrections.csv").write_text("<<<<<<< HEAD\n")
    answer(shown)
    assert not shown.exception
    assert "corrections.csv holds merge conflict markers" in shown.error[0].value


def answer(shown: AppTest) -> None:
    token = shown.session_state["view"].token
    shown.session_state["event"] = {"page": token, "action": "yes", "marks": {}}
    shown.run()


def test_results_stay_between_two_stages(project: Path) -> None:
    """All files exist, but some are older than their inputs."""
    hashes = {
        name: hashlib.md5((project / name).read_bytes()).hexdigest()
        for name in ("data/manifest.csv", "data/splits.csv")
    }
    results = Results(project, "errors")
    evidence = results.evidence
    for written, used, note in [
        (hashes, hashes | {"data/manifest.csv": "before"}, INCOMPLETE),  # `split` follows
        (dict.fromkeys(hashes, "before"), dict.fromkeys(hashes, "before"), INCOMPLETE),
        (hashes, hashes, ""),
    ]:
        kinds = {"resize": ("outs", written), "evaluate": ("deps", used)}
        stages = {
            stage: {kind: [{"path": path, "md5": md5} for path, md5 in files.items()]}
            for stage, (kind, files) in kinds.items()
        }
        (project / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}))
        assert results.refresh() == note
        assert (results.evidence is evidence) == bool(note)
