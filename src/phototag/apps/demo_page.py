"""Streamlit page of `phototag demo`: labels, scores and a heat map of an uploaded photo."""

import sys
from pathlib import Path

import numpy as np
import streamlit as st
import torch

from phototag.apps.formats import show_name
from phototag.base.errors import InputError
from phototag.evaluation.galleries import overlay_heat
from phototag.evaluation.gradcam import locate_labels
from phototag.pages.escaping import escape_streamlit
from phototag.serving.limits import UNLIKE, is_unfamiliar
from phototag.serving.tagger import Tagger, load_tagger, tag_photos

# Remove the space that Streamlit reserves for its menu bar, which this page hides.
STYLE = "<style>.stMainBlockContainer { padding: 1rem 1rem 2rem }</style>"


def main() -> None:
    """Draw the page. Streamlit calls this function again after each user interaction."""
    st.set_page_config(page_title="phototag", layout="wide")
    st.html(STYLE)
    st.title("phototag")
    model, thresholds = (Path(argument) for argument in sys.argv[1:3])
    try:
        tagger = _load(model, thresholds)
    except InputError as error:
        st.error(escape_streamlit(str(error)))
        return
    if tagger.origin:
        (st.warning if tagger.is_synthetic else st.caption)(escape_streamlit(tagger.origin))
    file = st.file_uploader("Drop a photo here. The photo stays on this machine.")
    if file is None:
        return
    (tags,) = tag_photos(tagger, [file.getvalue()])
    if tags.pixels is None:
        st.error(escape_streamlit(f"{show_name(file.name)}: {tags.error}"))
        return
    st.subheader(escape_streamlit(", ".join(tags.labels)) or "No score reaches its threshold")
    if tags.familiarity is not None:
        text = f"Familiarity: {tags.familiarity:.1f} of 100"
        if is_unfamiliar(tags.familiarity):
            st.warning(f"{text}. This photo is {UNLIKE}, so that the labels may be wrong.")
        else:
            st.caption(text)
    left, right = st.columns(2)
    ranked = sorted(tags.scores, key=lambda label: -tags.scores[label])
    with left:
        label = st.selectbox("Heat map for label", ranked)
        heat = _draw_heat(tagger, tags.pixels, tagger.labels.index(label))
        if heat is None:
            st.image(tags.pixels, caption="Photo as passed to the network", width="stretch")
            st.caption("No heat map: this network has no spatial feature maps.")
        else:  # in a single image, both stay side by side on narrow screens
            both = np.concatenate([tags.pixels, heat], axis=1)
            caption = f"Photo as passed to the network, and heat map for {escape_streamlit(label)}"
            st.image(both, caption=caption, width="stretch")
    with right:
        for label in ranked:
            score, threshold = tags.scores[label], tagger.thresholds[tagger.labels.index(label)]
            mark = "**yes**" if label in tags.labels else "no"
            shown = "the model abstains" if threshold > 1 else f"threshold {threshold:.2f}"
            text = f"{escape_streamlit(label)}: {score:.2f} ({shown}), {mark}"
            st.progress(score, text=text)


@st.cache_resource  # type: ignore[untyped-decorator]
def _load(model: Path, thresholds: Path) -> Tagger:
    return load_tagger(model, thresholds)


def _draw_heat(tagger: Tagger, pixels: np.ndarray, label: int) -> np.ndarray | None:
    image = torch.tensor(pixels).permute(2, 0, 1)[None]
    maps = locate_labels(tagger.network, image, [(0, label)])
    return None if maps is None else overlay_heat(pixels, maps[0])


if __name__ == "__main__":
    main()
