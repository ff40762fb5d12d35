"""Two models on the same photos."""

from pathlib import Path

import numpy as np
import pandas as pd

from phototag.base.files import read_json
from phototag.data.dataset import Dataset
from phototag.evaluation import scores
from phototag.network.inference import pick_device, predict_logits
from phototag.network.metrics import sigmoid
from phototag.network.weights import load_model, read_metadata

METRICS = ("f1_micro", "f1_macro", "f1_samples", "mAP_macro", "loss")
DECIDES = "f1_micro"
COLUMNS = ["metric", "challenger", "champion", "difference", "low", "high"]


def why_incomparable(judged: Dataset, model_file: Path) -> str:
    """Say why a model cannot be judged on these photos; nothing where it can."""
    metadata, size = read_metadata(model_file), judged.images.shape[1]
    if metadata.labels != judged.labels:
        return "it has other labels"
    if metadata.size != size:
        return f"it takes photos of {metadata.size} pixels a side, and these have {size}"
    return ""


def compare_models(
    judged: Dataset,
    challenger: tuple[Path, Path],
    champion: tuple[Path, Path],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Score two models on the same photos, each at its own thresholds.

    The interval of the difference is a paired bootstrap: in each resample both are judged on the
    same photos, so that what is hard for both cancels out.

    Args:
        judged: The photos.
        challenger: Its model file and its thresholds file.
        champion: The same of the other.
        resamples: Of the bootstrap.
        seed: Of the resamples.

    Returns:
        `COLUMNS`; difference is the challenger minus the champion, low and high its 95% interval.
    """
    weights = scores.draw_weights(len(judged), resamples, seed, judged.groups)
    new, old = (_score(judged, *files, weights) for files in (challenger, champion))
    rows = [
        (name, new[name][0], old[name][0], *_describe(new[name] - old[name])) for name in METRICS
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _describe(difference: np.ndarray) -> tuple[float, float, float]:
    low, high = scores.interval(difference)
    return float(difference[0]), float(low), float(high)


def _score(
    judged: Dataset, model_file: Path, thresholds_file: Path, weights: np.ndarray
) -> dict[str, np.ndarray]:
    network, metadata = load_model(model_file)
    point, device = read_json(thresholds_file), pick_device()
    logits = predict_logits(network.to(device), judged, device) / point["temperature"]
    thresholds = np.array([point["thresholds"][label] for label in metadata.labels])
    probabilities = sigmoid(logits)
    return (
        scores.score_decisions(judged.targets, probabilities >= thresholds, weights)
        | scores.score_rankings(judged.targets, probabilities, weights)
        | {"loss": scores.score_losses(judged.targets, logits, weights)}
    )


def judge(comparison: pd.DataFrame) -> tuple[bool, str]:
    """Decide whether the challenger wins, and say why.

    It wins when the whole 95% interval of the difference in micro F1 is above 0: a lead that other
    photos of the same kind might as well have turned round does not count.
    """
    row = comparison.set_index("metric").loc[DECIDES].to_dict()
    wins = bool(row["low"] > 0)
    verb = "beats" if wins else "does not clearly beat"
    return wins, (
        f"micro F1 {row['challenger']:.4f} {verb} {row['champion']:.4f}: the difference, "
        f"{row['difference']:+.4f}, is {row['low']:+.4f} to {row['high']:+.4f} at 95% on the same "
        "photos"
    )
