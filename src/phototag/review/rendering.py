"""HTML of the review page."""

from collections import Counter
from typing import Any

import numpy as np
from PIL import Image

from phototag.dataset.dataset import read_batch
from phototag.dataset.targets import UNKNOWN
from phototag.evaluation.galleries import overlay_heat
from phototag.evaluation.gradcam import locate_labels
from phototag.network.inference import pick_device
from phototag.pages.html import jpeg_uri, render_html
from phototag.review.rankings import Question
from phototag.review.session import ReviewSession
from phototag.review.view import View

NUM_SIMILAR = 6
NUM_SCORES = 6  # number of labels in the table of scores
STATES = {1: "yes", 0: "no", UNKNOWN: "unknown"}


def render_view(view: View, note: str) -> str:
    """Return the HTML of the page that a view shows, below a note for the reviewer."""
    session = view.session
    evidence, queue = session.evidence, session.queue
    open_ = Counter(evidence.photos.labels[queue[n].label] for n in session.list_open())
    asked = Counter(evidence.photos.labels[question.label] for question in queue)
    done = "There are no questions in this ranking."
    if queue and view.label and open_:
        done = f"All questions about {view.label} are answered."
    elif queue:
        done = "All questions are answered. Run `dvc repro` to train with the answers."
    values = {
        "answered": len(queue) - open_.total(),
        "total": len(queue),
        "ranking": session.ranking,
        "open": sorted(((name, open_[name]) for name in asked), key=lambda item: -item[1]),
        "chosen": view.label,
        "message": note,
        "done": done,
        "photos": [],
        "grid": view.size > 1,
    }
    if view.current is not None:
        values |= _describe_page(session, view.pages[view.current], view.size > 1)
        values |= {"first": view.current == 0, "last": view.current + 1 == len(view.pages)}
    return render_html("phototag.review", "page.html.j2", **values)


def _describe_page(session: ReviewSession, page: list[int], grid: bool) -> dict[str, Any]:
    """Return the values of the template that describe the photos of a page."""
    evidence, photos = session.evidence, session.evidence.photos
    question = session.queue[page[0]]
    shown = []
    for position in page:
        photo = session.queue[position].photo
        answer = session.find_answer(session.queue[position])
        shown.append(
            {
                "number": position,
                "file": photos.files[photo],
                "uri": jpeg_uri(Image.fromarray(photos.images[photo])),
                "score": evidence.probabilities[photo, question.label],
                "answer": f"{answer.answer}, by {answer.who}" if answer else "",
            }
        )
    values = {
        "label": photos.labels[question.label],
        "given": STATES[int(photos.targets[question.photo, question.label])],
        "threshold": evidence.thresholds[question.label],
        "photos": shown,
    }
    return values if grid else values | _describe_photo(session, question, shown[0])


def _describe_photo(
    session: ReviewSession, question: Question, shown: dict[str, Any]
) -> dict[str, Any]:
    """Return the scores and similar photos of a photo, and add the heat map to its image."""
    evidence, photos, row = session.evidence, session.evidence.photos, question.photo
    images, _ = read_batch(photos, np.array([row]), pick_device())
    heat = locate_labels(evidence.network, images, [(0, question.label)])
    if heat is not None:  # in a single image, both stay side by side on narrow screens
        pixels = photos.images[row]
        both = np.concatenate([pixels, overlay_heat(pixels, heat[0])], axis=1)
        shown["uri"] = jpeg_uri(Image.fromarray(both))
    order = np.argsort(-evidence.probabilities[row], kind="stable").tolist()
    listed = order[:NUM_SCORES]
    if question.label not in listed:
        listed[-1] = question.label
    return {
        "heat": heat is not None,
        "scores": [
            {
                "label": photos.labels[label],
                "score": evidence.probabilities[row, label],
                "threshold": evidence.thresholds[label],
                "given": STATES[int(photos.targets[row, label])],
            }
            for label in listed
        ],
        "similar": [
            {
                "file": photos.files[photo],
                "uri": jpeg_uri(Image.fromarray(photos.images[photo])),
                "state": session.state(Question(photo, question.label)).replace(
                    "unsure", "unknown"
                ),
            }
            for photo in evidence.find_similar(row, NUM_SIMILAR)
        ],
    }
