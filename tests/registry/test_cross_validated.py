"""Predictions by cross-validation that are stored with a version."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from phototag.base.files import write_table
from phototag.dataset.dataset import Dataset, join_datasets, take_photos
from phototag.evaluation.params import EvaluateParams
from phototag.evaluation.result import evaluate
from phototag.pages.escaping import escape_spreadsheet_cells
from phototag.registry.cross_validated import load_predictions, read_evaluation
from phototag.registry.photos import take_unseen


def test_predictions_of_an_evaluation_are_restored(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    photos = join_datasets([datasets["train"], datasets["val"]])
    out_of_fold = np.random.default_rng(0).normal(size=(6, 32, 3)).astype(np.float32)
    manifest = pd.DataFrame({"width": [16] * 40, "height": [16] * 40})
    params = EvaluateParams(prior_strength=2.0, calibrate=True, resamples=20)
    result = evaluate(datasets, {}, manifest, params, 0, out_of_fold)
    table = tmp_path / "predictions.csv"
    write_table(table, escape_spreadsheet_cells(result.tables["predictions"]))
    read_evaluation(table, photos).save(tmp_path / "cross_validation.npz")
    stored = load_predictions(tmp_path / "cross_validation.npz")
    assert stored is not None
    np.testing.assert_allclose(stored.logits, result.evaluated.logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(stored.predicted, result.evaluated.predicted)
    assert list(stored.labels) == photos.labels
    some = take_photos(photos, np.array([7, 2]))
    assert stored.find_rows(some).tolist() == [7, 2]
    assert stored.find_rows(replace(some, sha256=["0" * 64] * 2)).tolist() == [-1, -1]
    assert load_predictions(tmp_path / "missing.npz") is None


def test_only_photos_with_own_predictions_are_kept(datasets: dict[str, Dataset]) -> None:
    """A copy of a photo that the model was trained on has no predictions, and is left out."""
    photos = replace(datasets["train"], groups=["album"] * 3 + [f"g{row}" for row in range(21)])
    datasets = {"train": photos}
    ids = {digest[:16] for digest in photos.sha256[:2]}
    kept = take_unseen(photos, datasets, ids, [photos.sha256[1][:16]])
    assert kept.files == [photos.files[1], *photos.files[3:]]
