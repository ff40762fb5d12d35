import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from phototag.network import distributed
from phototag.training.batch_norm import BatchNorm, freeze_biases, share_statistics
from tests.processes import run_together

STATE = ("running_mean", "running_var", "num_batches_tracked")


def build() -> nn.Sequential:
    """A convolution and a batch norm, whose weights are not those it starts with."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    for name in ("weight", "bias"):
        nn.init.uniform_(getattr(model[1], name), 0.5, 2)
    return model


def photos(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, 5, 5, generator=generator) * 3 + 100


def differentiate(model: nn.Module, maps: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """Return the outputs of a batch, and what a weighted sum of them leaves at the start."""
    inputs = maps.clone().requires_grad_()
    outputs = model(inputs)
    (outputs * weights).sum().backward()
    gradients = [p.grad for p in model.parameters()]
    return outputs.detach(), inputs.grad, *gradients


def share(count: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    model = build()
    share_statistics(model)
    maps, weights = photos(count), photos(count)[:, :1].sin()
    found = differentiate(model, *(distributed.own_share(t) for t in (maps, weights)))
    return found, model[1].state_dict()


@pytest.mark.parametrize("count", [6, 5, 1])  # of one photo, one process has none
def test_two_processes_normalise_as_one(tmp_path: Path, count: int) -> None:
    alone = build()
    expected = differentiate(alone, photos(count), photos(count)[:, :1].sin())
    shares = run_together(tmp_path, share, count)
    for position in (0, 1):
        joined = torch.cat([found[position] for found, _ in shares])
        torch.testing.assert_close(joined, expected[position], rtol=1e-4, atol=1e-4)
    for position in range(2, len(expected)):
        summed = sum(found[position] for found, _ in shares)
        torch.testing.assert_close(summed, expected[position], rtol=1e-4, atol=1e-3)
    for _, state in shares:
        for name in STATE:
            torch.testing.assert_close(state[name], alone[1].state_dict()[name])


def test_alone_it_is_pytorchs_to_the_bit() -> None:
    ours, theirs = build(), build()
    share_statistics(ours)
    assert isinstance(ours[1], BatchNorm)
    weights = photos(6)[:, :1].sin()
    pairs = zip(
        differentiate(ours, photos(6), weights),
        differentiate(theirs, photos(6), weights),
        strict=True,
    )
    assert all(torch.equal(mine, its) for mine, its in pairs)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    ours.eval()
    theirs.eval()
    assert torch.equal(ours(photos(2)), theirs(photos(2)))


def test_a_single_value_is_normalised_as_in_evaluation() -> None:
    layer = nn.BatchNorm2d(4)
    with pytest.raises(ValueError, match="more than 1 value"):
        layer(torch.ones(1, 4, 1, 1))
    share_statistics(layer)
    layer(photos(4)[:, :1].expand(4, 4, 5, 5))
    before = copy.deepcopy(layer.state_dict())
    maps = torch.full((1, 4, 1, 1), 7.0, requires_grad=True)
    outputs = layer(maps)
    outputs.sum().backward()
    assert all(torch.equal(layer.state_dict()[name], value) for name, value in before.items())
    torch.testing.assert_close(outputs, layer.eval()(maps))
    assert maps.grad is not None
    assert maps.grad.abs().min() > 0


def test_timms_has_its_activation_behind_it() -> None:
    norm_act = pytest.importorskip("timm.layers").BatchNormAct2d
    ours, theirs = (norm_act(4, act_layer=nn.SiLU) for _ in range(2))
    share_statistics(ours)
    assert isinstance(ours, BatchNorm)
    assert torch.equal(
        ours(photos(6)[:, :1].expand(6, 4, 5, 5)), theirs(photos(6)[:, :1].expand(6, 4, 5, 5))
    )
    for name in STATE:
        assert torch.equal(ours.state_dict()[name], theirs.state_dict()[name])
    lone = torch.full((1, 4, 1, 1), 7.0)
    torch.testing.assert_close(ours(lone), theirs.eval()(lone))


def single(values: float) -> tuple[Tensor, dict[str, Tensor]]:
    layer = nn.BatchNorm2d(4)
    share_statistics(layer)
    maps = distributed.own_share(torch.full((1, 4, 1, 1), values))
    return layer(maps).detach(), layer.state_dict()


def test_so_it_is_where_one_of_two_processes_has_it(tmp_path: Path) -> None:
    (none, first), (one, second) = run_together(tmp_path, single, 7.0)
    assert none.shape == (0, 4, 1, 1)
    torch.testing.assert_close(one, torch.full((1, 4, 1, 1), 7.0), rtol=1e-4, atol=0)
    for state in (first, second):
        assert [state[name].tolist() for name in STATE] == [[0.0] * 4, [1.0] * 4, 0]


def test_halves_stay_halves(tmp_path: Path) -> None:
    assert run_together(tmp_path, halves) == [torch.bfloat16] * 2


def halves() -> torch.dtype:
    layer = nn.BatchNorm2d(3)
    share_statistics(layer)
    dtype: torch.dtype = layer(photos(2).bfloat16()).dtype
    return dtype


def test_a_bias_that_batch_norm_takes_off_does_not_learn() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
            self.plain = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
            self.without = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))

    model = Branches()
    freeze_biases(model)
    frozen = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    assert frozen == ["branch.0.bias"]
