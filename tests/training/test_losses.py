import numpy as np
import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from phototag.training.losses import (
    asymmetric_loss,
    build_loss,
    focal_loss,
    positive_weights,
    skip_unknown,
)

LOGITS = torch.linspace(-6, 6, 24).view(8, 3)
TARGETS = (torch.arange(24).view(8, 3) % 3 == 0).float()


def test_bce_matches_pytorch_with_weights() -> None:
    weight = torch.tensor([1.0, 2.0, 5.0])
    entries = build_loss("bce", 0.0, weight)(LOGITS, TARGETS)
    expected = torch.nn.BCEWithLogitsLoss(pos_weight=weight)(LOGITS, TARGETS)
    torch.testing.assert_close(entries.mean(), expected)
    assert entries.shape == LOGITS.shape


def test_focal_loss_matches_torchvision() -> None:
    expected = sigmoid_focal_loss(LOGITS, TARGETS, alpha=-1, gamma=2.0)
    torch.testing.assert_close(focal_loss(LOGITS, TARGETS), expected)


def test_asymmetric_loss_matches_the_papers_formula() -> None:
    p = LOGITS.double().sigmoid()
    shifted = (p - 0.05).clamp(min=0)
    expected = -torch.where(TARGETS > 0, p.log(), shifted**4 * (1 - shifted).log())
    torch.testing.assert_close(asymmetric_loss(LOGITS.double(), TARGETS.double()), expected)


def test_losses_and_gradients_of_extreme_logits_are_finite() -> None:
    for name in ("bce", "focal", "asymmetric"):
        logits = torch.tensor([[-200.0, 200.0], [200.0, -200.0]], requires_grad=True)
        loss = build_loss(name, 0.0, None)(logits, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert torch.isfinite(loss).all()
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize(
    ("name", "weight"), [("bce", None), ("bce", 100.0), ("bce", 0.5), ("focal", None)]
)
def test_loss_is_lowest_at_the_smoothed_target(
    name: str, weight: float | None, target: float
) -> None:
    loss = build_loss(name, 0.1, None if weight is None else torch.tensor([weight]))
    logits = torch.linspace(-8, 8, 3201)[:, None]
    lowest = logits[loss(logits, torch.full_like(logits, target)).argmin()]
    assert lowest.sigmoid().item() == pytest.approx(0.95 if target else 0.05, abs=1e-3)


def test_smoothing_weights_true_positives_only() -> None:
    weight = torch.tensor([1.0, 2.0, 5.0])
    smooth, plain = build_loss("bce", 0.1, None), build_loss("bce", 0.1, weight)
    times = torch.where(TARGETS > 0, weight, 1.0)
    torch.testing.assert_close(plain(LOGITS, TARGETS), smooth(LOGITS, TARGETS) * times)
    # Blended photos count by their shares, as without smoothing.
    blended = plain(LOGITS, torch.full_like(LOGITS, 0.3))
    none, all_ = (plain(LOGITS, torch.full_like(LOGITS, end)) for end in (0.0, 1.0))
    torch.testing.assert_close(blended, torch.lerp(none, all_, 0.3))
    slight = build_loss("bce", 1e-7, weight)(LOGITS, TARGETS * 0.3)
    torch.testing.assert_close(slight, build_loss("bce", 0.0, weight)(LOGITS, TARGETS * 0.3))


@pytest.mark.parametrize(
    ("name", "smoothing", "weight"),
    [("bce", 0.0, None), ("bce", 0.1, 3.0), ("focal", 0.1, None), ("asymmetric", 0.0, None)],
)
def test_unknown_targets_have_no_loss_and_no_gradient(
    name: str, smoothing: float, weight: float | None
) -> None:
    loss = build_loss(name, smoothing, None if weight is None else torch.full((3,), weight))
    known = torch.arange(24).view(8, 3) % 5 > 1
    logits = LOGITS.clone().requires_grad_()
    entries = skip_unknown(loss)(logits, TARGETS.where(known, torch.nan))
    (gradient,) = torch.autograd.grad(entries.sum(), logits)
    plain = loss(logits, TARGETS)
    (expected,) = torch.autograd.grad(plain[known].sum(), logits)
    assert torch.equal(entries, plain.where(known, 0.0))
    assert torch.equal(gradient, expected)


def test_positive_weights_count_known_targets_only() -> None:
    targets = np.array([[1, 0, -1], [0, -1, -1], [0, -1, -1], [-1, 0, -1]], np.int8)
    counts = (targets > 0).sum(axis=0), (targets >= 0).sum(axis=0)
    assert positive_weights(*counts).tolist() == [2.0, 2.0, 0.0]
    found = positive_weights(np.array([250, 2]), np.array([1000, 1000]))
    assert found.tolist() == [3.0, 100.0]  # at most 100
