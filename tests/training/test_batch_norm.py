import pytest
import torch
from torch import Tensor, nn

from phototag.network import distributed
from phototag.training.batch_norm import (
    freeze_redundant_biases,
    freeze_statistics,
    synchronize_batch_norm,
)


class Branches(nn.Module):
    """Convolutions with and without a batch norm after them."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.plain = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
        self.without = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))

    def forward(self, maps: Tensor) -> Tensor:
        """Apply all branches in turn."""
        output: Tensor = self.without(self.plain(self.branch(maps)))
        return output


def test_bias_before_batch_norm_is_not_trained() -> None:
    model = Branches()
    freeze_redundant_biases(model)
    frozen = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    assert frozen == ["branch.0.bias"]


def test_frozen_statistics_do_not_change() -> None:
    model = Branches().train()
    freeze_statistics(model)
    model(torch.rand(4, 3, 5, 5))
    assert model.branch[1].running_mean.tolist() == [0.0] * 4  # type: ignore[operator]


@pytest.mark.parametrize(
    ("processes", "device", "expected"),
    [(1, "cuda", nn.BatchNorm2d), (2, "cpu", nn.BatchNorm2d), (2, "cuda", nn.SyncBatchNorm)],
)
def test_batch_norm_is_synchronised_on_several_gpus(
    monkeypatch: pytest.MonkeyPatch, processes: int, device: str, expected: type
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    model = Branches()
    names = list(model.state_dict())
    synchronize_batch_norm(model, torch.device(device))
    assert type(model.branch[1]) is expected
    assert list(model.state_dict()) == names


def test_batch_norm_of_timm_keeps_its_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = pytest.importorskip("timm.layers")
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    model = nn.Sequential(layers.BatchNormAct2d(4, act_layer=nn.SiLU))
    synchronize_batch_norm(model, torch.device("cuda"))
    assert isinstance(model[0], nn.SyncBatchNorm)
    assert isinstance(model[0].act, nn.SiLU)
