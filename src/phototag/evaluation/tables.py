"""Scores of a model on held-out photos, as tables."""

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

PAIRS = 2_000_000  # of true and predicted labels that are listed
CURVE_POINTS = 201  # of the precision-recall curve: smooth to the eye, small in git


def sort_labels(targets: np.ndarray) -> np.ndarray:
    """Sort labels by frequency, the most frequent first, and equally frequent ones as they stand.

    Args:
        targets: 1, 0 or `UNKNOWN`, [num_photos, num_labels].

    Returns:
        Positions, int64 [num_labels].
    """
    return np.asarray(np.argsort(-(targets > 0).sum(axis=0), kind="stable"))


def take_frequent(per_label: pd.DataFrame, number: int) -> pd.DataFrame:
    """Take the rows of the most frequent labels, in the table's own order."""
    support = per_label["support"].sort_values(ascending=False, kind="stable")
    return per_label.loc[support.index[:number]].sort_index()


def tabulate_scores(
    train_targets: np.ndarray,
    targets: np.ndarray,
    logits: np.ndarray,
    thresholds: np.ndarray,
    weights: np.ndarray,
) -> pd.DataFrame:
    """Score the model, at its thresholds and at 0.5, and two predictors that see no photo.

    Args:
        train_targets: 1, 0 or `UNKNOWN`, [num_train_photos, num_labels], from which the two others
            are made.
        targets: The same, [num_photos, num_labels].
        logits: float [num_photos, num_labels].
        thresholds: 0..1 [num_labels].
        weights: Of `bootstrap_weights`, [1 + resamples, num_photos].

    Returns:
        Columns predictor, metric, value, low and high (a 95 % interval); and known, how many
        entries these count over, only where some are not known. The predictors: `model`,
        `model at 0.5`, `prior` (each label's frequency on train, which at 0.5 is mostly silence)
        and `most frequent label` (that one for every photo; it has no probabilities). The model's
        loss_skill is the share of the prior's loss that it saves.
    """
    probabilities = sigmoid(logits)
    prior_logits = np.broadcast_to(baseline_logits(label_rates(train_targets)), targets.shape)
    common = np.zeros(targets.shape, bool)
    common[:, sort_labels(train_targets)[0]] = True
    ranked = _score_probabilities(targets, logits, weights)
    found = {
        "model": ranked | classification_scores(targets, probabilities >= thresholds, weights),
        "model at 0.5": ranked | classification_scores(targets, probabilities >= 0.5, weights),
        "prior": _score_probabilities(targets, prior_logits, weights)
        | classification_scores(targets, prior_logits >= 0, weights),
        "most frequent label": classification_scores(targets, common, weights),
    }
    skill = {"loss_skill": 1 - ranked["loss"] / found["prior"]["loss"]}
    found["model"] = skill | found["model"]
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
    loss = {"loss": weighted_cross_entropy(targets, logits, weights)}
    return loss | ranking_scores(targets, sigmoid(logits), weights)


def tabulate_labels(
    labels: Sequence[str],
    targets: np.ndarray,
    logits: np.ndarray,
    thresholds: Thresholds,
    weights: np.ndarray,
) -> pd.DataFrame:
    """Tabulate each label's scores at its threshold.

    F1, precision and recall are 0 where nothing is there to count; a label without positives has
    no average_precision and no auroc.

    Returns:
        Columns label, support (positives), known (photos for which it is; only where some entries
        are not), prevalence, threshold, threshold_low and threshold_high (its 95 % spread over
        resamples of val), precision, recall, f1, f1_low and f1_high (95 % interval),
        average_precision, auroc, calibration_error and f1_at_0.5.
    """
    probabilities = sigmoid(logits)
    as_they_are = weights[:1]
    f1, precision, recall = label_scores(targets, probabilities >= thresholds.values, weights)
    f1_low, f1_high = confidence_interval(f1)
    average_precision, auroc = average_precision_and_auroc(targets, probabilities, as_they_are)
    half = label_scores(targets, probabilities >= 0.5, as_they_are)[0]
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
            "f1_at_0.5": half[0],
        }
    )
    return table.drop(columns="known") if all_known(targets) else table


def tabulate_predictions(
    datasets: Mapping[str, Dataset], logits: Mapping[str, np.ndarray], thresholds: np.ndarray
) -> pd.DataFrame:
    """Tabulate every decision, one row a photo and label.

    Returns:
        Columns image, split, label, target (0/1; empty where it is not known), probability (0..1),
        predicted (0/1).
    """
    held_out = join_datasets([datasets[split] for split in logits])
    probabilities = sigmoid(np.concatenate([*logits.values()]))
    num_photos, num_labels = probabilities.shape
    # Names as categories: millions of rows share a few thousand strings.
    targets = held_out.targets
    if not held_out.complete:
        targets = np.where(is_known(targets), targets, np.float32(np.nan))
    photo = np.repeat(np.arange(num_photos, dtype=np.int32), num_labels)
    label = np.tile(np.arange(num_labels, dtype=np.int32), num_photos)
    split = np.repeat(np.arange(len(logits)), [len(values) for values in logits.values()])
    return pd.DataFrame(
        {
            "image": _name(photo, held_out.files),
            "split": _name(split[photo], list(logits)),
            "label": _name(label, held_out.labels),
            "target": targets.ravel(),
            "probability": probabilities.ravel(),
            "predicted": (probabilities >= thresholds).astype(np.uint8).ravel(),
        }
    )


def _name(positions: np.ndarray | pd.Series, names: Sequence[str]) -> "pd.Categorical[str]":
    """Write names for their positions, each once."""
    return pd.Categorical.from_codes(np.asarray(positions), pd.Index(names))


def tabulate_label_errors(
    datasets: Mapping[str, Dataset], splits: Sequence[str], suspects: pd.DataFrame
) -> pd.DataFrame:
    """Name the photos and labels of likely label errors.

    Args:
        datasets: The splits.
        splits: Those that were searched, one after the other.
        suspects: Of `label_errors.find_label_errors`.

    Returns:
        Columns image, split, label, given (0/1), probability, margin; and photo, its position
        among those searched.
    """
    searched = join_datasets([datasets[name] for name in splits])
    origin = np.repeat(splits, [len(datasets[name]) for name in splits])
    names = {
        "image": _name(suspects["photo"], searched.files),
        "split": origin[suspects["photo"]],
        "label": _name(suspects["label"], searched.labels),
    }
    return pd.concat(
        [pd.DataFrame(names), suspects[["given", "probability", "margin", "photo"]]], axis=1
    )


def tabulate_curve(targets: np.ndarray, logits: np.ndarray) -> pd.DataFrame:
    """Tabulate the precision-recall curve of all decisions on known targets pooled (micro).

    Returns:
        Columns recall, precision and threshold, at most `CURVE_POINTS` rows by rising recall; where
        nothing is positive, recall is 1 throughout, as scikit-learn has it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No positive class", UserWarning)
        known = is_known(targets)
        precision, recall, threshold = precision_recall_curve(
            targets[known], sigmoid(logits[known])
        )
    # scikit-learn ends with the point (recall 0, precision 1), which has no threshold.
    table = pd.DataFrame(
        {"recall": recall[:-1], "precision": precision[:-1], "threshold": threshold}
    )[::-1]
    chosen = np.unique(np.linspace(0, len(table) - 1, CURVE_POINTS).round().astype(int))
    return table.iloc[chosen].reset_index(drop=True)


def tabulate_cooccurrence(
    labels: Sequence[str], targets: np.ndarray, predicted: np.ndarray
) -> pd.DataFrame:
    """Pair each photo's true labels with its predicted ones, for a confusion matrix.

    A photo without labels, or without predicted ones, stands under `(none)`. Only targets that are
    known take part, on both sides: a label that is predicted where nobody knows is neither right
    nor wrong.

    Where that is more than `PAIRS` rows, only the most frequent labels take part, as many as fit:
    a matrix of more is no picture.

    Returns:
        Columns actual and predicted, one row a photo, true label and predicted label.
    """
    nobody = "(none)"
    while nobody in labels:
        nobody = f"({nobody})"
    known = is_known(targets)
    some = known.any(axis=1)
    targets, predicted = targets[some] > 0, (predicted & known)[some]
    chosen = _choose_pairs(targets, predicted)
    names = [*(labels[label] for label in chosen), nobody]
    truth, said = (
        np.column_stack([part[:, chosen] > 0, ~(part > 0).any(axis=1)])
        for part in (targets, predicted)
    )
    # Each photo's true labels, each as often as it has predicted ones, beside all of these.
    photo, actual = np.nonzero(truth)
    found, start = np.nonzero(said)[1], np.append(0, np.cumsum(said.sum(axis=1)))
    times = said.sum(axis=1)[photo]
    ends = np.cumsum(times)
    within = np.arange(times.sum()) - np.repeat(ends - times, times)
    return pd.DataFrame(
        {
            "actual": _name(np.repeat(actual, times), names),
            "predicted": _name(found[np.repeat(start[photo], times) + within], names),
        }
    )


def _choose_pairs(targets: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Choose the most frequent labels, so many that their pairs are at most `PAIRS`."""
    order, number = sort_labels(targets), targets.shape[1]
    while number > 1:
        truth, said = (
            part[:, order[:number]].astype(bool).sum(axis=1) for part in (targets, predicted)
        )
        if (np.maximum(truth, 1) * np.maximum(said, 1)).sum() <= PAIRS:
            break
        number = number * 3 // 4
    return np.sort(order[:number])
