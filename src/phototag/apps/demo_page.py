"""The page of `phototag demo`, which Streamlit runs: drop a photo, see what the model sees."""

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
from phototag.serving.tagger import Tagger, load_tagger, tag_photos

WIDTH = 220  # of a picture on the page, pixels


def main() -> None:
    """Draw the page; Streamlit calls this again at every change."""
    st.set_page_config(page_title="phototag", layout="wide")
    st.title("phototag")
    model, thresholds = (Path(argument) for argument in sys.argv[1:3])
    try:
        tagger = _load(model, thresholds)
    except InputError as error:
        st.error(escape_streamlit(str(error)))
        return
    if tagger.origin:
        (st.warning if tagger.is_synthetic else st.caption)(escape_streamlit(tagger.origin))
    file = st.file_uploader("Drop a photo here; it stays on this machine.")
    if file is None:
        return
    (tags,) = tag_photos(tagger, [file.getvalue()])
    if tags.pixels is None:
        st.error(escape_streamlit(f"{show_name(file.name)}: {tags.error}"))
        return
    st.subheader(escape_streamlit(", ".join(tags.labels)) or "no label")
    left, right = st.columns(2)
    ranked = sorted(tags.scores, key=lambda label: -tags.scores[label])
    with left:
        for label in ranked:
            threshold = float(tagger.thresholds[tagger.labels.index(label)])
            mark = "**yes**" if label in tags.labels else "no"
            score = f"{tags.scores[label]:.2f} (threshold {threshold:.2f})"
            text = f"{escape_streamlit(label)}: {score}, {mark}"
            st.progress(tags.scores[label], text=text)
    with right:
        shown = st.selectbox("Where did it see", ranked)
        seen = _draw_heat(tagger, tags.pixels, tagger.labels.index(shown))
        if seen is None:
            st.image(tags.pixels, caption="what the network saw", width=WIDTH)
            st.caption("No heat map: this network's attention mixes the places of a photo.")
        else:
            captions = ["what the network saw", escape_streamlit(shown)]
            st.image([tags.pixels, seen], caption=captions, width=WIDTH)


@st.cache_resource  # type: ignore[untyped-decorator]
def _load(model: Path, thresholds: Path) -> Tagger:
    return load_tagger(model, thresholds)


def _draw_heat(tagger: Tagger, pixels: np.ndarray, label: int) -> np.ndarray | None:
    image = torch.tensor(pixels).permute(2, 0, 1)[None]
    maps = locate_labels(tagger.network, image, torch.tensor([label]))
    return None if maps is None else overlay_heat(pixels, maps[0])


if __name__ == "__main__":
    main()
