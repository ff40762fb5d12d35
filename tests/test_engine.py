from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from phototag import engine
from phototag.dataset import Dataset
from phototag.metrics import binary_cross_entropy
from phototag.model import build_model, init_he
from phototag.params import ModelParams

CPU = torch.device("cpu")


def train(
    spec: ModelParams,
    datasets: dict[str, Dataset],
    *,
    epochs: int = 3,
    seed: int = 0,
    optimizer: str = "adam",
    lr: float = 1e-2,
    dtype: torch.dtype = torch.float32,
    pos_weight: torch.Tensor | None = None,
) -> tuple[nn.Module, list[engine.Epoch]]:
    torch.manual_seed(seed)
    model = build_model(spec, 3, 16, [0.5] * 3, [0.25] * 3)
    init_he(model, torch.full((3,), 0.4))
    records = engine.fit(
        model,
        datasets["train"],
        datasets["val"],
        engine.build_optimizer(model, optimizer, lr, 0.0),
        epochs=epochs,
        batch_size=8,
        seed=seed,
        dtype=dtype,
        pos_weight=pos_weight,
    )
    return model, list(records)


def test_it_learns(tiny_spec: ModelParams, datasets: dict[str, Dataset]) -> None:
    _, records = train(tiny_spec, datasets, epochs=15)
    assert records[-1].train_loss < 0.2 < records[0].train_loss
    assert max(record.f1_micro for record in records) > 0.9
    assert [record.epoch for record in records] == list(range(1, 16))


def test_same_seed_same_weights(tiny_spec: ModelParams, datasets: dict[str, Dataset]) -> None:
    first, again, other = (train(tiny_spec, datasets, seed=seed)[0] for seed in (1, 1, 2))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert not torch.equal(first.state_dict()["1.weight"], other.state_dict()["1.weight"])


def test_the_best_epochs_weights_are_kept(
    tiny_spec: ModelParams, datasets: dict[str, Dataset]
) -> None:
    # So high a rate that the last epoch is not the best.
    model, records = train(tiny_spec, datasets, epochs=8, lr=0.08)
    losses = [record.val_loss for record in records]
    assert min(losses) < losses[-1]
    logits = engine.predict_logits(model, datasets["val"], CPU)
    assert binary_cross_entropy(datasets["val"].targets, logits) == pytest.approx(min(losses))


@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "sgd"])
def test_every_optimizer_lowers_the_loss(
    tiny_spec: ModelParams, datasets: dict[str, Dataset], optimizer: str
) -> None:
    _, records = train(tiny_spec, datasets, epochs=4, optimizer=optimizer)
    assert records[-1].train_loss < records[0].train_loss


def test_bf16_learns_too(tiny_spec: ModelParams, datasets: dict[str, Dataset]) -> None:
    _, records = train(tiny_spec, datasets, epochs=15, dtype=torch.bfloat16)
    assert records[-1].train_loss < 0.25


def test_pos_weight_raises_recall_at_half(
    tiny_spec: ModelParams, datasets: dict[str, Dataset]
) -> None:
    share = []
    for weight in (None, torch.full((3,), 50.0)):
        model, _ = train(tiny_spec, datasets, epochs=2, lr=1e-3, pos_weight=weight)
        share.append((engine.predict_logits(model, datasets["train"], CPU) > 0).mean())
    assert share[1] > share[0]


def test_positive_weights_are_negatives_over_positives() -> None:
    targets = np.zeros((1000, 3), np.uint8)
    targets[:250, 0] = 1
    targets[:2, 1] = 1
    assert engine.positive_weights(targets).tolist() == [3.0, 100.0, 100.0]


def test_a_loss_that_is_not_finite_stops(
    tiny_spec: ModelParams, datasets: dict[str, Dataset]
) -> None:
    with pytest.raises(FloatingPointError, match=r"epoch 1 .*lower lr"):
        train(tiny_spec, datasets, optimizer="sgd", lr=1e30)


def test_precision() -> None:
    assert engine.pick_dtype("fp32", CPU) == torch.float32
    assert engine.pick_dtype("bf16", CPU) == torch.bfloat16
    native = torch.cpu.get_capabilities().get("avx512_bf16", False)
    if native:
        assert engine.pick_dtype("auto", CPU) == torch.bfloat16


def test_an_empty_split_has_no_logits(tiny_spec: ModelParams, datasets: dict[str, Dataset]) -> None:
    test = datasets["test"]
    empty = replace(test, rows=test.rows[:0], targets=test.targets[:0])
    model = build_model(tiny_spec, 3, 16, [0.5] * 3, [0.25] * 3)
    assert engine.predict_logits(model, empty, CPU).shape == (0, 3)
