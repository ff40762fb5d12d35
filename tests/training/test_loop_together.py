"""Two processes train as one, and decide as one."""

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from phototag.base.errors import InputError
from phototag.dataset import dataset
from phototag.dataset.dataset import Dataset
from phototag.metrics.losses import binary_cross_entropy
from phototag.network import distributed
from phototag.network.inference import predict_logits
from phototag.network.model import build_model, initialize
from phototag.schema.params import Params
from phototag.training import loop
from phototag.training.losses import Loss
from tests.processes import run_together

Datasets = dict[str, Dataset]
Found = tuple[list[loop.Epoch], dict[str, Tensor], float]
BLOCK = {"kernel": 3, "pool": 2, "residual": 1}
LOOP = "phototag.training.loop"


@pytest.fixture
def params(params_values: dict[str, Any]) -> Params:
    """Batch norm, averaged weights, and every augmentation that needs photos to work on."""
    values = copy.deepcopy(params_values)
    values |= {"lr": 0.01, "batch_size": 23, "epochs": 4, "precision": "fp32", "optimizer": "adam"}
    values["model"] |= {"conv": [{"out": 8, **BLOCK}], "linear": [16], "batch_norm": True}
    values["augment"] |= {"rotate": 10, "zoom": 0.2, "mixup": 0.3, "crop": 0.1, "hue": 0.1}
    values["augment"] |= {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "grayscale": 0.1}
    values["train"] |= {"ema": 0.9, "clip_norm": 1.0}
    return Params.model_validate(values)


def build(params: Params) -> nn.Sequential:
    torch.manual_seed(0)
    model = build_model(params.model, 3, 16, [0.5] * 3, [0.25] * 3)
    initialize(model, params.model, torch.full((3,), 0.4))
    return model


def train(params: Params, datasets: Datasets, checkpoint: Path | None = None) -> Found:
    """Train; the records, the kept weights, and what they give on all of val."""
    model = build(params)
    records = list(loop.fit(model, datasets["train"], datasets["val"], params, checkpoint))
    logits = predict_logits(model, datasets["val"], torch.device("cpu"))
    return records, model.state_dict(), binary_cross_entropy(datasets["val"].targets, logits)


def train_and_go_on(params: Params, datasets: Datasets, checkpoint: Path) -> tuple[Found, Found]:
    whole = train(params, datasets)
    interrupted = loop.fit(build(params), datasets["train"], datasets["val"], params, checkpoint)
    assert len(list(islice(interrupted, 2))) == 2
    return whole, train(params, datasets, checkpoint)


def test_with_batch_norm_and_average_they_train_as_one(
    params: Params, partly: Datasets, tmp_path: Path
) -> None:
    """24 photos in batches of 23: of the last batch, the first process has no photo.

    Of each photo other labels are known: the mean is over what all processes know.
    """
    datasets = partly
    alone, weights, _ = train(params, datasets)
    both = run_together(tmp_path, train_and_go_on, params, datasets, tmp_path / "state.pt")
    for whole, resumed in both:
        records, kept, loss = whole
        for name in ("train_loss", "val_loss", "f1_micro", "mAP", "kept", "lr"):
            expected = [getattr(record, name) for record in alone]
            assert [getattr(r, name) for r in records] == pytest.approx(expected, abs=1e-5), name
        # What was recorded is what the kept weights give, on either process.
        assert loss == pytest.approx(records[records[-1].kept - 1].val_loss, abs=1e-7)
        for name, value in weights.items():
            torch.testing.assert_close(kept[name], value, rtol=0, atol=1e-3)
        assert all(torch.equal(kept[name], value) for name, value in resumed[1].items())
        plain = [[replace(r, images_per_second=0) for r in each[0]] for each in (whole, resumed)]
        assert plain[0] == plain[1]
    (first, _), (second, _) = both
    assert first[0] == second[0]
    assert all(torch.equal(second[1][name], value) for name, value in first[1].items())


def infinite_in_the_second(step: int) -> Callable[..., Loss]:
    """Make a loss that is infinite at one step, in the second process alone."""
    steps = iter(range(1, 100))

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        broken = next(steps) == step and distributed.rank() == 1
        return (logits - targets).square() * (float("inf") if broken else 1)

    return lambda *_: loss


def diverge(params: Params, datasets: Datasets) -> None:
    with mock.patch(f"{LOOP}.build_loss", infinite_in_the_second(step=2)):
        train(params, datasets)


def test_a_loss_that_is_infinite_in_one_stops_both_at_that_step(
    params: Params, datasets: Datasets, tmp_path: Path
) -> None:
    params = params.model_copy(update={"batch_size": 8})
    for error in run_together(tmp_path, diverge, params, datasets):
        assert isinstance(error, InputError)
        assert str(error).startswith("epoch 1: the loss of step 2 is not finite; the learning rate")


def score_apart(params: Params, datasets: Datasets) -> list[loop.Epoch]:
    """Train where the second process finds val losses of its own, as another processor might."""
    worse = iter(range(100))
    own = binary_cross_entropy if distributed.rank() == 0 else lambda *_: float(next(worse))
    with mock.patch(f"{LOOP}.binary_cross_entropy", own):
        return train(params, datasets)[0]


def test_both_stop_early_by_the_first_ones_scores(
    params: Params, datasets: Datasets, tmp_path: Path
) -> None:
    values = params.model_dump()
    values["train"] |= {"early_stopping": 2}
    values |= {"lr": 0.3, "epochs": 30}
    first, second = run_together(tmp_path, score_apart, Params.model_validate(values), datasets)
    assert first == second
    assert 2 < len(first) < 30
    assert first[-1].kept == len(first) - 2


def orders(params: Params, datasets: Datasets) -> list[list[int]]:
    """Return the positions that each batch of an epoch asks for, on machines that are unlike."""
    asked: list[list[int]] = []
    read = dataset.read_batch

    def note(photos: Dataset, positions: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        asked.append(positions.tolist())
        return read(photos, positions, device)

    memory = 1000 if distributed.rank() else 10**9
    with (
        mock.patch(f"{LOOP}.read_batch", note),
        mock.patch("phototag.dataset.dataset.BLOCK", 4),
        mock.patch("phototag.dataset.dataset.physical_memory", return_value=memory),
    ):
        train(params.model_copy(update={"batch_size": 8, "epochs": 1}), datasets)
    return asked


def test_the_order_is_the_first_machines(
    params: Params, datasets: Datasets, tmp_path: Path
) -> None:
    values = params.model_dump()
    values["augment"] |= {"mixup": 0}
    halves = run_together(tmp_path, orders, Params.model_validate(values), datasets)
    seen = [number for half in halves for part in half for number in part]
    assert sorted(seen) == list(range(24))


def precisions(params: Params, datasets: Datasets) -> set[torch.dtype]:
    """Return what the processes compute in where only the first has bfloat16."""
    own = torch.float32 if distributed.rank() else torch.bfloat16
    seen, model = set(), build(params)

    def watch(layer: nn.Module, _: Any, outputs: Tensor) -> None:
        if layer.training:
            seen.add(outputs.dtype)

    model[-1].register_forward_hook(watch)
    with mock.patch(f"{LOOP}.pick_dtype", return_value=own):
        next(loop.fit(model, datasets["train"], datasets["val"], params))
    return seen


def test_the_precision_is_the_first_machines(
    params: Params, datasets: Datasets, tmp_path: Path
) -> None:
    assert run_together(tmp_path, precisions, params, datasets) == [{torch.bfloat16}] * 2


def test_a_state_that_cannot_be_read_or_written_is_told_by_both(
    params: Params, datasets: Datasets, tmp_path: Path
) -> None:
    (tmp_path / "state.pt").write_bytes(b"no state")
    # A folder's place is taken by a file: nothing can be written there.
    for place, message in (("state.pt", "is damaged"), ("state.pt/new.pt", "not be written")):
        errors = run_together(tmp_path, train, params, datasets, tmp_path / place)
        for error in errors:
            assert isinstance(error, InputError)
            assert message in str(error)


def differ(params: Params, datasets: Datasets) -> None:
    train(params.model_copy(update={"epochs": 3 + distributed.rank()}), datasets)


def test_machines_with_different_params_do_not_begin(
    params: Params, datasets: Datasets, tmp_path: Path
) -> None:
    for error in run_together(tmp_path, differ, params, datasets):
        assert isinstance(error, InputError)
        assert "the machines have different params or photos" in str(error)


def masks(params: Params, datasets: Datasets) -> int:
    train(params.model_copy(update={"epochs": 1}), datasets)
    return torch.initial_seed()


def test_each_draws_dropout_for_its_own_photos(
    params: Params, datasets: Datasets, tmp_path: Path
) -> None:
    first, second = run_together(tmp_path, masks, params, datasets)
    assert first != second
    assert first == 1  # of seed 0 and epoch 1, as one process alone
