import warnings

import pytest
import torch

from phototag.training.schedules import learning_rate

TOTAL, PEAK = 50, 0.1


def rates_of(name: str, warmup: int = 0) -> list[float]:
    return [learning_rate(name, step, TOTAL, warmup, PEAK) for step in range(TOTAL)]


def rates_of_torch(build: type, **options: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], PEAK)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = build(optimizer, **options)
        for _ in range(TOTAL):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return rates


def test_constant_rate_is_the_peak() -> None:
    assert rates_of("constant") == [PEAK] * TOTAL


def test_cosine_matches_pytorch() -> None:
    expected = rates_of_torch(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=TOTAL)
    assert rates_of("cosine") == pytest.approx(expected)


def test_one_cycle_matches_pytorch() -> None:
    one_cycle = torch.optim.lr_scheduler.OneCycleLR
    expected = rates_of_torch(one_cycle, max_lr=PEAK, total_steps=TOTAL, cycle_momentum=False)
    assert rates_of("one-cycle") == pytest.approx(expected)


@pytest.mark.parametrize("name", ["constant", "cosine"])
def test_warmup_rises_linearly_to_the_peak(name: str) -> None:
    rates = rates_of(name, warmup=10)
    assert rates[:10] == pytest.approx([PEAK * (step + 1) / 10 for step in range(10)])
    assert max(rates) == rates[10] == pytest.approx(PEAK)
