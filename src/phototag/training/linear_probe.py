"""The linear probe: a head on cached features, fitted for decreasing L2 strengths.

Each label gets the best L2 strength for this label.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from phototag.dataset.dataset import Dataset, join_datasets, take_photos
from phototag.dataset.folds import FOLDS, assign_folds
from phototag.dataset.targets import UNKNOWN, is_known
from phototag.metrics.losses import entry_cross_entropy
from phototag.metrics.ranking import average_precision_and_auroc
from phototag.metrics.selection import best_record, find_best, steps_since_best
from phototag.network import distributed
from phototag.network.model import find_head
from phototag.network.runtime import keep_freed_memory
from phototag.training.checkpoint import History
from phototag.training.losses import training_loss
from phototag.training.params import TrainingParams
from phototag.training.probes import Probes
from phototag.training.records import Record, score_logits

STEPS_PER_DECADE = 4  # number of steps in which the L2 strength decreases by a factor of 10
PRIOR_STRENGTH = 10  # number of pseudo-positives, see `Choice`
# Settings of the linear probe before fine-tuning.
FIRST_L2, MAX_STEPS, PATIENCE = 0.1, 16, 3


class Choice(nn.Module):
    """The best L2 strength so far for each label.

    The criterion of a label is its loss summed over the photos, plus `PRIOR_STRENGTH` times the
    loss of all labels divided by the number of positives of all labels. Without the second part,
    the strength of a label with few positives would overfit these photos. If the selection metric
    is mAP, the criterion has the negative average precision, multiplied by the number of positives,
    in place of the loss.

    Attributes:
        steps: Step of the best strength of each label, int64 [num_labels].
        criteria: Criterion of each label in this step, float64 [num_labels].
    """

    steps: Tensor
    criteria: Tensor

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(num_labels, dtype=torch.int64))
        self.register_buffer("criteria", torch.full((num_labels,), torch.inf, dtype=torch.float64))

    def is_open(self, step: int, params: TrainingParams) -> np.ndarray:
        """Return which labels are still fitted in a step, bool [num_labels].

        A label is no longer fitted after `train.early_stopping` steps without a better strength.
        """
        patience = params.train.early_stopping
        return np.asarray((step - self.steps <= patience).numpy() | (patience == 0))

    def update(
        self, step: int, targets: np.ndarray, logits: np.ndarray, params: TrainingParams
    ) -> Tensor:
        """Judge the strength of a step; return for which labels it is the best, bool [num_labels].

        Args:
            step: Number of the step.
            targets: Targets of photos to which the probe was not fitted.
            logits: Logits of these photos with the strength of the step. Labels that are no longer
                fitted have those of an earlier step.
            params: Params of the `train` stage.
        """

        def judge() -> np.ndarray:
            positives = (targets > 0).sum(axis=0)
            if params.selection_metric == "val_loss":
                found = entry_cross_entropy(targets, logits).sum(axis=0)
            else:
                plain = np.ones((1, len(targets)))
                precision, _ = average_precision_and_auroc(targets, logits, plain)
                found = -np.nan_to_num(precision[0]) * positives
            return np.asarray(found + PRIOR_STRENGTH * found.sum() / max(positives.sum(), 1))

        criteria = torch.from_numpy(distributed.run_on_first(judge))
        better = (criteria < self.criteria) & torch.from_numpy(self.is_open(step, params))
        self.steps[better], self.criteria[better] = step, criteria[better]
        return better


class LinearProbe(nn.Module):
    """A head, and the photos on which it is fitted and its L2 strengths are chosen.

    Args:
        head: `Standardize` and a linear layer, `build_model(...)[2:]`.
        photos: Cached features and targets of the photos.
        used: Photos to which each probe is fitted, bool [num_probes, num_photos]. The first probe
            becomes the head. The others are fitted only to predict photos.
        judge: Number of the probe that predicts each photo to choose the L2 strengths, or -1 if
            the photo is not predicted, integers [num_photos].

    Attributes:
        logits: Logits of the photos with the chosen L2 strengths, each by its probe in `judge`,
            float32 [num_photos, num_labels].
        train_losses: Sum of the training losses of each label with the chosen strengths, float64
            [num_labels].
        choice: Chosen strengths.
    """

    logits: Tensor
    train_losses: Tensor

    def __init__(
        self, head: nn.Sequential, photos: Dataset, used: np.ndarray, judge: np.ndarray
    ) -> None:
        super().__init__()
        self.head, self.photos, self.used, self.judge = head, photos, used, judge
        self.register_buffer("logits", torch.zeros(photos.targets.shape))
        num_labels = photos.targets.shape[1]
        self.register_buffer("train_losses", torch.zeros(num_labels, dtype=torch.float64))
        self.choice = Choice(num_labels)


def cross_validate(head: nn.Sequential, photos: Dataset, seed: int) -> LinearProbe:
    """Return a probe that is fitted on all photos, and chosen by cross-validation (Stone, 1974)."""
    folds = assign_folds(photos, seed)
    return LinearProbe(head, photos, np.arange(FOLDS + 1)[:, None] != folds, folds)


def hold_out(head: nn.Sequential, train: Dataset, val: Dataset) -> LinearProbe:
    """Return a probe that is fitted on train and chosen on val."""
    in_val = np.arange(len(train) + len(val)) >= len(train)
    return LinearProbe(head, join_datasets([train, val]), ~in_val[None], in_val - 1)


def fit_linear_probe(
    probe: LinearProbe, params: TrainingParams, checkpoint: Path | None = None
) -> Iterator[Record]:
    """Fit a probe for a sequence of decreasing L2 strengths, and yield one record per strength.

    Each step divides the strength by 10^(1/4). `weight_decay` is the first strength, and `epochs`
    the largest number of steps. After each step, the head has the weights of the best strength so
    far for each label (see `Choice`), and the record describes this head. After the last step, the
    head and `probe.logits` are those of the best step (see `metrics.selection`). `checkpoint` is
    used as in `training.loop.fit`.

    Raises:
        InputError: The checkpoint is damaged or could not be written.
    """
    photos, judge = probe.photos, probe.judge
    linear = find_head(probe.head)
    if linear.weight.device.type == "cpu":
        keep_freed_memory()
    probes = Probes(photos, probe.used, probe.head[0], params)
    history = History(checkpoint, {"model": probe, "probes": probes}, params)
    yield from history.records
    bar = tqdm(
        total=params.epochs,
        initial=len(history.records),
        desc="linear probe",
        disable=True if distributed.rank() else None,
    )
    fitted, judged = probe.used[0], judge >= 0
    num_known = max(int(is_known(photos.targets[fitted]).sum()), 1)
    for step in history.remaining():
        l2 = strength(params, step)
        probes.fit(l2, np.flatnonzero(probe.choice.is_open(step, params)))
        logits = probes.predict(judge)
        better = probe.choice.update(step, photos.targets[judged], logits[judged], params)
        own = probes.predict(np.where(fitted, 0, -1))[fitted]
        train_losses = _sum_losses(take_photos(photos, np.flatnonzero(fitted)), own, params)
        with torch.no_grad():
            probe.logits[:, better] = torch.from_numpy(logits)[:, better]
            probe.train_losses[better] = train_losses[better]
            linear.weight[better] = probes.weights[0, better, :-1]
            linear.bias[better] = probes.weights[0, better, -1]
        train_loss = float(probe.train_losses.sum()) / num_known
        scores = score_logits(photos.targets[judged], probe.logits.numpy()[judged])
        bar.update()
        bar.set_postfix(l2=f"{l2:.2g}", val=f"{scores['val_loss']:.4f}")
        yield history.add({"step": step, "l2": l2, "train_loss": train_loss, **scores}, probe)
    bar.close()
    probe.load_state_dict(history.best_weights)


def strength(params: TrainingParams, step: int) -> float:
    """Return the L2 strength of a step."""
    return float(params.weight_decay * 10 ** (-(step - 1) / STEPS_PER_DECADE))


def _sum_losses(photos: Dataset, logits: np.ndarray, params: TrainingParams) -> Tensor:
    """Return the sum of the training losses of each label, float64 [num_labels]."""
    targets = torch.from_numpy(photos.targets).float()
    targets[targets == UNKNOWN] = torch.nan
    loss = training_loss(photos, params, torch.device("cpu"))
    return loss(torch.from_numpy(logits), targets).sum(dim=0, dtype=torch.float64)


def start_from_linear_probe(
    head: nn.Sequential, train: Dataset, val: Dataset, params: TrainingParams
) -> None:
    """Fit the head on the cached features of pretrained backbones, before fine-tuning.

    This is the first half of LP-FT (linear probe, then fine-tuning; Kumar et al., 2022). If
    fine-tuning started with an unfitted head, its gradients would distort the backbone features.
    """
    changes = {
        "weight_decay": FIRST_L2,
        "epochs": MAX_STEPS,
        "train": params.train.model_copy(update={"early_stopping": PATIENCE}),
    }
    changed = params.model_copy(update=changes)
    best = best_record(list(fit_linear_probe(hold_out(head, train, val), changed)))
    tqdm.write(
        f"linear probe before fine-tuning: lowest L2 strength {best['l2']:.2g}, "
        f"val loss {best['val_loss']:.4f}",
        file=sys.stderr,
    )


def predict_nested(probe: LinearProbe, params: TrainingParams) -> np.ndarray:
    """Predict the photos of each fold without using them, by nested cross-validation.

    The photos of fold k are predicted by a probe that was fitted on the other folds. Its L2
    strengths are chosen by cross-validation within the other folds: each of these folds is
    predicted by a probe that was fitted on the remaining ones.

    Returns:
        Logits, float32 [FOLDS, num_photos, num_labels]. Row k - 1 has the logits of the photos in
        fold k, and the logits of the other photos from the cross-validation within their folds. If
        there are fewer groups of photos than folds, the last rows are not used.
    """
    photos = probe.photos
    folds = assign_folds(photos, params.seed)
    present = range(1, folds.max() + 1)
    pairs = [(first, second) for first in present for second in range(first, folds.max() + 1)]
    used = np.stack([~np.isin(folds, pair) for pair in pairs])
    number = {pair: index for index, pair in enumerate(pairs)}
    judges = {
        fold: np.array([number[min(fold, other), max(fold, other)] for other in folds.tolist()])
        for fold in present
    }
    probes = Probes(photos, used, probe.head[0], params)
    found = np.zeros((FOLDS, *photos.targets.shape), np.float32)
    latest = np.zeros_like(found)  # logits with the best strengths so far
    choices = {fold: Choice(photos.targets.shape[1]) for fold in present}
    records: dict[int, list[Record]] = {fold: [] for fold in present}
    for step in tqdm(
        range(1, params.epochs + 1),
        desc="nested cross-validation",
        disable=True if distributed.rank() else None,
    ):
        open_labels = np.any([choices[fold].is_open(step, params) for fold in records], axis=0)
        probes.fit(strength(params, step), np.flatnonzero(open_labels))
        for fold, own in list(records.items()):
            logits, others = probes.predict(judges[fold]), folds != fold
            targets, chosen = photos.targets[others], latest[fold - 1]
            better = choices[fold].update(step, targets, logits[others], params).numpy()
            chosen[:, better] = logits[:, better]
            scores = score_logits(targets, chosen[others])
            best = find_best([*own, {"step": step, **scores}], params.selection_metric)
            own.append({"step": step, **scores, "best_step": best["step"]})
            if best["step"] == step:
                found[fold - 1] = chosen
            elif params.train.early_stopping and (
                steps_since_best(own) >= params.train.early_stopping
            ):
                del records[fold]
        if not records:
            break
    return found
