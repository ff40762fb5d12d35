"""Linear probes for several sets of photos, fitted at the same time with L-BFGS."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from phototag.dataset.dataset import Dataset, read_batch
from phototag.dataset.targets import UNKNOWN, is_known
from phototag.network import distributed
from phototag.training.lbfgs import estimate_newton_step, search_line
from phototag.training.losses import loss_slopes, positive_weights
from phototag.training.params import TrainingParams

ITERATIONS = 100  # largest number of L-BFGS iterations per L2 strength
TOLERANCE = 1e-8  # a fit ends when its loss, in nats, is estimated to exceed the minimum by half
MEMORY = 6  # number of earlier iterations from which L-BFGS estimates the curvature
NUDGE = 0.05  # change of the logits from which the curvature of the loss is estimated
CHUNK = 4096  # number of photos that are read at a time
DIRECTIONS, SAMPLE = 128, 4096  # directions of the preconditioner, and photos that determine them
BLOCK = 2**26  # largest number of logits that are computed at a time


class Probes(nn.Module):
    """Linear probes on the same features, each fitted to other photos.

    A probe minimises `mean_loss + l2 / 2 * sum(weights ** 2)`. The mean is over all known targets
    of its photos. Biases are not penalised, so that a probe can predict low probabilities for rare
    labels. If a label has the same target in all photos of a probe, its weights are 0, and its bias
    is the logit of its frequency, with half a photo of the other target.

    The labels of a probe are independent problems. Processes and CPU threads share the labels. Each
    thread solves many problems of all probes at the same time by L-BFGS (Liu and Nocedal, 1989), so
    that each iteration takes two large matrix products. Each problem has its own line search, and
    ends when it has converged.

    Args:
        photos: Cached features and targets of the photos.
        used: Photos to which each probe is fitted, bool [num_probes, num_photos].
        standardize: Layer that standardises the features.
        params: Params of the `train` stage.

    Attributes:
        weights: Weights for standardised features, with the bias last, float32 [num_probes,
            num_labels, width + 1]. Before the first fit, they predict the label frequencies.
        previous: Weights for the previous L2 strength, of the same shape.
        num_fits: Number of L2 strengths for which the probes were fitted.
    """

    weights: Tensor
    previous: Tensor
    num_fits: Tensor

    def __init__(
        self, photos: Dataset, used: np.ndarray, standardize: nn.Module, params: TrainingParams
    ) -> None:
        super().__init__()
        self.photos, self.params = photos, params
        device = next(standardize.buffers()).device
        self.used = torch.from_numpy(used).to(device)
        known, positive = (
            used.astype(np.float64) @ entries.astype(np.float64)
            for entries in (is_known(photos.targets), photos.targets > 0)
        )
        self.constant = torch.from_numpy((positive == 0) | (positive == known)).to(device)
        # Multiply the loss by the number of labels. It is then a mean over the photos.
        scale = photos.targets.shape[1] / np.maximum(known.sum(axis=1, keepdims=True), 1)
        ratio = positive_weights(positive, known) if params.pos_weight else np.ones_like(known)
        self.scales = torch.from_numpy(np.stack([scale * np.ones_like(ratio), scale * ratio]))
        self.scales = self.scales.float().to(device)  # rows: negatives, positives

        half = 1 / (2 * known + 2)
        rates = np.clip(positive / np.maximum(known, 1), half, 1 - half)
        weights = np.zeros((*rates.shape, photos.images.shape[1] + 1), np.float32)
        weights[..., -1] = np.log(rates / (1 - rates))
        self.register_buffer("weights", torch.from_numpy(weights).to(device))
        self.register_buffer("previous", self.weights.clone())
        self.register_buffer("num_fits", torch.tensor(0))

        self.standardize, self.axes, self.held = standardize.eval(), None, None
        free = psutil.virtual_memory().total
        if device.type == "cuda":
            free = torch.cuda.mem_get_info(device)[0]
        # Keep the features in memory if they fit, because each iteration reads them twice.
        if len(photos) * photos.images[:1].nbytes < free / 4:
            self.held = torch.cat([features for _, features in self._read()])
            if len(photos) < self.held.shape[1]:
                # The best weights are in the span of the features: use coordinates in this span.
                self.axes, triangle = torch.linalg.qr(self.held.T)
                self.held = triangle.T.contiguous()
        self._find_directions()

    @torch.no_grad()
    def _find_directions(self) -> None:
        """Find the directions in which the features of a sample of the photos vary most."""
        count = min(len(self.photos), SAMPLE)
        positions = np.linspace(0, len(self.photos) - 1, count).astype(int)
        if self.held is not None:
            sample = self.held[torch.from_numpy(positions).to(self.held.device)]
        else:
            sample = self.standardize(read_batch(self.photos, positions, self.weights.device)[0])
        with torch.random.fork_rng([sample.device] if sample.is_cuda else []):
            torch.manual_seed(0)
            _, sizes, found = torch.svd_lowrank(sample, q=min(DIRECTIONS, *sample.shape))
        self.directions, self.variances = found, sizes.square() / count
        rest = sample.square().sum() / count - self.variances.sum()
        self.rest = float(rest.clamp(min=0)) / max(sample.shape[1] - len(sizes), 1)

    def _read(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield standardised features, and the positions of their photos."""
        for start in range(0, len(self.photos), CHUNK):
            rows = slice(start, min(start + CHUNK, len(self.photos)))
            positions = np.arange(rows.start, rows.stop)
            features, _ = read_batch(self.photos, positions, self.weights.device)
            yield rows, self.standardize(features)

    def _chunks(self) -> Iterator[tuple[slice, Tensor]]:
        return self._read() if self.held is None else iter([(slice(None), self.held)])

    def _turn(self, weights: Tensor, back: bool = False) -> Tensor:
        """Convert weights to the coordinates in which the probes are fitted, or back."""
        if self.axes is None:
            return weights.clone()
        axes = self.axes.T if back else self.axes
        return torch.cat([weights[..., :-1] @ axes, weights[..., -1:]], dim=-1)

    @torch.no_grad()
    def fit(self, l2: float, labels: np.ndarray | None = None) -> None:
        """Fit some labels (default: all) of all probes with an L2 strength.

        The fit starts from the weights of the previous fits, extrapolated linearly in the logarithm
        of the strength. Each strength must be the previous one times the same factor; otherwise,
        the fit takes longer.
        """
        start = self.weights
        if self.num_fits >= 2:
            start = 2 * start - self.previous
        num_probes, num_labels, _ = start.shape
        labels = np.arange(num_labels) if labels is None else labels
        own = distributed.local_share(labels)
        # Several threads that share one matrix product wait for each other after each product. If
        # another program uses a core, these waits take most of the time. Instead, let each thread
        # fit other labels.
        threads = torch.get_num_threads()
        workers = 1 if start.is_cuda else threads
        size = max(min(BLOCK // (num_probes * len(self.photos)), -(-len(own) // workers)), 1)
        blocks = np.array_split(own, range(size, len(own), size))
        try:
            with ThreadPoolExecutor(workers, "", torch.set_num_threads, (1,)) as pool:
                parts = list(pool.map(lambda labels: self._fit_labels(labels, start, l2), blocks))
        finally:
            torch.set_num_threads(threads)
        found = distributed.gather_rows(torch.cat(parts, dim=1).cpu().numpy().swapaxes(0, 1))
        self.previous.copy_(self.weights)
        self.weights[:, labels] = torch.from_numpy(found.swapaxes(0, 1)).to(start.device)
        self.num_fits += 1

    @torch.no_grad()
    def _fit_labels(self, labels: np.ndarray, start: Tensor, l2: float) -> Tensor:
        """Fit some labels of all probes, and return their weights.

        The rows of all matrices are the problems: one for each probe and label.
        """
        start = start[:, labels]
        weights = self._turn(start.flatten(0, 1))
        own = torch.from_numpy(labels).to(weights.device)
        given = torch.from_numpy(self.photos.targets[:, labels].T).to(weights.device)
        smoothing = self.params.train.label_smoothing
        targets = ((given > 0) * (1 - smoothing) + smoothing / 2).repeat(len(self.used), 1)
        scales = torch.cat(
            [
                torch.where(given > 0, high[own, None], low[own, None]) * (given != UNKNOWN) * used
                for low, high, used in zip(*self.scales, self.used, strict=True)
            ]
        )
        l2 *= self.weights.shape[1]
        penalty = weights.new_full(weights.shape[1:], l2)
        penalty[-1] = 0
        slopes = partial(loss_slopes, self.params.train.loss)
        logits = self._logits(weights)
        curvature = slopes(logits + NUDGE, targets) - slopes(logits - NUDGE, targets)
        curvature = ((scales * curvature).sum(dim=1) / (2 * NUDGE)).clamp(min=1e-9)

        rows = torch.nonzero(~self.constant[:, own].flatten())[:, 0]
        residuals = scales[rows] * slopes(logits[rows], targets[rows])
        gradient = self._gradient(residuals) + penalty * weights[rows]
        memory: list[tuple[Tensor, Tensor]] = []
        for _ in range(ITERATIONS):
            condition = partial(self._condition, curvature=curvature[rows, None], l2=l2)
            direction = -estimate_newton_step(gradient, memory, condition)
            slope = (gradient * direction).sum(dim=1)
            going = slope < -TOLERANCE
            if not going.any():
                break
            if not going.all():
                rows, gradient = rows[going], gradient[going]
                direction, slope = direction[going], slope[going]
                memory = [(step[going], change[going]) for step, change in memory]
            old, start_logits, change = weights[rows], logits[rows], self._logits(direction)
            used, wanted = scales[rows], targets[rows]
            linear, square = ((penalty * each * direction).sum(dim=1) for each in (old, direction))

            def evaluate(steps: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
                moved = start_logits + steps[:, None] * change  # noqa: B023 (called at once)
                residuals = used * slopes(moved, wanted)  # noqa: B023
                return (residuals * change).sum(dim=1) + linear + steps * square, (moved, residuals)  # noqa: B023

            steps, (logits[rows], residuals) = search_line(slope, evaluate)
            move = steps[:, None] * direction
            weights[rows] = old + move
            new = self._gradient(residuals) + penalty * weights[rows]
            memory = [*memory, (move, new - gradient)][-MEMORY:]
            gradient = new
        return self._turn(weights, back=True).view_as(start)

    def _logits(self, weights: Tensor) -> Tensor:
        """Return the logits of all photos, [num_problems, num_photos]."""
        logits = weights.new_empty(len(weights), len(self.photos))
        for rows, features in self._chunks():
            logits[:, rows] = torch.addmm(weights[:, -1:], weights[:, :-1], features.T)
        return logits

    def _gradient(self, residuals: Tensor) -> Tensor:
        """Return the gradient, given the derivatives with respect to the logits."""
        parts = [residuals[:, rows] @ features for rows, features in self._chunks()]
        return torch.cat([sum(parts[1:], parts[0]), residuals.sum(dim=1, keepdim=True)], dim=1)

    def _condition(self, vectors: Tensor, curvature: Tensor, l2: float) -> Tensor:
        """Multiply vectors by the inverse Hessian of a loss with the same curvature everywhere."""
        weights, bias = vectors[:, :-1], vectors[:, -1:]
        rest = 1 / (curvature * self.rest + l2 + 1e-9)
        factors = 1 / (curvature * self.variances + l2 + 1e-9) - rest
        weights = rest * weights + (factors * (weights @ self.directions)) @ self.directions.T
        return torch.cat([weights, bias / curvature], dim=1)

    @torch.no_grad()
    def predict(self, probe: np.ndarray) -> np.ndarray:
        """Predict the logits of each photo with one of the probes.

        Args:
            probe: Number of the probe for each photo, counted from 0, or -1, integers [num_photos].

        Returns:
            Logits, float32 [num_photos, num_labels]; 0 for photos with the number -1.
        """
        logits = np.zeros(self.photos.targets.shape, np.float32)
        weights = self._turn(self.weights)
        for rows, features in self._chunks():
            own = probe[rows]
            for number in np.unique(own[own >= 0]):
                chosen = np.flatnonzero(own == number)
                bias, matrix = weights[number, :, -1], weights[number, :, :-1]
                found = torch.addmm(bias, features[torch.from_numpy(chosen)], matrix.T)
                logits[rows][chosen] = found.cpu().numpy()
        return logits
