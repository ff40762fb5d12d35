"""Streamlit page of `phototag review`, which shows one question about one photo at a time."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import streamlit as st
import torch

from phototag.base.errors import InputError
from phototag.dataset.dataset import read_batch
from phototag.dataset.targets import UNKNOWN
from phototag.evaluation.galleries import overlay_heat
from phototag.evaluation.gradcam import locate_labels
from phototag.network.inference import pick_device
from phototag.pages.escaping import escape_streamlit
from phototag.review.evidence import INPUTS, Evidence, read_evidence
from phototag.review.rankings import RANKINGS, Question
from phototag.review.session import ReviewSession
from phototag.verification.corrections import ANSWERS

NUM_SIMILAR = 6
NUM_SCORES = 6  # number of labels in the table of scores
SMALL = 104  # width of a similar photo, in pixels
# Remove the space that Streamlit reserves for its menu bar, which this page hides.
STYLE = "<style>.stMainBlockContainer { padding-top: 2.5rem }</style>"
STATES = {1: "yes", 0: "no", UNKNOWN: "unknown"}
KEYS = {"Yes": "Y", "No": "N", "Unsure": "U", "Back": "B", "Skip": "S", "Undo": "Z"}


def main() -> None:
    """Draw the page. Streamlit calls this function again after each key or button press."""
    st.set_page_config(page_title="phototag review", layout="wide")
    st.html(STYLE)
    root, ranking, who = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    try:
        times = tuple((root / name).stat().st_mtime_ns for name in INPUTS if (root / name).exists())
        evidence, queue = _load(root, ranking, times)
        st.session_state.pop("action", bool)()
        _draw(ReviewSession(root / "data/corrections.csv", evidence, queue, ranking, who))
    except InputError as error:
        st.error(escape_streamlit(str(error)))


@st.cache_resource(show_spinner="Reading photos, model and features ...", max_entries=1)  # type: ignore[untyped-decorator]
def _load(root: Path, ranking: str, times: tuple[int, ...]) -> tuple[Evidence, list[Question]]:
    """Return the evidence and the questions; cache them until a modification time changes."""
    evidence = read_evidence(root)
    return evidence, RANKINGS[ranking](evidence)


def _draw(session: ReviewSession) -> None:
    open_, total = session.list_open(), len(session.queue)
    answered = total - len(open_)
    st.progress(answered / max(total, 1), f"{answered} of {total} answered ({session.ranking})")
    position = st.session_state.get("position")
    if position is None or position >= total:
        position = next(iter(open_), None)
    st.session_state["position"] = position
    if position is None:
        done = "All questions are answered. Run `dvc repro` to train with the answers."
        st.success(done if total else "There are no questions in this ranking.")
        _draw_buttons(None, {"Undo": partial(_undo, session)})
        return
    question = session.queue[position]
    left, right = st.columns([3, 2])
    with left:
        _draw_question(session, question)
        answers = {name.title(): partial(_answer, session, position, name) for name in ANSWERS}
        _draw_buttons(position, answers)
        move = st.session_state.update
        moves = {
            "Back": partial(move, position=position - 1) if position > 0 else None,
            "Skip": partial(move, position=position + 1) if position + 1 < total else None,
            "Undo": partial(_undo, session),
        }
        _draw_buttons(position, moves)
        _draw_photo(session.evidence, question)
    with right:
        _draw_scores(session.evidence, question)
        _draw_similar(session, question)


def _draw_question(session: ReviewSession, question: Question) -> None:
    evidence, answer = session.evidence, session.find_answer(question)
    label = escape_streamlit(evidence.photos.labels[question.label])
    file = escape_streamlit(evidence.photos.files[question.photo].rpartition("/")[2])
    given = STATES[int(evidence.photos.targets[question.photo, question.label])]
    score = evidence.probabilities[question.photo, question.label]
    answered = f" Answer: {answer.answer}, by {escape_streamlit(answer.who)}." if answer else ""
    st.subheader(f"Does this photo show **{label}**?")
    st.caption(f"Dataset label: {given}. Model score: {score:.2f}.{answered} File: {file}")


def _draw_buttons(position: int | None, actions: Mapping[str, Callable[[], None] | None]) -> None:
    """Draw buttons side by side; a button whose action is None is disabled."""
    with st.container(horizontal=True, gap="small"):
        for name, action in actions.items():
            st.button(
                name,
                # The key contains the position: a double click cannot answer two questions.
                key=f"{name} {position}",
                on_click=partial(st.session_state.update, action=action),
                type="primary" if name.lower() in ANSWERS else "secondary",
                disabled=action is None,
                shortcut=KEYS[name],
            )


def _answer(session: ReviewSession, position: int, answer: str) -> None:
    if st.session_state["position"] != position:
        return  # the button belongs to a question that was already answered
    session.answer(session.queue[position], answer)
    open_ = session.reload().list_open()  # another browser tab may have stored answers
    st.session_state["position"] = next((later for later in open_ if later > position), None)


def _undo(session: ReviewSession) -> None:
    question = session.undo()
    if question is None:
        st.toast("There is no answer to undo.")
    elif question in session.queue:
        st.session_state["position"] = session.queue.index(question)


def _draw_photo(evidence: Evidence, question: Question) -> None:
    images, _ = read_batch(evidence.photos, np.array([question.photo]), pick_device())
    heat = locate_labels(evidence.network, images, torch.tensor([question.label]))
    pixels = evidence.photos.images[question.photo]
    caption = ""
    if heat is not None:  # in a single image, both stay side by side on narrow screens
        pixels = np.concatenate([pixels, overlay_heat(pixels, heat[0])], axis=1)
        caption = "Photo and Grad-CAM heat map of the label"
    st.image(pixels, width="stretch", caption=caption)


def _draw_scores(evidence: Evidence, question: Question) -> None:
    scores, thresholds = evidence.probabilities[question.photo], evidence.thresholds
    targets = evidence.photos.targets[question.photo]
    lines = ["| label | score | threshold | dataset label |", "|---|---|---|---|"]
    for label in np.argsort(-scores, kind="stable")[:NUM_SCORES].tolist():
        name = escape_streamlit(evidence.photos.labels[label])
        name = f"**{name}**" if scores[label] >= thresholds[label] else name
        given = STATES[int(targets[label])]
        lines.append(f"| {name} | {scores[label]:.2f} | {thresholds[label]:.2f} | {given} |")
    st.markdown("\n".join(lines))


def _draw_similar(session: ReviewSession, question: Question) -> None:
    evidence = session.evidence
    label = escape_streamlit(evidence.photos.labels[question.label])
    st.caption(f"Similar photos, and whether each one has the label {label}")
    with st.container(horizontal=True, gap="small"):
        for photo in evidence.find_similar(question.photo, NUM_SIMILAR):
            state = session.state(Question(photo, question.label))
            caption = state.replace("unsure", "unknown")
            st.image(evidence.photos.images[photo], caption=caption, width=SMALL)


if __name__ == "__main__":
    main()
