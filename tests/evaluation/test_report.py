import base64
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser
from torch import nn

from phototag.dataset.dataset import Dataset, read_datasets
from phototag.dataset.targets import UNKNOWN
from phototag.evaluation import charts, report
from phototag.evaluation.galleries import (
    Galleries,
    build_galleries,
    list_least_familiar,
    overlay_heat,
)
from phototag.evaluation.params import F1, EvaluateParams, Target
from phototag.evaluation.report import draw_figures, write_report
from phototag.evaluation.result import Evaluation, evaluate, headline
from phototag.metrics.losses import sigmoid
from phototag.network.model import build_model
from phototag.network.params import ModelParams
from tests.pages.layout import check_layout

HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "train_loss": [0.6, 0.5, 0.4],
        "val_loss": [0.6, 0.45, 0.5],
        "f1_micro": [0.1, 0.5, 0.6],
        "f1_macro": [0.1, 0.4, 0.5],
    }
)
PARAMS = EvaluateParams(prior_strength=2.0, calibrate=False, resamples=50)
FACTS = {"Seed": 0, "Commit": "0123abcd of 2026-01-02 03:04 UTC"}
FIGURES = ("loss", "pr_curve", "reliability", "score_distributions")
Figures = tuple[Path, dict[str, str]]  # folder, and the figures as data URIs


@pytest.fixture(scope="module")
def result(packed: Path) -> Evaluation:
    names = ("images.npy", "manifest.csv", "splits.csv")
    datasets = read_datasets(*(packed / name for name in names))
    rng = np.random.default_rng(0)
    logits = {
        split: rng.normal(2.0 * datasets[split].targets - 1, 1.5) for split in ("val", "test")
    }
    manifest = pd.DataFrame({"width": [16] * 40, "height": [16, 20] * 20})
    return evaluate(datasets, logits, manifest, PARAMS, 0, familiarity=np.arange(40.0)[::-1])


@pytest.fixture(scope="module")
def figures(result: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Figures:
    folder = tmp_path_factory.mktemp("figures")
    return folder, draw_figures(result, HISTORY, folder)


def make_network(result: Evaluation) -> nn.Sequential:
    """Return a small untrained network."""
    spec = ModelParams.model_validate(
        {"init": "he", "conv": [{"out": 3, "kernel": 3, "pool": 2}], "linear": []}
    )
    num_labels = len(result.chosen_on.labels)
    return build_model(spec, num_labels, 16, [0.5] * 3, [0.2] * 3)


def make_galleries(result: Evaluation) -> Galleries:
    return build_galleries(make_network(result), torch.device("cpu"), result)


@pytest.fixture(scope="module")
def galleries(result: Evaluation) -> Galleries:
    return make_galleries(result)


def test_report_is_one_page_with_all_pictures(
    result: Evaluation, figures: Figures, galleries: Galleries, tmp_path: Path
) -> None:
    folder, drawn = figures
    page = tmp_path / "report.html"
    write_report(page, result, drawn, galleries, "Trained on 9 photos.", FACTS)

    text = page.read_text()
    assert not re.search(r"""(src|href)=["']?(https?:|[\w./])""", text.replace("data:image", "#"))
    embedded = re.findall(r"data:image/png;base64,([^\"]+)", text)
    files = sorted(folder.glob("*.png"))
    assert sorted(base64.b64decode(data) for data in embedded) == sorted(
        file.read_bytes() for file in files
    )
    assert {file.stem for file in files} == set(FIGURES)
    assert all(min(Image.open(file).size) > 200 for file in files)
    pictures = sum(2 * len(group) for kinds in galleries.values() for group in kinds.values())
    assert text.count("data:image/jpeg") == pictures > 0
    assert "<p>Trained on 9 photos.</p>" in text
    assert "<dt>Commit</dt><dd>0123abcd of 2026-01-02 03:04 UTC</dd>" in text
    assert f"{headline(result.tables['scores'])['f1_macro']:.2f}" in text


def test_page_shows_the_least_familiar_photos(result: Evaluation, tmp_path: Path) -> None:
    found = list_least_familiar(result)
    photos = result.evaluated.photos
    last = sorted(photos.rows.tolist())[:-7:-1]  # the familiarity is 39 in row 0, and 0 in row 39
    assert [example.file for example in found] == [
        photos.files[photos.rows.tolist().index(row)] for row in last
    ]
    assert [example.familiarity for example in found] == [39 - row for row in last]
    page, figures = tmp_path / "report.html", dict.fromkeys(FIGURES, "")
    write_report(page, result, figures, {}, "", FACTS, found)
    assert f"<b>{39 - last[1]}.0 %</b> {found[1].file}" in page.read_text().replace("<wbr>", "")
    assert "heat map of" not in page.read_text()
    table = result.tables["predictions"].drop_duplicates("image").set_index("image")
    assert table["familiarity"][found[0].file] == found[0].familiarity


def test_page_reports_missing_heat_maps(
    result: Evaluation, galleries: Galleries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "this network has no spatial feature maps"
    page, figures = tmp_path / "report.html", dict.fromkeys(FIGURES, "")
    write_report(page, result, figures, galleries, "", FACTS)
    assert message not in page.read_text()
    assert "heat map of" in page.read_text()
    monkeypatch.setattr("phototag.evaluation.galleries.locate_labels", lambda *given: None)
    galleries = make_galleries(result)
    write_report(page, result, figures, galleries, "", FACTS)
    assert message in page.read_text()
    assert "heat map of" not in page.read_text()
    pictures = sum(len(group) for kinds in galleries.values() for group in kinds.values())
    assert page.read_text().count("data:image/jpeg") == pictures > 0


@pytest.mark.parametrize(
    ("splits", "is_probe", "title", "photos"),
    [
        (["val", "test"], False, "on test", "8 test photos"),
        (["test"], True, "on test", "8 test photos"),
        (["val"], False, "on val", "8 val photos"),
        ([], True, "by cross-validation", "32 photos (by cross-validation)"),
    ],
)
def test_page_states_what_the_model_was_evaluated_on(
    datasets: dict[str, Dataset],
    tmp_path: Path,
    splits: list[str],
    is_probe: bool,
    title: str,
    photos: str,
) -> None:
    page, rng = tmp_path / "report.html", np.random.default_rng(0)
    logits = {split: rng.normal(2.0 * datasets[split].targets - 1, 1.5) for split in splits}
    manifest = pd.DataFrame({"width": [16] * 40, "height": [16] * 40})
    out_of_fold = rng.normal(size=(6, 32, 3)) if is_probe else None
    found = evaluate(datasets, logits, manifest, PARAMS, 0, out_of_fold)
    history = HISTORY.rename(columns={"epoch": "step"}) if is_probe else HISTORY
    figures = draw_figures(found, history, tmp_path / "figures")
    write_report(page, found, figures, make_galleries(found), "", FACTS)
    text = page.read_text()
    assert f"Scores {title}</h2>" in text
    assert f"Labels {title}</h2>" in text
    assert f"On {photos}, the model has recall" in text
    assert ("Scores on val are usually too high" in text) == (title == "on val")
    assert ("nested cross-validation" in text) == (title == "by cross-validation")
    assert ("chosen on train and val, out of fold" in text) == is_probe
    assert ("chosen on val" in text) != is_probe
    missing = set(re.findall(r'href="#([\w-]+)"', text)) - set(re.findall(r'id="([\w-]+)"', text))
    assert not missing


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_page_with_many_long_names_fits_a_phone_and_a_desktop(
    many: Path, browser: Browser, width: int
) -> None:
    contents = check_layout(browser, many, width)
    assert contents.index("Example photos") < contents.index("All metrics")
    assert contents[0] == "Scores on test"
    assert contents[-1] == "Terms"


def test_equal_results_give_equal_figures(
    result: Evaluation, figures: Figures, tmp_path: Path
) -> None:
    assert draw_figures(result, HISTORY, tmp_path) == figures[1]


def test_galleries_show_the_most_extreme_photos(result: Evaluation, galleries: Galleries) -> None:
    test, probabilities = result.evaluated.photos, result.evaluated.probabilities
    for name, kinds in galleries.items():
        label = test.labels.index(name)
        truth = test.targets[:, label] > 0
        predicted = probabilities[:, label] >= result.point.thresholds.values[label]
        for kind, chosen, highest in (
            ("true positives with the highest probability", truth & predicted, True),
            ("false positives with the highest probability", ~truth & predicted, True),
            ("false negatives with the lowest probability", truth & ~predicted, False),
        ):
            order = np.argsort(-probabilities[:, label] if highest else probabilities[:, label])
            expected = [test.files[photo] for photo in order if chosen[photo]][:6]
            assert [example.file for example in kinds[kind]] == expected
        suspects = result.tables["label_errors"].query("label == @name")["image"].tolist()
        assert [example.file for example in kinds["likely label errors"]] == suspects[:6]


def test_heat_map_is_bright_where_it_is_hot() -> None:
    image = np.full((4, 4, 3), 200, np.uint8)
    heat = np.zeros((4, 4))
    heat[1, 2] = 1
    blended = overlay_heat(image, heat).astype(int)
    assert blended.shape == (4, 4, 3)
    assert (blended[0, 0] == blended[3, 3]).all()
    assert blended[0, 0].max() < 160
    assert blended[1, 2].sum() > blended[0, 0].sum()


def make_page(
    folder: Path,
    targets: dict[str, np.ndarray],
    labels: list[str],
    figures: dict[str, str] | None = None,
    **params: Any,
) -> tuple[Evaluation, str]:
    """Evaluate equal photos with these targets, and return the result and the page."""
    rng = np.random.default_rng(0)
    total = sum(map(len, targets.values()))
    images = np.broadcast_to(np.uint8(7), (total, 16, 16, 3))
    datasets, start = {}, 0
    for split, own in targets.items():
        rows = np.arange(start, start + len(own))
        names = [f"images/im{row}.jpg" for row in rows]
        datasets[split] = Dataset(images, rows, own.astype(np.int8), labels, names, names)
        start += len(own)
    logits = {
        split: rng.normal(2.0 * own - 1, 1).astype(np.float32)
        for split, own in targets.items()
        if split != "train" and len(own)
    }
    manifest = pd.DataFrame({"width": [16] * total, "height": [16] * total})
    result = evaluate(datasets, logits, manifest, PARAMS.model_copy(update=params), seed=0)
    figures = figures or draw_figures(result, HISTORY, folder / "figures")
    write_report(folder / "report.html", result, figures, make_galleries(result), "", FACTS)
    return result, (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def many(figures: Figures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with 80 labels; names are long, with and without spaces."""
    folder = tmp_path_factory.mktemp("many")
    names = [f"{'a long name ' * 4}{number}" for number in range(40)]
    names += ["x" * 80 + str(number) for number in range(40)]
    make_page(folder, draw_targets(80, train=30, val=20, test=20), names, figures[1])
    return folder / "report.html"


def draw_targets(num_labels: int, **sizes: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {split: rng.random((size, num_labels)) < 0.4 for split, size in sizes.items()}


@pytest.mark.parametrize(
    "targets",
    [
        draw_targets(3, train=10, val=1, test=1),
        draw_targets(3, train=10, val=1, test=0),
        draw_targets(1, train=6, val=3, test=3),
        {split: np.zeros((4, 2), bool) for split in ("train", "val", "test")},
        {split: np.ones((4, 2), bool) for split in ("train", "val", "test")},
        draw_targets(2, train=6, val=2, test=0) | {"val": np.zeros((2, 2), bool)},
    ],
    ids=["one of each", "one of val", "one label", "no positives", "all positive", "val without"],
)
def test_few_equal_photos_give_a_report(targets: dict[str, np.ndarray], tmp_path: Path) -> None:
    labels = [f"l{number}" for number in range(targets["train"].shape[1])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, page = make_page(tmp_path, targets, labels)
    assert "nan" not in re.sub(r"base64,[^\"]+", "", page).lower()
    assert "<h2>Slices</h2>" not in page


def test_label_names_are_escaped(tmp_path: Path) -> None:
    labels = ["$", "$$", "$x$", "_x_", "<b>", "&", "=1+1", r"\frac{", "a\nb", "x" * 300, "^_{", "%"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, page = make_page(tmp_path, draw_targets(12, train=30, val=20, test=20), labels)
    assert "<b></td>" not in page
    assert "<td>&lt;b&gt;</td>" in page
    assert "<summary>&lt;b&gt;</summary>" in page
    assert "<td>&amp;</td>" in page


def test_page_shows_frequent_labels_and_tables_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MAX_ROWS", 5)
    targets = draw_targets(8, train=30, val=20, test=20)
    for own in targets.values():
        own[2:, 3] = False
    result, page = make_page(tmp_path, targets, [f"l{number}" for number in range(8)])
    assert "The table shows the 5 most frequent of 8 labels" in page
    assert "<td>l3</td>" not in page
    assert len(result.tables["per_label"]) == 8
    assert len(result.tables["predictions"]) == 40 * 8


def test_labels_with_few_positives_are_not_judged(tmp_path: Path) -> None:
    targets = draw_targets(3, train=30, val=20, test=20)
    targets["test"] = np.zeros((20, 3), bool)
    for label, positives in enumerate((4, 5, 6)):
        targets["test"][:positives, label] = True
    result, page = make_page(tmp_path, targets, ["few", "enough", "more"])
    rows = re.findall(r"<tr><td>(few|enough|more)</td>(.*?)</tr>", page)
    assert [name for name, cells in rows if "too few positives to judge" in cells] == ["few"]
    assert [name for name, cells in rows if cells.count("<td>") == 10] == ["enough", "more"]
    assert "few (" not in page
    assert "Labels with too few positives to judge: 1 of 3." in page
    assert result.tables["per_label"]["f1"].notna().all()


def test_page_shows_targets_and_labels_that_abstain(tmp_path: Path) -> None:
    targets = draw_targets(3, train=30, val=20, test=20)
    goals = {"default": Target(recall=0.1), "b": Target(precision=0.99), "c": F1}
    result, page = make_page(tmp_path, targets, list("abc"), target=goals)
    rows = dict(re.findall(r"<tr><td>([abc])</td>(.*?)</tr>", page))
    cells = {name: re.findall(r"<td>(.*?)</td>", row) for name, row in rows.items()}
    thresholds = [re.sub(r"^[\d.]+", "", cells[name][-1]) for name in "abc"]
    assert thresholds[0] == " <small>(recall 0.1)</small>"
    assert thresholds[1] == "abstains <small>(precision 0.99)</small>"
    assert re.fullmatch(r" <small>\([\d.]+\W[\d.]+\)</small>", thresholds[2])
    recall = result.tables["per_label"]["recall_at_best_f1"]
    for name, value in zip("abc", recall, strict=True):
        assert f"<small>({value:.2f})</small>" in cells[name][4]
    assert "<th>model at best F1</th>" in page
    _, page = make_page(tmp_path, targets, list("abc"))
    assert "highest F1" not in page
    assert "abstain" not in page


@pytest.mark.slow
def test_all_columns_of_the_labels_fit_a_desktop(tmp_path: Path, browser: Browser) -> None:
    drawn = draw_targets(3, train=30, val=20, test=60)
    targets = {split: own.astype(int) for split, own in drawn.items()}
    targets["test"][0] = UNKNOWN
    _, text = make_page(tmp_path, targets, list("abc"), target={"a": Target(precision=0.5)})
    assert "<small>(precision 0.5)</small>" in text
    assert "<th>known</th>" in text
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.goto((tmp_path / "report.html").as_uri())
    wide = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{wide}.length") == 0


@pytest.mark.parametrize("calibrate", [False, True])
def test_calibration_curves_apply_the_temperature_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calibrate: bool
) -> None:
    drawn: dict[str, np.ndarray] = {}
    draw = charts.draw_reliability

    def note(targets: np.ndarray, curves: dict[str, np.ndarray]) -> object:
        drawn.update(curves)
        return draw(targets, curves)

    monkeypatch.setattr(charts, "draw_reliability", note)
    targets = draw_targets(3, train=20, val=20, test=20)
    result, page = make_page(tmp_path, targets, list("abc"), calibrate=calibrate)
    temperature = result.point.temperature
    raw = result.evaluated.logits * (temperature if calibrate else 1)
    assert temperature != 1
    np.testing.assert_allclose(drawn["without temperature scaling"], sigmoid(raw))
    scaled = sigmoid(raw / temperature)
    np.testing.assert_allclose(drawn["with temperature scaling"], scaled)
    assert ("The logits are divided by the temperature" in page) == calibrate


def test_page_states_the_number_of_known_entries(
    partly: dict[str, Dataset], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    logits = {split: rng.normal(size=partly[split].targets.shape) for split in ("val", "test")}
    manifest = pd.DataFrame({"width": [16] * 40, "height": [16, 20] * 20})
    found = evaluate(partly, logits, manifest, PARAMS, seed=0)
    galleries = make_galleries(found)
    test = partly["test"]
    probabilities = found.evaluated.probabilities
    known = test.targets != UNKNOWN
    for label, kinds in galleries.items():
        column = test.labels.index(label)
        for kind, value in (
            ("true positives with the highest probability", 1),
            ("false positives with the highest probability", 0),
        ):
            predicted = probabilities[:, column] >= found.point.thresholds.values[column]
            assert len(kinds[kind]) == min(
                (predicted & (test.targets[:, column] == value)).sum(), 6
            )
    write_report(tmp_path / "report.html", found, dict.fromkeys(FIGURES, ""), galleries, "", FACTS)
    text = (tmp_path / "report.html").read_text()
    assert f"On 8 test photos ({known.sum()} of 24 entries are known), the model has recall" in text
    assert "known entries only (an entry is a pair of a photo and a label).</li>" in text
    assert text.count("<th>known</th>") == 2
    assert re.search(r"true: [a-z, ]+ \([0-2] of 3 labels are known\)", text)
