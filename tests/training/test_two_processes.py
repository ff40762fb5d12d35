"""Two processes train one model, and the first one decides."""

import copy
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from phototag.base.errors import InputError
from phototag.dataset.dataset import Dataset, take_photos
from phototag.metrics.losses import binary_cross_entropy
from phototag.network import distributed
from phototag.network.inference import predict_logits
from phototag.network.model import build_model, initialize
from phototag.schema.params import Params
from phototag.training import loop
from phototag.training.losses import Loss
from phototag.training.records import Record
from tests.processes import run_together

Datasets = dict[str, Dataset]
Found = tuple[list[Record], dict[str, Tensor], float]
BLOCK = {"kernel": 3, "pool": 2, "residual": 1}
LOOP = "phototag.training.loop"


@pytest.fixture
def params(params_values: dict[str, Any]) -> Params:
    """Params with averaged weights and every augmentation that fails on empty batches."""
    values = copy.deepcopy(params_values)
    values |= {"lr": 0.01, "batch_size": 23, "epochs": 4, "precision": "fp32", "optimizer": "adam"}
    values["model"] |= {"conv": [{"out": 8, **BLOCK}], "linear": [16]}
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
    """Return the records, the best weights, and their loss on val."""
    model = build(params)
    records = list(loop.fit(model, datasets["train"], datasets["val"], params, checkpoint))
    logits = predict_logits(model, datasets["val"], torch.device("cpu"))
    return records, model.state_dict(), binary_cross_entropy(datasets["val"].targets, logits)


def train_and_resume(params: Params, datasets: Datasets, checkpoint: Path) -> tuple[Found, Found]:
    whole = train(params, datasets)
    interrupted = loop.fit(build(params), datasets["train"], datasets["val"], params, checkpoint)
    assert len(list(islice(interrupted, 2))) == 2
    return whole, train(params, datasets, checkpoint)


def test_two_processes_train_and_resume_as_one(
    params: Params, partly: Datasets, tmp_path: Path
) -> None:
    """6 photos in batches of one: the first process has a photo only of the last batch.

    The labels that are known differ between photos: the mean is over the targets of all processes.
    """
    datasets = partly | {"train": take_photos(partly["train"], np.arange(6))}
    params = params.model_copy(update={"batch_size": 1})
    alone, weights, _ = train(params, datasets)
    both = run_together(tmp_path, train_and_resume, params, datasets, tmp_path / "state.pt")
    for whole, resumed in both:
        records, best, loss = whole
        for name in ("train_loss", "val_loss", "f1_micro", "mAP", "best_epoch", "lr"):
            expected = [record[name] for record in alone]
            assert [r[name] for r in records] == pytest.approx(expected, abs=1e-5), name
        # The best weights have the recorded loss in both processes.
        assert loss == pytest.approx(records[records[-1]["best_epoch"] - 1]["val_loss"], abs=1e-7)
        for name, value in weights.items():
            torch.testing.assert_close(best[name], value, rtol=0, atol=1e-3)
        assert all(torch.equal(best[name], value) for name, value in resumed[1].items())
        plain = [[r | {"images_per_second": 0} for r in each[0]] for each in (whole, resumed)]
        assert plain[0] == plain[1]
    (first, _), (second, _) = both
    assert all(torch.equal(second[1][name], value) for name, value in first[1].items())


def infinite_in_the_second(step: int) -> Callable[..., Loss]:
    """Return a loss that is infinite at one step in the second process."""
    steps = iter(range(1, 100))

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        broken = next(steps) == step and distributed.rank() == 1
        return (logits - targets).square() * (float("inf") if broken else 1)

    return lambda *_: loss


def diverge(params: Params, datasets: Datasets) -> None:
    with mock.patch(f"{LOOP}.training_loss", infinite_in_the_second(step=2)):
        train(params, datasets)


def test_infinite_loss_of_one_process_stops_both_at_the_same_step(
    params: Params, datasets: Datasets, tmp_path: Path
) -> None:
    params = params.model_copy(update={"batch_size": 8})
    for error in run_together(tmp_path, diverge, params, datasets):
        assert isinstance(error, InputError)
        assert str(error).startswith("epoch 1: the loss at step 2 is not finite, probably because")


def score_apart(params: Params, datasets: Datasets) -> list[Record]:
    """Train with other val losses in the second process, as another processor might give."""
    worse = iter(range(100))
    own = binary_cross_entropy if distributed.rank() == 0 else lambda *_: float(next(worse))
    with mock.patch("phototag.training.records.binary_cross_entropy", own):
        return train(params, datasets)[0]


def test_early_stopping_follows_the_first_process(
    params: Params, datasets: Datasets, tmp_path: Path
) -> None:
    values = params.model_dump()
    values["train"] |= {"early_stopping": 2}
    values |= {"lr": 0.3, "epochs": 30}
    first, second = run_together(tmp_path, score_apart, Params.model_validate(values), datasets)
    for name in ("val_loss", "best_epoch"):
        assert [record[name] for record in first] == [record[name] for record in second]
    assert 2 < len(first) < 30
    assert first[-1]["best_epoch"] == len(first) - 2


def precisions(params: Params, datasets: Datasets) -> set[torch.dtype]:
    """Return the dtypes of the processes if only the first one supports bfloat16."""
    own = torch.float32 if distributed.rank() else torch.bfloat16
    seen, model = set(), build(params)

    def watch(layer: nn.Module, _: Any, outputs: Tensor) -> None:
        if layer.training:
            seen.add(outputs.dtype)

    model[-1].register_forward_hook(watch)
    with mock.patch(f"{LOOP}.pick_dtype", return_value=own):
        next(loop.fit(model, datasets["train"], datasets["val"], params))
    return seen


def test_precision_is_that_of_the_first_process(
    params: Params, datasets: Datasets, tmp_path: Path
) -> None:
    assert run_together(tmp_path, precisions, params, datasets) == [{torch.bfloat16}] * 2


def test_checkpoint_error_is_raised_in_both_processes(
    params: Params, datasets: Datasets, tmp_path: Path
) -> None:
    (tmp_path / "state.pt").write_bytes(b"no state")
    # The second path needs a folder where there is a file, so it cannot be written.
    for place, message in (("state.pt", "is damaged"), ("state.pt/new.pt", "not be written")):
        errors = run_together(tmp_path, train, params, datasets, tmp_path / place)
        for error in errors:
            assert isinstance(error, InputError)
            assert message in str(error)


def masks(params: Params, datasets: Datasets) -> int:
    train(params.model_copy(update={"epochs": 1}), datasets)
    return torch.initial_seed()


def test_each_process_draws_its_own_dropout(
    params: Params, datasets: Datasets, tmp_path: Path
) -> None:
    first, second = run_together(tmp_path, masks, params, datasets)
    assert first != second
    assert first == 1  # the seed of epoch 1 of seed 0, as in a single process


def test_network_with_layers_that_are_not_used_trains(
    params: Params, datasets: Datasets, tmp_path: Path
) -> None:
    """timm's MobileNetV3 has a layer after the feature maps, which pooling the maps skips."""
    pytest.importorskip("timm")
    changes = {"name": "timm/mobilenetv3_small_050", "global_pool": "mean-max", "power": 0.5}
    model = params.model.model_copy(update=changes)
    params = params.model_copy(update={"epochs": 1, "batch_size": 8, "model": model})
    both = run_together(tmp_path, train, params, datasets)
    assert all(np.isfinite(records[0]["val_loss"]) for records, _, _ in both)
