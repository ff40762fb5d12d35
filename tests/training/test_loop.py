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
from torch import nn

from phototag.base.errors import InputError
from phototag.dataset.dataset import Dataset, move_to_device
from phototag.dataset.targets import UNKNOWN
from phototag.metrics.losses import binary_cross_entropy
from phototag.metrics.ranking import mean_average_precision
from phototag.network.inference import predict_logits
from phototag.network.model import build_model, initialize
from phototag.schema.params import Params
from phototag.training import loop
from phototag.training.records import Record

CPU = torch.device("cpu")
TINY = {
    "conv": [{"out": 8, "kernel": 3, "pool": 2}, {"out": 8, "kernel": 3, "pool": 2}],
    "linear": [16],
}
MakeParams = Callable[..., Params]


@pytest.fixture
def make_params(params_values: dict[str, Any]) -> MakeParams:
    """Params of a small network; `group__name` changes a group."""

    def make(**changes: Any) -> Params:
        values = copy.deepcopy(params_values)
        values |= {"lr": 1e-2, "weight_decay": 0.0, "batch_size": 8, "epochs": 3}
        values |= {"precision": "fp32"}
        values["model"] |= TINY
        for name, value in changes.items():
            group, _, key = name.rpartition("__")
            (values[group] if group else values)[key] = value
        return Params.model_validate(values)

    return make


def build(params: Params) -> nn.Sequential:
    torch.manual_seed(params.seed)
    model = build_model(params.model, 3, 16, [0.5] * 3, [0.25] * 3)
    initialize(model, params.model, torch.full((3,), 0.4))
    return model


def train(
    params: Params, datasets: dict[str, Dataset], checkpoint: Path | None = None
) -> tuple[nn.Module, list[Record]]:
    model = build(params)
    return model, list(loop.fit(model, datasets["train"], datasets["val"], params, checkpoint))


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_network_learns(make_params: MakeParams, datasets: dict[str, Dataset]) -> None:
    _, records = train(make_params(epochs=15), datasets)
    assert records[-1]["train_loss"] < 0.2 < records[0]["train_loss"]
    assert max(record["f1_micro"] for record in records) > 0.9
    assert [record["epoch"] for record in records] == list(range(1, 16))


def test_model_has_the_weights_of_the_best_epoch(
    make_params: MakeParams, datasets: dict[str, Dataset]
) -> None:
    # With this learning rate the last epoch is not the best one.
    model, records = train(make_params(epochs=8, lr=0.08), datasets)
    losses = [record["val_loss"] for record in records]
    assert min(losses) < losses[-1]
    logits = predict_logits(model, datasets["val"], CPU)
    assert binary_cross_entropy(datasets["val"].targets, logits) == pytest.approx(min(losses))


@pytest.mark.parametrize(
    ("changes", "by"),
    [
        ({}, "val_loss"),
        ({"train__loss": "focal"}, "mAP"),
        ({"train__loss": "asymmetric"}, "mAP"),
        ({"pos_weight": True}, "mAP"),
        ({"train__label_smoothing": 0.3}, "mAP"),
        ({"train__loss": "focal", "train__ema": 0.9}, "mAP"),
    ],
    ids=str,
)
def test_best_epoch_is_selected_by_map_for_losses_other_than_bce(
    make_params: MakeParams, datasets: dict[str, Dataset], changes: dict[str, Any], by: str
) -> None:
    # Random targets, so that the ranking on val is never perfect.
    rng = np.random.default_rng(0)
    noisy = replace(datasets["val"], targets=(rng.random((8, 3)) < 0.4).astype(np.uint8))
    params = make_params(epochs=6, lr=0.03, **changes)
    assert params.selection_metric == by
    model, records = train(params, datasets | {"val": noisy})
    best = records[records[-1]["best_epoch"] - 1]
    logits = predict_logits(model, noisy, CPU)
    if by == "mAP":
        assert best["mAP"] == max(record["mAP"] for record in records)
        assert mean_average_precision(noisy.targets, logits) == pytest.approx(best["mAP"])
    else:
        assert best["val_loss"] == min(record["val_loss"] for record in records)
    assert binary_cross_entropy(noisy.targets, logits) == pytest.approx(best["val_loss"])


VARIANTS: list[dict[str, Any]] = [
    {"optimizer": "adam"},
    {"optimizer": "adamw"},
    {"optimizer": "adagrad"},
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "momentum": 0.0},
    {"weight_decay": 0.01},
    {"batch_size": 5},
    {"pos_weight": True},
    {"precision": "bf16"},
    {"schedule": "cosine", "warmup": 1},
    {"schedule": "one-cycle"},
    {"augment__flip_horizontal": 0.5, "augment__crop": 0.1, "augment__rotate": 10.0},
    {"augment__mixup": 0.4, "augment__zoom": 0.3},
    {"augment__brightness": 0.2, "augment__hue": 0.1, "augment__grayscale": 0.2},
    {"model__batch_norm": True},
    {"model__dropout": 0.3},
    {"model__init": "pytorch"},
    {"model__linear": []},
    {"train__loss": "focal"},
    {"train__loss": "asymmetric"},
    {"train__label_smoothing": 0.1},
    {"train__ema": 0.9},
    {"train__ema": 0.9, "model__batch_norm": True},
    {"train__clip_norm": 1.0},
    {"train__early_stopping": 2},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_every_variant_trains_and_resumes_to_the_same_bytes(
    make_params: MakeParams, datasets: dict[str, Dataset], tmp_path: Path, changes: dict[str, Any]
) -> None:
    params = make_params(**changes)
    whole, records = train(params, datasets)
    assert records[-1]["train_loss"] < records[0]["train_loss"]

    # Stopped after the second epoch, and resumed with a new model.
    checkpoint = tmp_path / "state.pt"
    model = build(params)
    interrupted = loop.fit(model, datasets["train"], datasets["val"], params, checkpoint)
    assert len(list(islice(interrupted, 2))) == 2
    del interrupted, model
    resumed, again = train(params, datasets, checkpoint)
    assert same(whole, resumed)
    expected = [record | {"images_per_second": 0} for record in records]
    assert [record | {"images_per_second": 0} for record in again] == expected


@pytest.mark.slow
@pytest.mark.soak  # compilation takes a minute
def test_compiled_network_learns_the_same(
    make_params: MakeParams, datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    # 24 photos: the last batch is smaller and is compiled separately.
    _, expected = train(make_params(batch_size=10), datasets)
    compiled = make_params(batch_size=10, train__compile=True)
    whole, records = train(compiled, datasets)
    losses = [record["val_loss"] for record in expected]
    assert [record["val_loss"] for record in records] == pytest.approx(losses, abs=1e-5)

    checkpoint = tmp_path / "state.pt"
    interrupted = loop.fit(
        build(compiled), datasets["train"], datasets["val"], compiled, checkpoint
    )
    next(interrupted)
    del interrupted
    resumed, _ = train(compiled, datasets, checkpoint)
    assert same(whole, resumed)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compiled", [False, True])
def test_gpu_does_not_wait_within_an_epoch(
    make_params: MakeParams, datasets: dict[str, Dataset], compiled: bool
) -> None:
    cuda = torch.device("cuda")
    params = make_params(train__compile=compiled, precision="auto", augment__flip_horizontal=0.5)
    resident = move_to_device(datasets["train"], cuda)
    assert resident.resident is not None
    training = loop.build_training(build(params).to(cuda), resident, params)
    first = loop.train_one_epoch(training, resident, 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchronizing"):
            torch.ones(1, device=cuda).item()
        # The loss is read once per epoch, after the last step.
        with mock.patch("phototag.training.loop._sum_losses", return_value=0.0):
            loop.train_one_epoch(training, resident, 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loop.train_one_epoch(training, resident, 3) < first


def test_last_batch_of_one_photo_joins_the_one_before(
    make_params: MakeParams, datasets: dict[str, Dataset]
) -> None:
    """Batch norm of one value per channel would raise an error: 24 photos in batches of 23."""
    conv = [{"out": 8, "kernel": 16}]
    params = make_params(batch_size=23, epochs=1, model__batch_norm=True, model__conv=conv)
    sizes = []
    model = build(params)
    model[0].register_forward_pre_hook(lambda layer, inputs: sizes.append(len(inputs[0])))
    list(loop.fit(model, datasets["train"], datasets["val"], params))
    assert sizes == [24, len(datasets["val"])]


def test_damaged_checkpoint_is_reported(
    make_params: MakeParams, datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    (tmp_path / "state.pt").write_bytes(b"no state")
    with pytest.raises(InputError, match=r"state\.pt is damaged .*remove it"):
        train(make_params(), datasets, tmp_path / "state.pt")


def test_loss_that_is_not_finite_stops_training(
    make_params: MakeParams, datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    params = make_params(optimizer="sgd", lr=1e30)
    with pytest.raises(InputError, match=r"epoch 1: the loss at step 2 .*lower lr"):
        train(params, datasets)
    # The checkpoint of the last finite epoch is kept.
    checkpoint = tmp_path / "state.pt"
    good = loop.fit(
        build(make_params()), datasets["train"], datasets["val"], make_params(), checkpoint
    )
    next(good)
    before = checkpoint.read_bytes()
    broken = make_params(lr=1e30, optimizer="adam")
    with pytest.raises(InputError, match="epoch 2: "):
        list(loop.fit(build(broken), datasets["train"], datasets["val"], broken, checkpoint))
    assert checkpoint.read_bytes() == before


def test_early_stopping_ends_after_epochs_without_a_better_one(
    make_params: MakeParams, datasets: dict[str, Dataset]
) -> None:
    params = make_params(epochs=60, lr=0.05, train__early_stopping=3)
    _, records = train(params, datasets)
    losses = [record["val_loss"] for record in records]
    assert len(losses) < 60
    assert losses.index(min(losses)) == len(losses) - 4


def test_empty_split_has_no_logits(make_params: MakeParams, datasets: dict[str, Dataset]) -> None:
    test = datasets["test"]
    empty = replace(test, rows=test.rows[:0], targets=test.targets[:0])
    assert predict_logits(build(make_params()), empty, CPU).shape == (0, 3)


def test_statistics_of_batch_norm_are_averaged() -> None:
    averaged, model = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    for layer, value in ((averaged, 1.0), (model, 5.0)):
        nn.init.constant_(layer.weight, value)
        layer.running_mean = torch.full((2,), value)
    loop._average(averaged, model, 0.75, step=1000)
    assert averaged.weight.tolist() == [2, 2]
    assert averaged.running_mean is not None
    assert averaged.running_mean.tolist() == [2, 2]


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_step_uses_known_targets_only(
    make_params: MakeParams, partly: dict[str, Dataset], mixup: float
) -> None:
    """Batches of 10, 10 and 4 photos match PyTorch's mean over the known entries."""
    params = make_params(optimizer="sgd", momentum=0.0, lr=0.1, batch_size=10, augment__mixup=mixup)
    params = params.model_copy(update={"epochs": 1})
    given = partly["train"]
    given.targets[:3] = UNKNOWN  # photos without any known target
    model, records = train(params, partly)

    expected, losses = build(params), []
    order = np.random.default_rng([params.seed, 1]).permutation(len(given))
    generator = torch.Generator().manual_seed(params.seed * 1_000_003 + 1)
    optimizer = torch.optim.SGD(expected.parameters(), 0.1)
    for positions in (order[:10], order[10:20], order[20:]):
        images = torch.from_numpy(given.images[given.rows[positions]]).permute(0, 3, 1, 2)
        targets, known = (
            torch.from_numpy(part[positions]).float()
            for part in (given.targets, given.targets != UNKNOWN)
        )
        if mixup:
            share = torch.rand(len(positions), generator=generator)[:, None] * mixup
            images = torch.lerp(images.float(), images.flip(0).float(), share[..., None, None])
            targets, known = torch.lerp(targets, targets.flip(0), share), known * known.flip(0)
        chosen = known.bool()
        entries = nn.functional.binary_cross_entropy_with_logits(
            expected(images)[chosen], targets[chosen], reduction="none"
        )
        optimizer.zero_grad()
        torch.autograd.backward(entries.mean())
        optimizer.step()
        losses += entries.tolist()
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert records[0]["train_loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    val = partly["val"]
    logits = predict_logits(model, val, CPU)
    assert records[0]["val_loss"] == pytest.approx(binary_cross_entropy(val.targets, logits))


def test_batch_without_known_targets_changes_nothing(
    make_params: MakeParams, datasets: dict[str, Dataset]
) -> None:
    params = make_params(epochs=1, batch_size=1)
    first = int(np.random.default_rng([params.seed, 1]).permutation(24)[0])
    targets = datasets["train"].targets.copy()
    targets[first] = UNKNOWN
    given = replace(datasets["train"], targets=targets)
    model, records = train(params, datasets | {"train": given})
    assert np.isfinite(records[0]["train_loss"])
    assert all(weight.isfinite().all() for weight in model.parameters())
