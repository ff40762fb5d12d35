"""The page of `phototag review`, which Streamlit runs: a photo, a question, one key an answer."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import streamlit as st
import torch

from phototag.base.errors import InputError
from phototag.dataset.dataset import read_batch
from phototag.evaluation.galleries import overlay_heat
from phototag.evaluation.gradcam import locate_labels
from phototag.network.inference import pick_device
from phototag.pages.escaping import escape_streamlit
from phototag.review.answers import Sheet
from phototag.review.evidence import READ, Evidence, read_evidence
from phototag.review.rankings import RANKINGS, Question

NEIGHBOURS = 6
SCORES = 6  # labels whose scores are shown, and the one that is asked about
SMALL, GAP = 104, 4  # of a neighbour, and between photo and heat map, pixels
# Streamlit leaves room for a menu that this page does not have: on a phone, a sixth of it.
STYLE = "<style>.stMainBlockContainer { padding-top: 2.5rem }</style>"
ASKED = {
    "errors": "likely label errors",
    "next": "photos worth labelling next",
    "duplicates": "duplicates whose labels differ",
}


def main() -> None:
    """Draw the page; Streamlit calls this again at every key."""
    st.set_page_config(page_title="phototag review", layout="wide")
    st.html(STYLE)
    path, ranking, who = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    try:
        state = tuple((path / name).stat().st_mtime_ns for name in READ if (path / name).exists())
        evidence, questions = _load(path, ranking, state)
        sheet = Sheet(path / "data/corrections.csv", evidence, questions, ranking, who)
        _ask(sheet)
    except InputError as error:
        st.error(escape_streamlit(str(error)))


@st.cache_resource(show_spinner="Reading photos, model and features ...", max_entries=1)  # type: ignore[untyped-decorator]
def _load(path: Path, ranking: str, state: tuple[int, ...]) -> tuple[Evidence, list[Question]]:
    """Rank the questions once; `state`, the files' times, asks again after a `dvc repro`."""
    evidence = read_evidence(path)
    return evidence, RANKINGS[ranking](evidence)


def _ask(sheet: Sheet) -> None:
    open_, total = sheet.list_open(), len(sheet.questions)
    st.progress(
        (total - len(open_)) / max(total, 1),
        text=f"{total - len(open_)} of {total} judged: {ASKED[sheet.ranking]}",
    )
    at = st.session_state.get("at")
    if at is None or at >= total:
        at = next(iter(open_), None)
    st.session_state["at"] = at
    if at is None:
        st.success(
            "Nothing is left to judge. `dvc repro` trains on the answers, and then "
            "`phototag review --effect HEAD` tells what they changed."
            if total
            else f"There are no {ASKED[sheet.ranking]}."
        )
        _draw_keys(sheet, None)
        return
    question = sheet.questions[at]
    left, right = st.columns([3, 2])
    with left:
        _draw_question(sheet, question)
        _draw_keys(sheet, at)
        _draw_photo(sheet.evidence, question)
    with right:
        _draw_scores(sheet.evidence, question)
        _draw_others(sheet, question)


def _draw_question(sheet: Sheet, question: Question) -> None:
    photos = sheet.evidence.photos
    label = escape_streamlit(photos.labels[question.label])
    given, answer = photos.targets[question.photo, question.label], sheet.find_answer(question)
    st.subheader(f"Does this photo show **{label}**?")
    said = {1: "The labels say yes", 0: "The labels say no", -1: "The labels do not know"}
    probability = sheet.evidence.probabilities[question.photo, question.label]
    told = f"{said[int(given)]}, the model gives it {probability:.2f}."
    answered = f" Answered: {answer.answer}, by {escape_streamlit(answer.who)}." if answer else ""
    file = escape_streamlit(photos.files[question.photo].rpartition("/")[2])
    st.caption(f"{told}{answered} ({file})")


def _draw_keys(sheet: Sheet, at: int | None) -> None:
    if at is not None:
        with st.container(horizontal=True, gap="small"):
            for name in ("Yes", "No", "Unsure"):
                _draw_key(name, at, _answer, (sheet, at, name.lower()), primary=True)
    with st.container(horizontal=True, gap="small"):
        if at is not None:
            _draw_key("Back", at, _move, (at - 1,), disabled=at == 0)
            _draw_key("Skip", at, _move, (at + 1,), disabled=at + 1 >= len(sheet.questions))
        _draw_key("Undo", at, _undo, (sheet,), key="Z")


def _draw_key(
    name: str,
    at: int | None,
    action: Callable[..., None],
    arguments: tuple[object, ...],
    primary: bool = False,
    disabled: bool = False,
    key: str = "",
) -> None:
    # A button of its own for each question: what is pressed twice must not answer the next one.
    st.button(
        name,
        key=f"{name} {at}",
        on_click=action,
        args=arguments,
        type="primary" if primary else "secondary",
        disabled=disabled,
        shortcut=key or name[0],
    )


def _answer(sheet: Sheet, at: int, answer: str) -> None:
    if st.session_state["at"] != at:
        return  # pressed while the next question was on its way
    sheet.answer(sheet.questions[at], answer)
    # Anew: meanwhile another page may have answered the next ones.
    still_open = replace(sheet).list_open()
    st.session_state["at"] = next((position for position in still_open if position > at), None)


def _move(at: int) -> None:
    st.session_state["at"] = at


def _undo(sheet: Sheet) -> None:
    taken = sheet.undo()
    if taken is None:
        st.toast("There is nothing to take back.")
    elif taken in sheet.questions:
        st.session_state["at"] = sheet.questions.index(taken)


def _draw_photo(evidence: Evidence, question: Question) -> None:
    images, _ = read_batch(evidence.photos, np.array([question.photo]), pick_device())
    heat = locate_labels(evidence.network, images, torch.tensor([question.label]))
    pixels = evidence.photos.images[question.photo]
    if heat is None:
        st.image(pixels, width="stretch")
        return
    # One picture, so that both stay side by side on a phone.
    gap = np.full((len(pixels), GAP, 3), 255, np.uint8)
    both = np.concatenate([pixels, gap, overlay_heat(pixels, heat[0])], axis=1)
    st.image(both, width="stretch", caption="the photo, and where the model looks for the label")


def _draw_scores(evidence: Evidence, question: Question) -> None:
    scores, thresholds = evidence.probabilities[question.photo], evidence.thresholds
    given = evidence.photos.targets[question.photo]
    lines = ["| label | score | threshold | labels say |", "|---|---|---|---|"]
    highest = np.argsort(-scores, kind="stable")[:SCORES].tolist()
    for label in dict.fromkeys([*highest, question.label]):
        name = escape_streamlit(evidence.photos.labels[label])
        name = f"**{name}**" if scores[label] >= thresholds[label] else name
        said = {1: "yes", 0: "no", -1: "?"}[int(given[label])]
        lines.append(f"| {name} | {scores[label]:.2f} | {thresholds[label]:.2f} | {said} |")
    st.markdown("\n".join(lines))


def _draw_others(sheet: Sheet, question: Question) -> None:
    evidence = sheet.evidence
    copies = sheet.ranking == "duplicates"
    others = evidence.find_copies(question.photo)[:NEIGHBOURS] if copies else []
    others = others or evidence.find_neighbours(question.photo, NEIGHBOURS)
    label = escape_streamlit(evidence.photos.labels[question.label])
    st.caption(
        f"{'Its copies' if copies else 'Photos most like it'}, and whether they show {label}"
    )
    states = [sheet.state(Question(other, question.label)) for other in others]
    captions = ["not known" if state == "unsure" else state for state in states]
    with st.container(horizontal=True, gap="small"):
        for other, caption in zip(others, captions, strict=True):
            st.image(evidence.photos.images[other], caption=caption, width=SMALL)


if __name__ == "__main__":
    main()
