import base64
import re
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from phototag import evaluation
from phototag.dataset import Dataset
from phototag.report import summarize, write_report

HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "train_loss": [0.6, 0.5, 0.4],
        "val_loss": [0.6, 0.45, 0.5],
        "f1_micro": [0.1, 0.5, 0.6],
        "f1_macro": [0.1, 0.4, 0.5],
    }
)


def test_report_is_one_page_with_its_figures(datasets: dict[str, Dataset], tmp_path: Path) -> None:
    judged = datasets["test"]
    logits = np.random.default_rng(0).normal(size=judged.targets.shape)
    thresholds = np.full(3, 0.5)
    scores = evaluation.score(judged.targets, logits, thresholds)
    per_label = evaluation.tabulate_labels(judged.labels, judged.targets, logits, thresholds)
    page, figures = tmp_path / "report.html", tmp_path / "figures"
    write_report(page, figures, "test", scores, per_label, HISTORY, judged, logits)

    text = page.read_text()
    assert not re.search(r"""(src|href)=["']?https?:""", text)
    embedded = re.findall(r"data:image/png;base64,([^\"]+)", text)
    files = sorted(figures.glob("*.png"))
    assert sorted(base64.b64decode(data) for data in embedded) == sorted(
        file.read_bytes() for file in files
    )
    assert [file.stem for file in files] == ["f1", "loss", "per_label", "pr_curves"]
    assert all(min(Image.open(file).size) > 200 for file in files)
    assert f"{scores['f1_micro']:.3f}" in text


def test_summary_is_made_from_the_numbers(datasets: dict[str, Dataset]) -> None:
    judged = datasets["test"]
    per_label = pd.DataFrame(
        {"label": ["blue", "green", "red"], "support": [3, 0, 2], "f1": [0.9, 0.0, 0.2]}
    )
    scores = {"f1_micro": 0.5, "f1_macro": 0.4, "loss": 0.3, "f1_micro_at_0.5": 0.2}
    scores["f1_macro_at_0.5"] = 0.1
    score, loss, labels = summarize("test", scores, per_label, HISTORY, judged)
    assert "8 test photos" in score
    assert "0.500" in score
    assert "epoch 2 of 3" in loss
    assert labels == "It does best on blue, red and worst on red, blue."
