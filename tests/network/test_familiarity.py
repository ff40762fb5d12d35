"""Familiarity: its distances are compared with scikit-learn, its distribution with SciPy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from sklearn.neighbors import NearestNeighbors
from torch import nn

from phototag.dataset.dataset import Dataset
from phototag.network.familiarity import (
    NEIGHBOURS,
    Familiarity,
    add_distance,
    fit_familiarity,
    limit_reference,
    measure_distances,
    split_network,
)
from phototag.network.model import build_model
from phototag.network.params import ModelParams
from phototag.network.reference import learn_familiarity, rate_photos
from phototag.network.weights import load_familiarity, load_model, save_model
from tests.models import make_model


def draw_albums(seed: int, num_albums: int, width: int = 16) -> tuple[np.ndarray, list[str]]:
    """Return features of photos in albums of four similar photos, and their albums."""
    rng = np.random.default_rng(seed)
    centres = rng.exponential(size=(num_albums, width))
    photos = np.repeat(centres, 4, axis=0) + 0.05 * rng.standard_normal((4 * num_albums, width))
    return photos.astype(np.float32), [f"{seed}-{n // 4}" for n in range(4 * num_albums)]


def fit(photos: np.ndarray, groups: list[str]) -> Familiarity:
    familiarity = fit_familiarity(photos, groups, photos, groups)
    assert familiarity is not None
    return familiarity


def test_distance_is_the_mean_cosine_distance_to_the_nearest_photos_of_other_groups() -> None:
    photos, groups = draw_albums(0, 50)
    names = np.array(groups)
    found = measure_distances(fit(photos, groups), groups, photos, groups)
    for photo in range(0, len(photos), 9):
        others = photos[names != names[photo]]
        nearest = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="cosine").fit(others)
        distances, _ = nearest.kneighbors(photos[[photo]])
        assert found[photo] == pytest.approx(distances.mean(), abs=2e-4)  # float16 reference


def test_familiarity_is_interpolated_between_quantiles() -> None:
    photos, groups = draw_albums(0, 50)
    familiarity = fit(photos, groups)
    quantiles = familiarity.quantiles.numpy()
    distances = np.linspace(-0.1, 2, 500, dtype=np.float32)
    expected = np.interp(distances, quantiles, np.linspace(100, 0, len(quantiles)))
    found = familiarity.rate(torch.from_numpy(distances)[:, None])
    np.testing.assert_allclose(found, expected, atol=0.2)  # equal quantiles are steps
    assert found[[0, -1]].tolist() == [100, 0]
    assert (found.diff() <= 0).all()


def test_familiarities_of_new_photos_are_distributed_uniformly() -> None:
    """Without the exclusion of the own album, all new photos would be unfamiliar."""
    photos, groups = draw_albums(0, 1000)
    familiarity = fit(photos, groups)
    new, _ = draw_albums(1, 1000)
    rated = familiarity.rate(familiarity(torch.from_numpy(new)))[::4]  # one photo per album
    # Both samples have 1000 albums: two such samples differ by 0.06 in 5 % of all cases.
    assert kstest(rated / 100, "uniform").statistic < 0.06
    foreign = np.random.default_rng(2).standard_normal((100, 16)).astype(np.float32)
    assert (familiarity.rate(familiarity(torch.from_numpy(foreign))) < 1).float().mean() > 0.9


@pytest.mark.parametrize("num_photos", [2, 5, 200])
def test_share_of_unfamiliar_new_photos_is_at_most_that_expected(num_photos: int) -> None:
    """Of n + 1 exchangeable photos, the new one is the farthest with probability 1 / (n + 1)."""
    rng, shares = np.random.default_rng(0), []
    for _ in range(200):
        photos = rng.exponential(size=(num_photos + 50, 8)).astype(np.float32)
        groups = list(map(str, range(len(photos))))
        known, new = photos[:num_photos], photos[num_photos:]
        reference = known[: num_photos // 2]
        compared = known[num_photos // 2 :]
        familiarity = fit_familiarity(
            reference, groups[: len(reference)], compared, groups[-len(compared) :]
        )
        assert familiarity is not None
        rated = familiarity.rate(familiarity(torch.from_numpy(new)))
        shares.append((rated < 1).float().mean())
    count = num_photos - num_photos // 2
    assert np.mean(shares) < max(0.01, 1 / (count + 1)) + 0.03


def test_reference_without_other_groups_gives_no_familiarity() -> None:
    photos, _ = draw_albums(0, 3)
    same = ["album"] * len(photos)
    assert fit_familiarity(photos, same, photos, same) is None


def test_photo_without_features_has_distance_one() -> None:
    photos, groups = draw_albums(0, 10)
    familiarity = fit(photos, groups)
    assert familiarity(torch.zeros(1, 16)).item() == 1


def test_reference_is_limited_in_photos_and_numbers() -> None:
    assert limit_reference(256) == 4096
    assert limit_reference(5120) * 5120 <= 2_000_000
    assert limit_reference(10**7) == NEIGHBOURS


def make_dataset(features: np.ndarray, groups: list[str], rows: np.ndarray) -> Dataset:
    names = [f"im{row}.jpg" for row in rows]
    targets = np.zeros((len(rows), 1), np.int8)
    return Dataset(features, rows, targets, ["cat"], names, names, [groups[row] for row in rows])


@pytest.mark.parametrize("freeze", [True, False])
def test_photos_of_the_reference_are_rated_like_new_photos(
    tiny_spec: ModelParams, freeze: bool
) -> None:
    """If backbones are frozen, val is in the reference too, and its photos find other albums."""
    changes = {"name": "resnet18", "weights": "DEFAULT" if freeze else None, "freeze": freeze}
    spec = tiny_spec.model_copy(update=changes)
    photos, groups = draw_albums(0, 600)
    rows = np.random.default_rng(3).permutation(len(photos))
    rows = rows[np.argsort([int(groups[row].partition("-")[2]) % 2 for row in rows], kind="stable")]
    half = len(photos) // 2
    datasets = {
        "train": make_dataset(photos, groups, rows[:half]),
        "val": make_dataset(photos, groups, rows[half:]),
    }
    network = nn.Sequential(nn.Identity(), nn.Identity(), nn.Linear(16, 1))
    device = torch.device("cpu")
    familiarity = learn_familiarity(network, spec, datasets["train"], datasets["val"], device)
    assert familiarity is not None
    assert len(familiarity.reference) == (len(photos) if freeze else half)
    rated = rate_photos(familiarity, spec, datasets, {"val": datasets["val"]})
    assert rated is not None
    assert kstest(rated[rows[half:]] / 100, "uniform").statistic < 0.06
    assert np.isnan(rated[rows[:half]]).all()
    assert rate_photos(None, spec, datasets, datasets) is None


def test_network_with_distance_has_the_same_logits(tiny_spec: ModelParams) -> None:
    network = build_model(tiny_spec, 3, 16, [0.4] * 3, [0.2] * 3).eval()
    layers, head = split_network(network, tiny_spec)
    images = torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8)
    with torch.inference_mode():
        features = layers(images)
        familiarity = fit(features.numpy(), list(map(str, range(20))))
        found = add_distance(network, tiny_spec, familiarity)(images)
        assert torch.equal(found[:, :3], network(images))
        assert torch.equal(found[:, 3:], familiarity(features))
    assert isinstance(head[-1], nn.Linear)


def test_model_file_keeps_the_familiarity(tmp_path: Path) -> None:
    photos = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), np.uint8)
    path, _ = make_model(tmp_path, photos=photos)
    network, metadata = load_model(path)
    found = load_familiarity(path)
    assert found is not None
    save_model(tmp_path / "again", network, metadata, found)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    old, _ = make_model(tmp_path / "old")
    assert load_familiarity(old) is None
