"""Cross-validation of linear probes for all labels, folds and seeds at once.

The columns of one weight matrix are the probes of all combinations of seed, fold and label, so each
iteration takes two matrix products. The features are rotated to their principal axes, where the
Hessian is nearly diagonal. L-BFGS with this preconditioner needs 3 to 8 iterations per L2 strength.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from phototag.evaluation.thresholds import fit_thresholds
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.classification import f1_score
from phototag.metrics.losses import binary_cross_entropy, entry_cross_entropy, sigmoid
from phototag.metrics.ranking import mean_average_precision
from phototag.splitting.splits import split_groups

SEEDS, FOLDS = (0, 1, 2), 5
STRENGTHS = [0.1 * 10 ** (-step / 4) for step in range(16)]
PATIENCE = 2  # number of strengths without a lower loss after which the search ends
ITERATIONS, HISTORY, TOLERANCE = 60, 6, 2e-6
MAX_AXES = 3000  # wider features are not rotated, because the decomposition would take minutes


@dataclass(frozen=True)
class Photos:
    """Targets without unknown entries, [num_photos, num_labels], and the group of each photo."""

    targets: np.ndarray
    groups: list[str]


def assign_folds(photos: Photos) -> np.ndarray:
    """Return the fold of each photo by seed, [seeds, num_photos]; -1 for photos of test."""
    folds = np.full((len(SEEDS), len(photos.groups)), -1)
    for seed in SEEDS:
        side = split_groups(photos.targets, photos.groups, (0.8, 0.1, 0.1), seed)
        own = np.flatnonzero(side < 2)
        names, members = np.unique(np.asarray(photos.groups)[own], return_inverse=True)
        folds[seed, own] = np.random.default_rng([seed, FOLDS]).permutation(len(names))[members]
    return np.where(folds < 0, -1, folds % FOLDS)


class Probes:
    """Linear probes for each seed, fold and label; `fit` starts from the previous weights.

    Args:
        features: Features of all photos, float32 [num_photos, width].
        targets: Targets, [num_photos, num_labels].
        train: Whether a photo is in the training part of a fold, bool [num_parts, num_photos].
    """

    def __init__(self, features: np.ndarray, targets: np.ndarray, train: np.ndarray) -> None:
        rotated = _rotate(torch.from_numpy(_standardize(features)))
        self.x = torch.cat([rotated, torch.ones(len(rotated), 1)], 1)
        self.num_labels = targets.shape[1]
        self.y = torch.from_numpy(targets.astype(np.float32)).repeat(1, len(train))
        share = torch.from_numpy(train.T / train.sum(1)).float()
        self.share = share.repeat_interleave(self.num_labels, 1)
        self.weights = torch.zeros(self.x.shape[1], self.y.shape[1])
        self.weights[-1] = torch.logit((self.share * self.y).sum(0), eps=1e-4)
        self.logits = self.weights[-1].repeat(len(self.x), 1)

    def fit(self, l2: float) -> np.ndarray:
        """Minimise `mean_loss + l2 / 2 * sum(weights ** 2)`; return the logits of all photos.

        The mean is over photos and labels, as in the `train` stage. The result is float32
        [num_photos, num_parts, num_labels].
        """
        penalty = torch.full((len(self.weights), 1), l2 * self.num_labels)
        penalty[-1] = 0  # the biases are not penalised
        spread = torch.sigmoid(self.logits)
        curvature = (self.share * spread * (1 - spread)).sum(0)
        scale = 1 / (self.x.square().mean(0)[:, None] * curvature + penalty)
        gradient, pairs = self._gradient(penalty), list[tuple[Tensor, Tensor]]()
        for _ in range(ITERATIONS):
            direction = -_apply_inverse(gradient, pairs, scale)
            if float(-(gradient * direction).sum(0).mean()) < 2 * TOLERANCE:
                break
            step = self._search(direction, penalty)
            self.weights += step * direction
            new = self._gradient(penalty)
            pairs = [*pairs, (step * direction, new - gradient)][-HISTORY:]
            gradient = new
        return np.asarray(self.logits.numpy().reshape(len(self.x), -1, self.num_labels))

    def _gradient(self, penalty: Tensor) -> Tensor:
        errors = self.share * (torch.sigmoid(self.logits) - self.y)
        return self.x.T @ errors + penalty * self.weights

    def _search(self, direction: Tensor, penalty: Tensor) -> Tensor:
        """Find the best step of each column with Newton's method, and update the logits."""
        change, step = self.x @ direction, torch.ones(direction.shape[1])
        slope = (penalty * self.weights * direction).sum(0)
        bend = (penalty * direction.square()).sum(0)
        for _ in range(3):
            rates = torch.sigmoid(self.logits + step * change)
            part = self.share * change
            first = (part * (rates - self.y)).sum(0) + slope + step * bend
            second = (part * change * rates * (1 - rates)).sum(0) + bend
            step = (step - first / second.clamp_min(1e-12)).clamp(0.05, 8)
        self.logits += step * change
        return step


def _standardize(features: np.ndarray) -> np.ndarray:
    std = features.std(0)
    scaled = (features - features.mean(0)) / np.where(std > 1e-6, std, 1)
    return np.asarray(scaled, np.float32)


def _rotate(x: Tensor) -> Tensor:
    """Rotate features to their principal axes, which changes no L2-regularised linear probe."""
    if min(x.shape) > MAX_AXES:
        return x
    if x.shape[1] <= len(x):
        axes: Tensor = torch.linalg.eigh(x.T @ x)[1]
        return x @ axes
    values, vectors = torch.linalg.eigh(x @ x.T)
    rotated: Tensor = vectors * values.clamp_min(0).sqrt()
    return rotated


def _apply_inverse(gradient: Tensor, pairs: list[tuple[Tensor, Tensor]], scale: Tensor) -> Tensor:
    """Multiply by the inverse Hessian of L-BFGS (two-loop recursion), column by column."""
    found, factors = gradient.clone(), []
    for step, change in reversed(pairs):
        inverse = 1 / (step * change).sum(0).clamp_min(1e-20)
        factors.append(inverse * (step * found).sum(0))
        found -= factors[-1] * change
    found *= scale
    for (step, change), factor in zip(pairs, reversed(factors), strict=True):
        inverse = 1 / (step * change).sum(0).clamp_min(1e-20)
        found += (factor - inverse * (change * found).sum(0)) * step
    return found


def cross_validate(photos: Photos, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predict each photo of train and val out of fold, for each seed.

    The L2 strength of a seed is the one with the lowest out-of-fold loss.

    Returns:
        Logits, float32 [seeds, num_photos, num_labels], 0 for photos of test; and the strength of
        each seed.
    """
    folds = assign_folds(photos)
    train = np.concatenate([(row >= 0) & (row != k) for row in folds for k in range(FOLDS)])
    probes = Probes(features, photos.targets, train.reshape(-1, len(features)))
    best, strengths = np.full(len(SEEDS), np.inf), np.zeros(len(SEEDS))
    logits = np.zeros((len(SEEDS), *photos.targets.shape), np.float32)
    last = 0
    for number, l2 in enumerate(STRENGTHS):
        fitted = probes.fit(l2)
        for seed, fold in enumerate(folds):
            own = np.flatnonzero(fold >= 0)
            found = fitted[own, seed * FOLDS + fold[own]]
            loss = binary_cross_entropy(photos.targets[own], found)
            if loss < best[seed]:
                best[seed], strengths[seed], logits[seed, own], last = loss, l2, found, number
        if number - last >= PATIENCE:
            break
    return logits, strengths


def score(photos: Photos, logits: np.ndarray) -> dict[str, float]:
    """Return loss, F1 at thresholds chosen out of fold, and mAP, as means over the seeds."""
    rows = []
    for seed, fold in enumerate(assign_folds(photos)):
        own = np.flatnonzero(fold >= 0)
        targets, found = photos.targets[own], logits[seed, own]
        weights = bootstrap_weights(len(own), 30, seed, [photos.groups[row] for row in own])
        predicted = sigmoid(found) >= fit_thresholds(targets, sigmoid(found), 10, weights).values
        rows.append(
            {
                "loss": float(entry_cross_entropy(targets, found).mean()),
                "f1_micro": f1_score(targets, predicted, "micro"),
                "f1_macro": f1_score(targets, predicted, "macro"),
                "mAP": mean_average_precision(targets, found),
            }
        )
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
