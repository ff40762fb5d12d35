"""Measure the effect of each training optimization on speed, by disabling it.

Run `python -m benchmarks.train_ablation` on an otherwise idle machine. Each variant trains the
report's network in a separate process, and the variants alternate. The table shows medians of
images per second. The last two variants enable optimizations that are disabled by default.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.train_speed import alternate, build_training, read_photos, time_epoch
from phototag.dataset.dataset import read_batch
from phototag.network.runtime import keep_freed_memory
from phototag.schema.params import Params, read_all_params
from phototag.training.loop import Training

SHIPPED = "as shipped"
MEMORY = "freed memory returned to the kernel"
JPEGS = "JPEGs decoded for each batch"
FP32 = "float32"
COMPILED = "with train.compile"
PADDED = "widths padded to 32, 64, 32, 64, 128"


def channels_first(training: Training) -> None:
    """Store weights and images in PyTorch's default (channels first) memory format."""
    training.model.to(memory_format=torch.contiguous_format)
    training.model.register_forward_pre_hook(lambda _, images: images[0].contiguous())


def relu_before_pool(training: Training) -> None:
    """Apply ReLU before max pooling, as in the report; the output is the same."""
    model = training.model
    assert isinstance(model, nn.Sequential)
    for index, (pool, relu) in enumerate(pairwise(list(model))):
        if isinstance(pool, nn.MaxPool2d):
            model[index], model[index + 1] = relu, pool


def relu_not_in_place(training: Training) -> None:
    """Allocate a new feature map for each ReLU."""
    for module in training.model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False


CHANGES: dict[str, Callable[[Training], None]] = {
    "channels first": channels_first,
    "ReLU before the pool": relu_before_pool,
    "ReLU not in place": relu_not_in_place,
}
ADAM = "Adam not fused"


def measure(side: str, folder: Path) -> float:
    """Train one epoch with the change named `side`; return images per second."""
    if side != MEMORY:
        keep_freed_memory()
    dataset, photos = read_photos(folder)

    def decode(_: object, positions: np.ndarray, __: object) -> tuple[Tensor, Tensor]:
        images = torch.stack([photos[int(position)][0] for position in positions])
        return images, torch.from_numpy(dataset.targets[positions]).float()

    params = _change(read_all_params(), side)
    training = build_training(params, dataset, "fp32" if side == FP32 else "bf16")
    if side == ADAM:
        parameters = training.model.parameters()
        optimizer = torch.optim.Adam(parameters, params.lr, weight_decay=params.weight_decay)
        training = replace(training, optimizer=optimizer)
    if side in CHANGES:
        CHANGES[side](training)
    reader = decode if side == JPEGS else read_batch
    with mock.patch("phototag.training.loop.read_batch", side_effect=reader):
        return time_epoch(training, dataset)


def _change(params: Params, side: str) -> Params:
    values = params.model_dump(mode="json")
    values["train"]["compile"] = side == COMPILED
    if side == PADDED:
        for block, width in zip(values["model"]["conv"], (32, 64, 32, 64, 128), strict=True):
            block["out"] = width
    return Params.model_validate(values)


def main() -> None:
    """Print images per second of each variant, and the ratio to the shipped training."""
    sides = (SHIPPED, FP32, MEMORY, *CHANGES, ADAM, JPEGS, PADDED, COMPILED)
    median = alternate(sides, measure)
    print("speed relative to the shipped training:")
    for side in sides[1:]:
        print(f"{side:<40}{median[side] / median[SHIPPED]:>8.2f}")


if __name__ == "__main__":
    main()
