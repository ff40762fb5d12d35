"""Compare the training speed of the report's network with a stock PyTorch loop and with matmul.

Run `python -m benchmarks.train_speed` on an otherwise idle machine. The variants alternate; the
table shows medians. The stock loop follows tutorials: a DataLoader with two workers that decode
JPEGs, eager float32, and Adam. The matmul rate is measured with one large product of matrices.
"""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from benchmarks.synthetic import draw_noise, encode_jpeg
from phototag.dataset.dataset import Dataset, read_batch
from phototag.network.model import build_model, initialize
from phototag.network.runtime import keep_freed_memory
from phototag.schema.params import Params, read_all_params
from phototag.training import loop

COUNT = 1024
LABELS = 14
REPEATS = 5
# Multiply-adds per image, forward and backward, measured with PyTorch's FLOP counter.
MULTIPLY_ADDS = 195e6


class Photos(TorchDataset[tuple[torch.Tensor, torch.Tensor]]):
    """A dataset of JPEG files and their targets."""

    def __init__(self, files: list[Path], targets: np.ndarray) -> None:
        self.files, self.targets = files, torch.from_numpy(targets).float()
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.25] * 3)]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transform(Image.open(self.files[index]).convert("RGB")), self.targets[index]


def stock_network() -> nn.Sequential:
    """Return the report's network with layers ordered as in the report: conv, ReLU, pool."""
    layers: list[nn.Module] = []
    channels = 3
    for out, kernel, pool in ((20, 3, 2), (40, 3, 2), (20, 1, 1), (50, 5, 2), (100, 7, 2)):
        layers += [nn.Conv2d(channels, out, kernel), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool == 2 else []
        channels = out
    layers += [nn.Flatten(), nn.Linear(900, 2048), nn.ReLU(), nn.Linear(2048, 512), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(512, LABELS))


def stock_epoch(photos: Photos) -> float:
    """Train one epoch with the stock loop; return images per second."""
    loader = DataLoader(photos, batch_size=64, shuffle=True, num_workers=2)
    model = stock_network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0005, weight_decay=0.0002)
    criterion = nn.BCEWithLogitsLoss()
    start = time.perf_counter()
    for images, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(images), targets)
        loss.backward()
        optimizer.step()
    return COUNT / (time.perf_counter() - start)


def our_epoch(params: Params, dataset: Dataset, precision: str) -> float:
    """Train one epoch like the train stage; return images per second."""
    return time_epoch(build_training(params, dataset, precision), dataset)


def build_training(params: Params, dataset: Dataset, precision: str) -> loop.Training:
    """Return the state of a training of the network in params.yaml, with 14 labels."""
    model = build_model(params.model, LABELS, 128, [0.5] * 3, [0.25] * 3)
    initialize(model, params.model, torch.full((LABELS,), 0.1))
    return loop.build_training(model, dataset, params.model_copy(update={"precision": precision}))


def time_epoch(training: loop.Training, dataset: Dataset) -> float:
    """Train one epoch and return images per second."""
    start = time.perf_counter()
    loop.train_one_epoch(training, dataset, 1)
    return COUNT / (time.perf_counter() - start)


def resident_epoch(params: Params, dataset: Dataset) -> float:
    """Train one epoch in which every batch is the same one in memory; return images per second."""
    batch = read_batch(dataset, np.arange(64), torch.device("cpu"))
    with mock.patch("phototag.training.loop.read_batch", return_value=batch):
        return our_epoch(params, dataset, params.precision)


def matmul_rate(dtype: torch.dtype) -> float:
    """Return the multiply-adds per second in a large matrix product."""
    a, b = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
    a @ b
    start = time.perf_counter()
    for _ in range(10):
        a @ b
    return 10 * 2048**3 / (time.perf_counter() - start)


def draw_photos(folder: Path) -> None:
    """Write noise images to a folder, as a packed array and as JPEG files."""
    shape = (COUNT, 128, 128, 3)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, shape)
    for index in range(COUNT):
        image = draw_noise(128, 128, index)
        images[index] = np.asarray(image)
        (folder / f"{index}.jpg").write_bytes(encode_jpeg(image))
    images.flush()


def read_photos(folder: Path) -> tuple[Dataset, Photos]:
    """Return the images written by `draw_photos`, as a packed array and as JPEG files."""
    targets = (np.random.default_rng(0).random((COUNT, LABELS)) < 0.1).astype(np.uint8)
    files = [folder / f"{index}.jpg" for index in range(COUNT)]
    names = [file.name for file in files]
    labels = [str(label) for label in range(LABELS)]
    images = np.load(folder / "images.npy", mmap_mode="r")
    return Dataset(images, np.arange(COUNT), targets, labels, names, names), Photos(files, targets)


def measure(side: str, folder: Path) -> float:
    """Measure one variant once, in this process; return its rate."""
    if "matmul" in side:
        return matmul_rate(torch.bfloat16 if "bf16" in side else torch.float32) / 1e9
    params = read_all_params()
    dataset, photos = read_photos(folder)
    if "stock" in side:
        return stock_epoch(photos)
    keep_freed_memory()
    if "resident" in side:
        return resident_epoch(params, dataset)
    return our_epoch(params, dataset, side.rpartition(" ")[2])


SIDES = (
    "stock loop, fp32",
    "phototag, fp32",
    "phototag, bf16",
    "phototag, one resident batch",
    "matmul fp32, G multiply-adds/s",
    "matmul bf16, G multiply-adds/s",
)


def alternate(sides: Sequence[str], measure_side: Callable[[str, Path], float]) -> dict[str, float]:
    """Run all variants alternately, each in a separate process; print and return median rates.

    Args:
        sides: Names of the variants.
        measure_side: Function of a variant and the folder of the photos that returns the rate.
    """
    spawn = multiprocessing.get_context("spawn")
    rates: dict[str, list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        draw_photos(Path(name))
        pools = {
            side: stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn)) for side in sides
        }
        for repeat in range(REPEATS + 1):
            for side, pool in pools.items():
                rate = pool.submit(measure_side, side, Path(name)).result()
                if repeat:  # the first round is a warm-up
                    rates[side].append(rate)
    for side, values in rates.items():
        middle = statistics.median(values)
        print(f"{side:<40}{middle:>8.0f}   ({min(values):.0f} to {max(values):.0f})")
    return {side: statistics.median(values) for side, values in rates.items()}


def main() -> None:
    """Print images per second of each variant, and ratios between variants."""
    median = alternate(SIDES, measure)
    stock, fp32, bf16, resident, _, rate = median.values()
    print(f"speed relative to the stock loop: fp32 {fp32 / stock:.2f}, bf16 {bf16 / stock:.2f}")
    print(f"bf16 training / bf16 matmul rate: {bf16 * MULTIPLY_ADDS / (rate * 1e9):.1%}")
    print(f"epoch time with all photos / with one batch in memory: {resident / bf16:.3f}")


if __name__ == "__main__":
    main()
