"""Choice of the reference of a model's familiarity, and familiarity of the photos in a dataset."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from phototag.dataset.dataset import Dataset, join_datasets, take_photos
from phototag.network.familiarity import (
    MAX_PHOTOS,
    Familiarity,
    fit_familiarity,
    limit_reference,
    measure_distances,
    split_network,
)
from phototag.network.inference import predict_logits
from phototag.network.params import ModelParams


def learn_familiarity(
    network: nn.Sequential, spec: ModelParams, train: Dataset, val: Dataset, device: torch.device
) -> Familiarity | None:
    """Learn how far new photos are from the training photos.

    Layers that were trained on train give other features for train than for new photos. In this
    case, new photos are represented by val. Frozen backbones were trained on neither, so that
    train and val form the reference, and new photos are represented by all of them.

    Args:
        network: Trained network.
        spec: Params of the network.
        train: Training photos or, if the backbones are frozen, their cached features.
        val: Photos or features of val.
        device: Device of the network.

    Returns:
        The familiarity, or None if all photos are in one group.
    """
    layers = nn.Identity() if spec.frozen else split_network(network, spec)[0]
    width = predict_logits(layers, choose_evenly(train, 1), device).shape[1]
    photos = join_datasets([train, val])
    reference = choose_evenly(photos if spec.frozen else train, limit_reference(width))
    compared = choose_evenly(photos if spec.frozen else val, MAX_PHOTOS)
    return fit_familiarity(
        predict_logits(layers, reference, device),
        reference.groups or reference.files,
        predict_logits(layers, compared, device),
        compared.groups or compared.files,
    )


def choose_evenly(photos: Dataset, limit: int) -> Dataset:
    """Return at most `limit` photos, at equal intervals."""
    count = min(len(photos), limit)
    return take_photos(photos, np.linspace(0, len(photos) - 1, count).astype(int))


def compute_features(layers: nn.Module, photos: Dataset, device: torch.device) -> Dataset:
    """Replace the photos of a dataset by the features that the layers compute."""
    features = predict_logits(layers, photos, device)
    return replace(photos, images=features, rows=np.arange(len(photos)))


def rate_photos(
    familiarity: Familiarity | None,
    spec: ModelParams,
    datasets: Mapping[str, Dataset],
    features: Mapping[str, Dataset],
) -> np.ndarray | None:
    """Return the familiarity of each photo in the packed array, 0..100, float32 [num_images].

    A photo is not compared with photos of the same group, because the reference of frozen backbones
    also contains photos of train and val. The result is None if the model has no familiarity.

    Args:
        familiarity: Familiarity of the model.
        spec: Params of the network.
        datasets: Dictionary from split name to photos, from which `learn_familiarity` chose the
            reference.
        features: Dictionary from split name to features. Photos of other splits are NaN.
    """
    if familiarity is None:
        return None
    train = datasets["train"]
    if spec.frozen:
        train = join_datasets([train, datasets["val"]])
    known = choose_evenly(train, len(familiarity.reference))
    rated = np.full(len(train.images), np.nan, np.float32)
    for split, photos in features.items():
        groups, rows = photos.groups or photos.files, datasets[split].rows
        for start in range(0, len(photos), MAX_PHOTOS):
            part = slice(start, start + MAX_PHOTOS)
            distances = measure_distances(
                familiarity,
                known.groups or known.files,
                photos.images[photos.rows[part]],
                groups[part],
            )
            rated[rows[part]] = familiarity.rate(torch.from_numpy(distances)[:, None])
    return rated
