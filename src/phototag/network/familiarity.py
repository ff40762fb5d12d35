"""Familiarity: how close a photo is to the training photos, compared with other new photos.

The distance of a photo is the mean cosine distance between its features and those of the nearest
photos in the reference, a sample of the training photos (Sun et al., 2022). Its familiarity is the
percentage of new photos, of the same kind as the training photos, that are at least as far away.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from phototag.network.params import ModelParams

NEIGHBOURS = 10  # number of nearest photos whose distances are averaged
MAX_PHOTOS = 4096  # largest number of photos in the reference
MAX_NUMBERS = 2_000_000  # largest number of features in the reference, which is 4 MB
QUANTILES = 1001


class Familiarity(nn.Module):
    """Compares the features of photos with those of training photos.

    Attributes:
        reference: Features of training photos, scaled to length 1, float32 [num_photos, width]. The
            values can be stored as float16 without a loss.
        quantiles: Quantiles of the distances of photos that are not in the reference, in ascending
            order, float32 [QUANTILES].
    """

    reference: Tensor
    quantiles: Tensor

    def __init__(self, reference: Tensor, quantiles: Tensor) -> None:
        super().__init__()
        self.register_buffer("reference", reference.float())
        self.register_buffer("quantiles", quantiles)

    def forward(self, features: Tensor, excluded: Tensor | None = None) -> Tensor:
        """Map features, float [batch, width], to distances, 0..2, float32 [batch, 1].

        `excluded` selects the photos of the reference that are ignored, bool [batch, num_photos].
        The distance is infinite if too few photos remain.
        """
        similarity = nn.functional.normalize(features.float()) @ self.reference.T
        if excluded is not None:
            similarity = similarity.masked_fill(excluded, -torch.inf)
        nearest = similarity.topk(min(NEIGHBOURS, len(self.reference))).values
        return 1 - nearest.mean(dim=1, keepdim=True)

    def rate(self, distances: Tensor) -> Tensor:
        """Map distances, [batch, 1], to familiarities, 0..100, float32 [batch].

        The familiarity is interpolated linearly between the quantiles.
        """
        low, high = self.quantiles[:-1], self.quantiles[1:]
        # Equal quantiles give a step.
        width = (high - low).clamp_min(torch.finfo(high.dtype).tiny)
        return 100 * ((high - distances) / width).clamp(0, 1).mean(dim=1)


def fit_familiarity(
    reference: np.ndarray,
    groups: Sequence[str],
    compared: np.ndarray,
    compared_groups: Sequence[str],
) -> Familiarity | None:
    """Choose the quantiles, so that the familiarities of new photos are distributed uniformly.

    The distance of each compared photo is computed without the photos of the same group.

    Args:
        reference: Features of the training photos in the reference, float [num_photos, width].
        groups: Group of each photo in the reference, [num_photos].
        compared: Features of the photos whose distances are compared, float [num_compared, width].
            They must not have been used to train the layers that compute the features.
        compared_groups: Group of each compared photo, [num_compared].

    Returns:
        The fitted module, or None if no photo can be compared, because all are in one group.
    """
    # Round the features first, because the quantiles must fit the reference in the model file.
    scaled = nn.functional.normalize(torch.from_numpy(reference).float()).half()
    familiarity = Familiarity(scaled, torch.zeros(QUANTILES))
    distances = measure_distances(familiarity, groups, compared, compared_groups)
    distances = distances[np.isfinite(distances)]
    if not len(distances):
        return None
    # With these quantiles, a share of at most q of new photos lies above the quantile 1 - q.
    quantiles = np.quantile(distances, np.linspace(0, 1, QUANTILES), method="weibull")
    familiarity.quantiles = torch.from_numpy(quantiles).float()
    return familiarity


@torch.inference_mode()
def measure_distances(
    familiarity: Familiarity,
    groups: Sequence[str],
    features: np.ndarray,
    own_groups: Sequence[str],
) -> np.ndarray:
    """Return the distance of each photo to the photos of other groups, float32 [num_photos].

    `groups` are those of the photos in the reference, and `own_groups` those of the photos with
    these features. The distance is infinite if too few photos are in other groups.
    """
    numbers = np.unique([*groups, *own_groups], return_inverse=True)[1]
    known, own = (torch.from_numpy(part) for part in np.split(numbers, [len(groups)]))
    distances = familiarity(torch.from_numpy(features), own[:, None] == known)
    return np.asarray(distances.squeeze(1).numpy())


def limit_reference(width: int) -> int:
    """Return the largest number of photos in the reference if a photo has `width` features."""
    return min(MAX_PHOTOS, max(MAX_NUMBERS // width, NEIGHBOURS))


def split_network(network: nn.Sequential, spec: ModelParams) -> tuple[nn.Sequential, nn.Sequential]:
    """Return the layers that compute the features, and those that map features to logits."""
    end = 2 if spec.backbones else len(network) - 1
    return network[:end], network[end:]


class LogitsAndDistance(nn.Module):
    """A head that also returns the distance of each photo and, if asked for, its features."""

    def __init__(self, head: nn.Module, familiarity: Familiarity, with_features: bool) -> None:
        super().__init__()
        self.head, self.familiarity, self.with_features = head, familiarity, with_features

    def forward(self, features: Tensor) -> Tensor:
        """Map features, [batch, width], to logits and distance, float [batch, num_labels + 1].

        If `with_features` is true, the features follow, float [batch, num_labels + 1 + width].
        """
        columns = [self.head(features), self.familiarity(features)]
        return torch.cat([*columns, features] if self.with_features else columns, dim=1)


def add_distance(
    network: nn.Sequential,
    spec: ModelParams,
    familiarity: Familiarity,
    with_features: bool = False,
) -> nn.Sequential:
    """Return a network with the same layers that outputs the logits, and then the distance.

    If `with_features` is true, it also outputs the features.
    """
    layers, head = split_network(network, spec)
    return nn.Sequential(*layers, LogitsAndDistance(head, familiarity, with_features)).eval()
