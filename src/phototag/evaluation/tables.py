"""Tables of scores and predictions on held-out photos."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from phototag.dataset.targets import all_known, is_known, label_rates
from phototag.evaluation.calibration import calibration_error
from phototag.evaluation.held_out import Predictions
from phototag.evaluation.label_errors import find_label_errors
from phototag.evaluation.targets import ABSTAIN
from phototag.evaluation.thresholds import Thresholds
from phototag.metrics.bootstrap import confidence_interval
from phototag.metrics.classification import classification_scores, label_scores
from phototag.metrics.losses import baseline_logits, sigmoid, weighted_cross_entropy
from phototag.metrics.ranking import Ranking, ranking_scores

MAX_LABELS = 40  # largest number of labels in the co-occurrence table
CURVE_POINTS = 201  # largest number of rows in pr_curve.csv; small, because git tracks it


def sort_labels(targets: np.ndarray) -> np.ndarray:
    """Return the label positions, int64 [num_labels], sorted by descending number of positives."""
    return np.asarray(np.argsort(-(targets > 0).sum(axis=0), kind="stable"))


def tabulate_scores(
    train_targets: np.ndarray,
    targets: np.ndarray,
    logits: np.ndarray,
    predicted: np.ndarray,
    weights: np.ndarray,
    by_label: Ranking,
    at_best_f1: np.ndarray | None = None,
) -> pd.DataFrame:
    """Compute all metrics of the model and of two baselines that ignore the photos.

    Args:
        train_targets: Targets of the photos on which the weights were fitted (1, 0 or `UNKNOWN`),
            [num_train_photos, num_labels]; used to compute the baselines.
        targets: Targets of the evaluated photos, [num_photos, num_labels].
        logits: Logits of the evaluated photos, float, of the same shape.
        predicted: Predictions (0 or 1) for the evaluated photos, of the same shape.
        weights: Weights returned by `bootstrap_weights`, float [1 + resamples, num_photos].
        by_label: AP and AUROC of each label, returned by `average_precision_and_auroc`.
        at_best_f1: Predictions (0 or 1) at the thresholds with the highest F1, or None if the
            target of all labels is F1.

    Returns:
        Table with the columns `predictor`, `metric`, `value`, `low` and `high` (95% confidence
        interval), and `known` (number of known entries; omitted if all are known). There are
        these predictors: `model`; `model at best F1` (if `at_best_f1` is not None); `model at 0.5`,
        which uses the threshold 0.5 for every label; `label frequencies`, whose probability of a
        label is its frequency in `train_targets`; and `most frequent label`, which predicts the
        most frequent label of `train_targets` for every photo (without probabilities). The metric
        `loss_skill` is 1 - loss / (loss of `label frequencies`).
    """
    frequencies = np.broadcast_to(baseline_logits(label_rates(train_targets)), targets.shape)
    most_frequent = np.zeros(targets.shape, bool)
    most_frequent[:, sort_labels(train_targets)[0]] = True
    model = _score_probabilities(targets, logits, weights, by_label)
    baseline = _score_probabilities(targets, frequencies, weights)
    tuned = classification_scores(targets, predicted, weights)
    others = {} if at_best_f1 is None else {"model at best F1": at_best_f1}
    found = {
        "model": {"loss_skill": 1 - model["loss"] / baseline["loss"]} | model | tuned,
        **{
            name: model | classification_scores(targets, chosen, weights)
            for name, chosen in (others | {"model at 0.5": logits >= 0}).items()
        },
        "label frequencies": baseline | classification_scores(targets, frequencies >= 0, weights),
        "most frequent label": classification_scores(targets, most_frequent, weights),
    }
    rows = [
        (predictor, metric, values[0], *confidence_interval(values))
        for predictor, metrics in found.items()
        for metric, values in metrics.items()
    ]
    table = pd.DataFrame(rows, columns=["predictor", "metric", "value", "low", "high"])
    return table if all_known(targets) else table.assign(known=is_known(targets).sum())


def _score_probabilities(
    targets: np.ndarray, logits: np.ndarray, weights: np.ndarray, by_label: Ranking | None = None
) -> dict[str, np.ndarray]:
    """Compute the loss and the ranking metrics, which do not depend on thresholds."""
    loss = {"loss": weighted_cross_entropy(targets, logits, weights)}
    return loss | ranking_scores(targets, sigmoid(logits), weights, by_label)


def tabulate_labels(
    labels: Sequence[str],
    targets: np.ndarray,
    logits: np.ndarray,
    predicted: np.ndarray,
    thresholds: Thresholds,
    weights: np.ndarray,
    by_label: Ranking,
    at_best_f1: np.ndarray | None = None,
) -> pd.DataFrame:
    """Compute the scores of each label.

    Args:
        labels: Names of the labels.
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels].
        logits: Logits, float, of the same shape.
        predicted: Predictions (0 or 1), of the same shape.
        thresholds: Decision thresholds of the model with their intervals.
        weights: Weights returned by `bootstrap_weights`, float [1 + resamples, num_photos].
        by_label: AP and AUROC of each label, returned by `average_precision_and_auroc`.
        at_best_f1: Predictions (0 or 1) at the thresholds with the highest F1, or None if the
            target of all labels is F1.

    Returns:
        Table with one row per label. Columns: `label`, `support` (number of positives), `known`
        (number of photos for which the label is known; omitted if it is known for all photos),
        `prevalence` (share of positives), `threshold`, `threshold_low` and `threshold_high` (95%
        bootstrap interval of the threshold), `precision`, `recall`, `f1`, `f1_low` and `f1_high`
        (95% confidence interval), `average_precision` and `auroc` (NaN for a label without
        positives), `average_precision_low` and `average_precision_high` (95% confidence interval),
        `calibration_error`, and `f1_at_0.5` (F1 at threshold 0.5). If a label has another target
        than F1, the table also has the columns `target`, `abstains` (0 or 1), and
        `precision_at_best_f1` and `recall_at_best_f1` (at the threshold with the highest F1).
    """
    probabilities = sigmoid(logits)
    original = weights[:1]
    f1, precision, recall = label_scores(targets, predicted, weights)
    f1_low, f1_high = confidence_interval(f1)
    average_precision, auroc = by_label
    ap_low, ap_high = confidence_interval(average_precision)
    f1_at_half, _, _ = label_scores(targets, probabilities >= 0.5, original)
    table = pd.DataFrame(
        {
            "label": list(labels),
            "support": (targets > 0).sum(axis=0),
            "known": is_known(targets).sum(axis=0),
            "prevalence": label_rates(targets),
            "threshold": thresholds.values,
            "threshold_low": thresholds.low,
            "threshold_high": thresholds.high,
            "precision": precision[0],
            "recall": recall[0],
            "f1": f1[0],
            "f1_low": f1_low,
            "f1_high": f1_high,
            "average_precision": average_precision[0],
            "average_precision_low": ap_low,
            "average_precision_high": ap_high,
            "auroc": auroc[0],
            "calibration_error": [
                calibration_error(targets[:, label], probabilities[:, label])
                for label in range(len(labels))
            ],
            "f1_at_0.5": f1_at_half[0],
        }
    )
    if at_best_f1 is not None:
        _, precision, recall = label_scores(targets, at_best_f1, original)
        table["target"] = [str(target) for target in thresholds.targets]
        table["abstains"] = (thresholds.values == ABSTAIN).astype(int)
        table["precision_at_best_f1"], table["recall_at_best_f1"] = precision[0], recall[0]
    return table.drop(columns="known") if all_known(targets) else table


def tabulate_predictions(
    held_out: Predictions, splits: np.ndarray, familiarity: np.ndarray | None = None
) -> pd.DataFrame:
    """List the prediction for each held-out photo and each label.

    Args:
        held_out: Predictions by models that were not trained on the photo.
        splits: Name of each photo's split, [num_photos].
        familiarity: Familiarity of each photo in the packed array. Omit if the model has none.

    Returns:
        Table with one row per photo and label. Columns: `image`, `split`, `label`, `target` (0, 1,
        or NaN if unknown), `probability` (0..1), `predicted` (0 or 1) and, if it is known,
        `familiarity` of the photo (0..100).
    """
    photos = held_out.photos
    targets = photos.targets
    if not photos.complete:
        targets = np.where(is_known(targets), targets, np.float32(np.nan))
    # Columns that contain names are categorical: each name is stored only once, even if there are
    # millions of rows.
    photo, label = np.indices(targets.shape, np.int32).reshape(2, -1)
    table = pd.DataFrame(
        {
            "image": pd.Categorical(photos.files)[photo],
            "split": pd.Categorical(splits)[photo],
            "label": pd.Categorical(photos.labels)[label],
            "target": targets.ravel(),
            "probability": held_out.probabilities.ravel(),
            "predicted": held_out.predicted.astype(np.uint8).ravel(),
        }
    )
    if familiarity is not None:
        table["familiarity"] = familiarity[photos.rows][photo]
    return table


def tabulate_label_errors(held_out: Predictions, splits: np.ndarray) -> pd.DataFrame:
    """List the likely label errors among the held-out photos.

    Args:
        held_out: Predictions by models that were not trained on the photo.
        splits: Name of each photo's split, [num_photos].

    Returns:
        Table sorted by descending `margin`, with the columns `image`, `split`, `label`, `given` (0
        or 1), `probability`, `margin` (see `find_label_errors`) and `photo` (position in
        `held_out`).
    """
    photos = held_out.photos
    table = find_label_errors(photos.targets, held_out.probabilities)
    names = {
        "image": np.array(photos.files)[table["photo"]],
        "split": splits[table["photo"]],
        "label": np.array(photos.labels)[table["label"]],
    }
    return table.assign(**names)[
        ["image", "split", "label", "given", "probability", "margin", "photo"]
    ]


def tabulate_curve(targets: np.ndarray, logits: np.ndarray) -> pd.DataFrame:
    """Compute the micro-averaged precision-recall curve: all known entries are pooled.

    Returns:
        Table with the columns `recall`, `precision` and `threshold`, sorted by increasing recall,
        with at most `CURVE_POINTS` rows. If there are no positives, recall is 1 in every row, as in
        scikit-learn.
    """
    known = is_known(targets)
    scores, positives = sigmoid(logits[known]), targets[known] > 0
    order = np.argsort(-scores, kind="stable")
    # Entries with equal scores have the same rank: each point is the last entry of a rank.
    threshold = scores[order]
    ends = np.flatnonzero(np.append(threshold[1:] != threshold[:-1], True))
    found = np.cumsum(positives[order])[ends]
    table = pd.DataFrame(
        {
            "recall": found / found[-1] if found[-1] else np.ones(len(found)),
            "precision": found / (ends + 1),
            "threshold": threshold[ends],
        }
    )
    chosen = np.unique(np.linspace(0, len(table) - 1, CURVE_POINTS).round().astype(int))
    return table.iloc[chosen].reset_index(drop=True)


def tabulate_cooccurrence(
    labels: Sequence[str], targets: np.ndarray, predicted: np.ndarray
) -> pd.DataFrame:
    """Pair each photo's true labels with its predicted labels, for a confusion matrix.

    The table contains the `MAX_LABELS` most frequent labels. For a photo without true labels,
    `actual` is `(none)`; for a photo without predicted labels, `predicted` is `(none)`. Predictions
    for unknown entries are ignored.

    Returns:
        Table with the columns `actual` and `predicted`. Each photo has one row for every pair of a
        true label and a predicted label.
    """
    known = is_known(targets)
    any_known = known.any(axis=1)
    positive, positive_predicted = targets[any_known] > 0, (predicted & known)[any_known] > 0
    chosen = np.sort(sort_labels(targets)[:MAX_LABELS])
    actual, found = (
        np.column_stack([part[:, chosen], ~part.any(axis=1)])
        for part in (positive, positive_predicted)
    )
    _, one, other = np.nonzero(actual[:, :, None] & found[:, None, :])
    names = pd.Categorical([*(labels[label] for label in chosen), "(none)"])
    return pd.DataFrame({"actual": names[one], "predicted": names[other]})
