"""Tables of scores and predictions on held-out photos."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve

from phototag.dataset.dataset import Dataset, join_datasets
from phototag.dataset.targets import all_known, is_known, label_rates
from phototag.evaluation.calibration import calibration_error
from phototag.evaluation.thresholds import Thresholds
from phototag.metrics.bootstrap import confidence_interval
from phototag.metrics.classification import classification_scores, label_scores
from phototag.metrics.losses import baseline_logits, sigmoid, weighted_cross_entropy
from phototag.metrics.ranking import average_precision_and_auroc, ranking_scores

MAX_LABELS = 40  # labels of the co-occurrence table and of figures
CURVE_POINTS = 201  # rows of the precision-recall curve, which git tracks


def sort_labels(targets: np.ndarray) -> np.ndarray:
    """Return the positions of the labels by descending number of positives, int64 [num_labels].

    Args:
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels].
    """
    return np.asarray(np.argsort(-(targets > 0).sum(axis=0), kind="stable"))


def take_frequent(per_label: pd.DataFrame, number: int) -> pd.DataFrame:
    """Return the rows of the most frequent labels, in the order of the table."""
    support = per_label["support"].sort_values(ascending=False, kind="stable")
    return per_label.loc[support.index[:number]].sort_index()


def tabulate_scores(
    train_targets: np.ndarray,
    targets: np.ndarray,
    logits: np.ndarray,
    thresholds: np.ndarray,
    weights: np.ndarray,
) -> pd.DataFrame:
    """Compute all metrics of the model and of two baselines that do not look at the photos.

    Args:
        train_targets: Targets of train (1, 0 or `UNKNOWN`), [num_train_photos, num_labels]. They
            define the baselines.
        targets: Targets of the evaluated split, [num_photos, num_labels].
        logits: Logits of the evaluated split, float, of the same shape.
        thresholds: Thresholds (0..1), [num_labels].
        weights: Weights returned by `bootstrap_weights`, float [1 + resamples, num_photos].

    Returns:
        Columns `predictor`, `metric`, `value`, `low` and `high` (95% confidence interval), and
        `known` (number of known entries; omitted if all are known). The predictors are `model`,
        `model at 0.5` (thresholds 0.5), `label frequencies` (each label's frequency on train as its
        probability) and `most frequent label` (that label for every photo, without probabilities).
        The metric `loss_skill` is 1 - loss / loss of the label frequencies.
    """
    probabilities = sigmoid(logits)
    frequencies = np.broadcast_to(baseline_logits(label_rates(train_targets)), targets.shape)
    most_frequent = np.zeros(targets.shape, bool)
    most_frequent[:, sort_labels(train_targets)[0]] = True
    model = _score_probabilities(targets, logits, weights)
    baseline = _score_probabilities(targets, frequencies, weights)
    skill = {"loss_skill": 1 - model["loss"] / baseline["loss"]}
    found = {
        "model": skill
        | model
        | classification_scores(targets, probabilities >= thresholds, weights),
        "model at 0.5": model | classification_scores(targets, probabilities >= 0.5, weights),
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
    targets: np.ndarray, logits: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Compute the metrics that need no thresholds."""
    loss = {"loss": weighted_cross_entropy(targets, logits, weights)}
    return loss | ranking_scores(targets, sigmoid(logits), weights)


def tabulate_labels(
    labels: Sequence[str],
    targets: np.ndarray,
    logits: np.ndarray,
    thresholds: Thresholds,
    weights: np.ndarray,
) -> pd.DataFrame:
    """Compute the scores of each label at its threshold.

    Args:
        labels: Names.
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels].
        logits: Logits, float, of the same shape.
        thresholds: Decision thresholds.
        weights: Weights returned by `bootstrap_weights`, float [1 + resamples, num_photos].

    Returns:
        One row per label. Columns: `label`, `support` (positives), `known` (photos for which the
        label is known; omitted if all are), `prevalence` (share of positives), `threshold`,
        `threshold_low` and `threshold_high` (95% interval over resamples of the photos on which it
        was chosen), `precision`, `recall`, `f1`, `f1_low` and `f1_high` (95% confidence interval),
        `average_precision` and `auroc` (NaN for a label without positives), `calibration_error`,
        and `f1_at_0.5` (F1 at threshold 0.5).
    """
    probabilities = sigmoid(logits)
    original = weights[:1]
    predicted = probabilities >= thresholds.values
    f1, precision, recall = label_scores(targets, predicted, weights)
    f1_low, f1_high = confidence_interval(f1)
    average_precision, auroc = average_precision_and_auroc(targets, probabilities, original)
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
            "auroc": auroc[0],
            "calibration_error": [
                calibration_error(targets[:, label], probabilities[:, label])
                for label in range(len(labels))
            ],
            "f1_at_0.5": f1_at_half[0],
        }
    )
    return table.drop(columns="known") if all_known(targets) else table


def tabulate_predictions(
    datasets: Mapping[str, Dataset], logits: Mapping[str, np.ndarray], thresholds: np.ndarray
) -> pd.DataFrame:
    """List the prediction of every label for every held-out photo.

    Returns:
        One row per photo and label. Columns: `image`, `split`, `label`, `target` (0, 1 or NaN if
        unknown), `probability` (0..1) and `predicted` (0 or 1).
    """
    held_out = join_datasets([datasets[split] for split in logits])
    probabilities = sigmoid(np.concatenate([*logits.values()]))
    num_photos, num_labels = probabilities.shape
    targets = held_out.targets
    if not held_out.complete:
        targets = np.where(is_known(targets), targets, np.float32(np.nan))
    photo = np.repeat(np.arange(num_photos, dtype=np.int32), num_labels)
    label = np.tile(np.arange(num_labels, dtype=np.int32), num_photos)
    split = np.repeat(np.arange(len(logits)), [len(values) for values in logits.values()])
    return pd.DataFrame(
        {
            "image": _categorical(photo, held_out.files),
            "split": _categorical(split[photo], list(logits)),
            "label": _categorical(label, held_out.labels),
            "target": targets.ravel(),
            "probability": probabilities.ravel(),
            "predicted": (probabilities >= thresholds).astype(np.uint8).ravel(),
        }
    )


def _categorical(codes: np.ndarray | pd.Series, names: Sequence[str]) -> "pd.Categorical[str]":
    """Return a column of names given by their positions, without a string per row."""
    return pd.Categorical.from_codes(np.asarray(codes), pd.Index(names))


def tabulate_label_errors(
    datasets: Mapping[str, Dataset], splits: Sequence[str], suspects: pd.DataFrame
) -> pd.DataFrame:
    """Add names of photos and labels to the likely label errors.

    Args:
        datasets: Splits, by name.
        splits: Names of the searched splits, in the order in which they were joined.
        suspects: Table returned by `find_label_errors`.

    Returns:
        Columns `image`, `split`, `label`, `given` (0 or 1), `probability`, `margin`, and `photo`
        (position among the photos of the searched splits).
    """
    searched = join_datasets([datasets[name] for name in splits])
    split = np.repeat(splits, [len(datasets[name]) for name in splits])
    names = {
        "image": _categorical(suspects["photo"], searched.files),
        "split": split[suspects["photo"]],
        "label": _categorical(suspects["label"], searched.labels),
    }
    return pd.concat(
        [pd.DataFrame(names), suspects[["given", "probability", "margin", "photo"]]], axis=1
    )


def tabulate_curve(targets: np.ndarray, logits: np.ndarray) -> pd.DataFrame:
    """Compute the precision-recall curve of all known entries pooled (micro average).

    Returns:
        Columns `recall`, `precision` and `threshold`; at most `CURVE_POINTS` rows with increasing
        recall. If there are no positives, recall is 1 in every row, as in scikit-learn.
    """
    known = is_known(targets)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No positive class", UserWarning)
        precision, recall, threshold = precision_recall_curve(
            targets[known], sigmoid(logits[known])
        )
    # The last point of scikit-learn (recall 0, precision 1) has no threshold.
    table = pd.DataFrame(
        {"recall": recall[:-1], "precision": precision[:-1], "threshold": threshold}
    )[::-1]
    chosen = np.unique(np.linspace(0, len(table) - 1, CURVE_POINTS).round().astype(int))
    return table.iloc[chosen].reset_index(drop=True)


def tabulate_cooccurrence(
    labels: Sequence[str], targets: np.ndarray, predicted: np.ndarray
) -> pd.DataFrame:
    """Pair each photo's true labels with its predicted labels, for a confusion matrix.

    The table contains the `MAX_LABELS` most frequent labels. A photo without any true or predicted
    label gets the label `(none)`. Unknown entries are ignored on both sides.

    Returns:
        Columns `actual` and `predicted`, one row per photo, true label and predicted label.
    """
    known = is_known(targets)
    any_known = known.any(axis=1)
    positive, positive_predicted = targets[any_known] > 0, (predicted & known)[any_known] > 0
    chosen = np.sort(sort_labels(targets)[:MAX_LABELS])
    actual, found = (
        np.column_stack([part[:, chosen], ~part.any(axis=1)])
        for part in (positive, positive_predicted)
    )
    pairs = [
        (one, other)
        for true, guessed in zip(actual, found, strict=True)
        for one in np.flatnonzero(true).tolist()
        for other in np.flatnonzero(guessed).tolist()
    ]
    codes = np.array(pairs, np.int32).reshape(-1, 2)
    names = [*(labels[label] for label in chosen), "(none)"]
    return pd.DataFrame(
        {
            "actual": _categorical(codes[:, 0], names),
            "predicted": _categorical(codes[:, 1], names),
        }
    )
