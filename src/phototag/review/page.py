"""Streamlit page of `phototag review`, which shows questions about labels and stores the answers.

Streamlit runs this script again after each key press. It sends the elements of a page one by one,
and the browser loads their photos later, so that a question would be shown with the previous photo
for a moment. This page is therefore a single element: `templates/page.js` replaces the whole page
when its photos are decoded, and keys have no effect before that. Each key press contains the token
of the page on the screen, and a key press with the token of another page is ignored.
"""

import sys
from pathlib import Path

import streamlit as st

from phototag.apps.results import CORRECTIONS
from phototag.base.errors import InputError
from phototag.pages.escaping import escape_streamlit
from phototag.review.rendering import render_view
from phototag.review.results import Results
from phototag.review.session import ReviewSession
from phototag.review.view import View

GRID = 24  # number of photos on a page of `--grid`
TEMPLATES = Path(__file__).with_name("templates")
# Remove the space that Streamlit reserves for its menu bar, which this page hides.
STYLE = "<style>.stMainBlockContainer { padding: 1rem 1rem 2rem }</style>"


def main() -> None:
    """Draw the page. Streamlit calls this function again after each key or button press."""
    st.set_page_config(page_title="phototag review", layout="wide")
    st.html(STYLE)
    root, ranking, who, *options = sys.argv[1:]
    state = st.session_state
    try:
        event = state.pop("event", None)
        notes = [state["view"].handle(event)] if event and "view" in state else []
        results = _load(Path(root), ranking)
        notes.append(results.refresh())
        path, evidence, queue = Path(root, CORRECTIONS), results.evidence, results.queue
        session = ReviewSession(path, evidence, queue, ranking, who)
        if "view" not in state:
            state["view"] = View(GRID if "--grid" in options else 1, session)
        state["view"].update(session)
        _draw(state["view"], " ".join(filter(None, notes)))
    except InputError as error:
        st.error(escape_streamlit(str(error)))


@st.cache_resource(show_spinner="Reading photos, model and features ...")  # type: ignore[untyped-decorator]
def _load(root: Path, ranking: str) -> Results:
    return Results(root, ranking)


def _draw(view: View, note: str) -> None:
    html = render_view(view, note)
    component = st.components.v2.component(
        "phototag_review",
        html="<section></section>",
        css=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
        js=(TEMPLATES / "page.js").read_text(encoding="utf-8"),
    )
    component(key="page", data={"page": view.token, "html": html}, on_event_change=_receive)


def _receive() -> None:
    """Keep the key press for `main`, which shows an error message if an answer is not stored."""
    st.session_state["event"] = st.session_state["page"]["event"]


if __name__ == "__main__":
    main()
