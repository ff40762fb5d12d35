import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from phototag.apps import curve
from phototag.base.errors import InputError
from phototag.base.keys import apply_overrides
from phototag.dataset.dataset import Dataset
from phototag.dataset.manifest import label_names, read_kept
from phototag.network.weights import load_model
from phototag.schema.params import Params, validate_all
from phototag.training.probes import Probes
from tests.models import make_backbone

EVALUATE = {"prior_strength": 10, "calibrate": False, "resamples": 100}


@pytest.fixture
def params(params_values: dict[str, object]) -> Params:
    changes = {
        "optimizer": "lbfgs",
        "model.name": "squeezenet1_1",
        "model.weights": "DEFAULT",
        "model.freeze": True,
        "model.linear": [],
    }
    return validate_all(apply_overrides(params_values, changes), "params.yaml")


def make_photos(number: int, copies: int = 1) -> Dataset:
    """Return photos whose features say with some noise which of two labels they have."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(number, 8)).astype(np.float32)
    targets = features[:, :2] + rng.normal(size=(number, 2)) > 0.5
    names = [str(row) for row in range(number)]
    groups = [f"group {row // copies}" for row in range(number)]
    rows = np.arange(number)
    return Dataset(features, rows, targets.astype(np.int8), ["a", "b"], names, names, groups)


def test_exact_power_law_is_continued() -> None:
    sizes = [100, 200, 400, 800]
    laws = [(0.1, 3, 0.5), (0, 2, 0.25), (0.3, 0, 1)]
    errors = np.array([[a + b * n**-c for n in sizes] for a, b, c in laws])
    found = curve.extrapolate(sizes, errors, [1600, 5000])
    expected = [[a + b * n**-c for n in (1600, 5000)] for a, b, c in laws]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_errors_that_rise_or_fall_below_zero_give_a_law_that_does_not() -> None:
    found = curve.extrapolate([1, 2, 4], np.array([[1, 2, 3], [3, 2, 0.1]]), [8, 10**6])
    assert found[0].tolist() == pytest.approx([17 / 7] * 2)  # the mean, weighted by the sizes
    assert (found[1] >= 0).all()
    assert found[1, 1] < found[1, 0]


def test_each_photo_is_judged_by_a_probe_of_other_groups(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss for the largest size is that of scikit-learn's cross-validation with equal folds."""
    photos = make_photos(200, copies=2)
    monkeypatch.setattr(curve, "REPEATS", 1)
    monkeypatch.setattr(curve, "RESAMPLES", 5)
    subsets: list[np.ndarray] = []

    class Noted(Probes):
        def __init__(self, photos: Dataset, used: np.ndarray, *rest: object) -> None:
            subsets.append(used)
            super().__init__(photos, used, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(curve, "Probes", Noted)
    l2 = np.array([0.01, 0.1])
    scores = curve.measure_curve(photos, params, l2)
    assert list(scores["loss"]) == [10, 20, 40, 80, 160]
    assert [used.sum(axis=1).tolist() for used in subsets] == [[n] * 5 for n in scores["loss"]]
    for smaller, larger in pairwise(subsets):
        assert (smaller <= larger).all()
    assert (subsets[-1][:, ::2] == subsets[-1][:, 1::2]).all()
    losses = []
    features = (photos.images - photos.images.mean(axis=0)) / photos.images.std(axis=0)
    for inside in subsets[-1]:
        for label in range(2):
            # scikit-learn does not divide the loss by the number of entries.
            model = LogisticRegression(C=1 / (l2[label] * 160 * 2), tol=1e-8, max_iter=1000)
            model.fit(features[inside], photos.targets[inside, label])
            found = model.predict_proba(features[~inside])
            losses.append(log_loss(photos.targets[~inside, label], found, labels=[0, 1]))
    assert scores["loss"][160][0] == pytest.approx(np.mean(losses), abs=1e-4)
    again = curve.measure_curve(photos, params, l2)
    assert all(np.array_equal(again["mAP"][n], scores["mAP"][n]) for n in scores["mAP"])


def test_interval_of_an_extrapolation_contains_the_truth(tmp_path: Path) -> None:
    """The last point is left out; photos are drawn from a known power law."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(20):
        true = {n: 0.1 + 2 * n**-0.5 for n in (100, 200, 400, 800, 1600, 3200)}
        values = {
            n: 1 - np.append(0, rng.normal(0, 0.004, 200)) - true[n] + rng.normal(0, 0.004)
            for n in (100, 200, 400, 800, 1600)
        }
        table = curve.tabulate_curve(dict.fromkeys(curve.METRICS, values), 1600)
        row = table.query("metric == 'mAP' and kind == 'extrapolated' and photos == 3200").iloc[0]
        hits += row["low"] <= 1 - true[3200] <= row["high"]
    assert hits >= 18


def test_table_is_printed_and_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = {n: 1 - 2 * n**-0.5 + rng.normal(0, 0.01, 21) for n in (100, 200, 400, 800, 1600)}
    table = curve.tabulate_curve(dict.fromkeys(curve.METRICS, values), 2000)
    lines = curve.describe_curve(table).splitlines()
    assert [line.split()[0] for line in lines[1:9]] == [
        *("100", "200", "400", "800", "1600", "2000", "2100", "4000")
    ]
    assert lines[9].startswith("100 more labelled photos: micro F1 +0.00")
    assert lines[11].startswith("Check: ")
    gain = table.query("kind == 'gain' and metric == 'mAP' and photos == 2100").iloc[0]
    assert gain["low"] <= gain["value"] <= gain["high"]
    curve.draw_curve(table, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_command_writes_the_curve_of_a_project(
    params: Params,
    packed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The features are those of a backbone with random weights."""
    for name in ("manifest.csv", "splits.csv"):
        (tmp_path / "data").mkdir(exist_ok=True)
        shutil.copy(packed / name, tmp_path / "data")
    images = np.load(packed / "images.npy").repeat(4, axis=1).repeat(4, axis=2)
    np.save(tmp_path / "data/images.npy", images)
    model, _ = make_backbone(tmp_path / "models", size=images.shape[1])
    network, _ = load_model(model)
    with torch.inference_mode():
        features = network[:2](torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    training = tmp_path / "reports/train/training.json"
    training.parent.mkdir(parents=True)
    training.write_text("{}")
    values = params.model_dump(mode="json") | {"evaluate": EVALUATE}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=r"features\.npy is missing: run `dvc repro`"):
        curve.write_curve(tmp_path)
    np.save(tmp_path / "data/features.npy", features)
    with pytest.raises(InputError, match="have 32 photos in 32 groups: a learning curve needs 100"):
        curve.write_curve(tmp_path)
    monkeypatch.setattr(curve, "MIN_PHOTOS", 32)
    with pytest.raises(InputError, match="does not have the L2 strengths of the labels"):
        curve.write_curve(tmp_path)
    labels = label_names(read_kept(tmp_path / "data/manifest.csv"))
    training.write_text(json.dumps({"l2": dict.fromkeys(labels, 0.1)}))
    monkeypatch.setattr(curve, "HALVINGS", 3)
    written = []
    for _ in range(2):
        text = curve.write_curve(tmp_path)
        written.append((tmp_path / "reports/curve/curve.csv").read_bytes())
    assert written[0] == written[1]
    assert (tmp_path / "reports/curve/curve.png").is_file()
    sizes = [line.split()[0] for line in text.splitlines()[1:7]]
    assert sizes == ["6", "12", "25", "32", "64", "132"]
    np.save(tmp_path / "data/features.npy", features + 1)
    with pytest.raises(InputError, match="was computed from other photos or with other weights"):
        curve.write_curve(tmp_path)


def test_project_without_cached_features_is_refused(
    params_values: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params_values))
    with pytest.raises(InputError, match="needs the cached features of a linear probe"):
        curve.write_curve(tmp_path)
