"""Measure how well familiarity separates foreign images from photos like those in training.

Run `python -m benchmarks.familiarity PROJECT [ARCHIVE ...]`. PROJECT is the folder of a project
with a trained model, whose test photos are compared with foreign images: the synthetic dataset,
noise, text pages, blurred test photos, and the photos in each ARCHIVE (a zip file). AUROC is the
probability that a foreign image is farther from the training photos than a test photo. The column
`all` shows the AUROC if the reference has all training photos without rounding.
"""

import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy.stats import kstest
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from benchmarks.machine import name_processor
from phototag.dataset.dataset import read_datasets
from phototag.decoding.photos import prepare_photo
from phototag.network.familiarity import Familiarity, split_network
from phototag.network.runtime import accelerate, keep_freed_memory
from phototag.network.weights import load_familiarity, load_model
from phototag.serving.limits import is_unfamiliar
from phototag.synthetic.dataset import write_dataset

COUNT = 300  # number of images of each kind
BATCH = 32
WORDS = ["amount", "and", "date", "for", "invoice", "name", "number", "of", "page", "the", "total"]


def main() -> None:
    """Print a table for the model of a project."""
    keep_freed_memory()
    project = Path(sys.argv[1])
    names = ("images.npy", "manifest.csv", "splits.csv")
    datasets = read_datasets(*(project / "data" / name for name in names))
    file = project / "models/model.safetensors"
    network, metadata = load_model(file)
    familiarity = load_familiarity(file)
    assert familiarity is not None
    layers, size = split_network(network, metadata.spec)[0], metadata.size
    train, test = datasets["train"], datasets["test"]
    own = [test.images[row] for row in test.rows[:COUNT]]
    noise = np.random.default_rng(0).integers(0, 256, (COUNT, size, size, 3), np.uint8)
    kinds: dict[str, Sequence[np.ndarray]] = {
        "test photos": own,
        "synthetic dataset": list(draw_synthetic(size)),
        "noise": list(noise),
        "text pages": list(draw_pages(size)),
        "blurred test photos": [blur(photo) for photo in own],
    }
    kinds |= {Path(name).stem: list(read_archive(Path(name), size)) for name in sys.argv[2:]}
    fast = accelerate(layers, torch.from_numpy(np.stack(own[:2])).permute(0, 3, 1, 2))
    start = time.perf_counter()
    features = {kind: compute(fast, images) for kind, images in kinds.items()}
    per_photo = (time.perf_counter() - start) / sum(map(len, kinds.values()))
    everything = Familiarity(
        nn.functional.normalize(compute(fast, [train.images[row] for row in train.rows])),
        familiarity.quantiles,
    )
    known = features["test photos"]
    print(f"{metadata.spec.name}, {len(train)} training photos, {name_processor()}")
    print(describe_cost(familiarity, known, file, per_photo))
    print(f"{'images':22} AUROC    all  below 1")
    for kind, found in features.items():
        areas = [compare(module, known, found) for module in (familiarity, everything)]
        rated = familiarity.rate(familiarity(found)).tolist()
        share = np.mean([is_unfamiliar(value) for value in rated])
        print(f"{kind:22} {areas[0]:.3f}  {areas[1]:.3f}  {share:7.1%}")
    uniform = kstest(familiarity.rate(familiarity(known)).numpy() / 100, "uniform")
    print(f"test photos, KS with uniform: {uniform.statistic:.3f}, p = {uniform.pvalue:.2f}")


@torch.inference_mode()
def compute(layers: nn.Module, images: Sequence[np.ndarray]) -> Tensor:
    """Return the features of images, float32 [num_images, width]."""
    parts = []
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.stack(images[start : start + BATCH])).permute(0, 3, 1, 2)
        parts.append(layers(batch).float())
    return torch.cat(parts)


def compare(familiarity: Familiarity, known: Tensor, foreign: Tensor) -> float:
    """Return the AUROC of the distance."""
    distances = torch.cat([familiarity(known), familiarity(foreign)]).numpy()
    return float(roc_auc_score([0] * len(known) + [1] * len(foreign), distances))


def describe_cost(familiarity: Familiarity, known: Tensor, file: Path, per_photo: float) -> str:
    """Describe the size of the reference, and the time that familiarity adds for one photo."""
    times = []
    for photo in known[:100]:
        start = time.perf_counter()
        familiarity.rate(familiarity(photo[None])).item()
        times.append(time.perf_counter() - start)
    num_bytes = 2 * familiarity.reference.numel() + 4 * familiarity.quantiles.numel()
    return (
        f"reference: {len(familiarity.reference)} photos, {num_bytes / 2**20:.1f} MiB of "
        f"{file.stat().st_size / 2**20:.1f} MiB; ms per photo: familiarity "
        f"{1000 * np.median(times):.2f}, features {1000 * per_photo:.1f}"
    )


def draw_synthetic(size: int) -> Iterator[np.ndarray]:
    """Yield images of the synthetic dataset."""
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder, "sample"), COUNT, 0, 1)
        files = sorted(Path(folder, "sample/images").iterdir())
        yield from decode((file.read_bytes() for file in files), size)


def read_archive(path: Path, size: int) -> Iterator[np.ndarray]:
    """Yield photos of a zip file, at equal intervals."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in sorted(archive.namelist()) if name.lower().endswith(".jpg")]
        chosen = names[:: max(len(names) // COUNT, 1)]
        yield from decode(map(archive.read, chosen), size)


def decode(files: Iterator[bytes], size: int) -> Iterator[np.ndarray]:
    """Yield at most `COUNT` photos, uint8 [size, size, 3]."""
    photos = (prepare_photo(content, size).pixels for content in files)
    yield from islice((photo for photo in photos if photo is not None), COUNT)


def draw_pages(size: int) -> Iterator[np.ndarray]:
    """Yield pages with lines of random words in a random font size and dark colour."""
    rng = np.random.default_rng(1)
    for _ in range(COUNT):
        page = Image.new("RGB", (size, size), tuple(rng.integers(225, 256, 3).tolist()))
        draw, height = ImageDraw.Draw(page), int(rng.integers(size // 28, size // 10))
        font, ink = ImageFont.load_default(height), tuple(rng.integers(0, 80, 3).tolist())
        for line in np.arange(size / 20, size, 1.4 * height):
            draw.text((size / 15, line), " ".join(rng.choice(WORDS, 12)), ink, font)
        yield np.asarray(page)


def blur(photo: np.ndarray) -> np.ndarray:
    """Blur a photo with a standard deviation of 2 % of its side."""
    image = Image.fromarray(photo)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(len(photo) / 50)))


if __name__ == "__main__":
    main()
