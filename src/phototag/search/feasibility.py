"""Networks that cannot be trained, told without training them."""

from typing import Any

import psutil
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from phototag.base.errors import InputError
from phototag.base.keys import apply_overrides
from phototag.base.params import describe_validation_error
from phototag.network.model import build_model
from phototag.schema.params import Params

COPIES = {"sgd": 3, "adagrad": 3, "adam": 4, "adamw": 4, "lbfgs": 4}  # weights, gradient, state
LABELS = 20  # about; the last layer is small


def why_infeasible(
    base: dict[str, Any], settings: dict[str, Any], compute: float | None = None
) -> str:
    """Say why settings cannot be trained with; nothing where they can.

    Takes milliseconds: the network is built without memory.

    Args:
        base: The values of params.yaml with which trials start.
        settings: Dotted key -> value.
        compute: As in `Study`.
    """
    try:
        params = Params.model_validate(apply_overrides(base, settings))
    except ValidationError as error:
        return describe_validation_error(error)
    if params.model.name != "conv":
        return ""  # backbones are not searched, and a head has a few weights
    try:
        model = _build_empty(params)
    except InputError as error:
        return str(error)
    needed, there = estimate_memory(model, params), _memory()
    if needed > there:
        return (
            f"training needs about {needed / 2**30:.1f} GiB of memory, and there are "
            f"{there / 2**30:.1f}"
        )
    if compute is not None:
        start = Params.model_validate(base)
        ratio = count_operations(model, params) / count_operations(_build_empty(start), start)
        if ratio > compute:
            return (
                f"a photo takes {ratio:.1f} times the operations of the network from which trials "
                f"start, and the study allows {compute:g} (compute)"
            )
    return ""


def _build_empty(params: Params) -> nn.Module:
    """Build a network without memory; batch norm takes single values as in evaluation."""
    with torch.device("meta"):
        size = params.resize.size
        return build_model(params.model, LABELS, size, [0.5] * 3, [0.25] * 3).eval()


def _memory() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return int(psutil.virtual_memory().total)


def estimate_memory(model: nn.Module, params: Params) -> int:
    """Estimate the bytes that a training takes: weights in several copies, and a batch's maps.

    Each layer's output is kept until its gradient is known, and so is that gradient.

    Args:
        model: Of `build_model`, without memory.
        params: Of the trial.
    """
    outputs = _list_outputs(model, params.batch_size, params.resize.size)
    values = sum(output.numel() for _, output in outputs)
    weights = sum(weight.numel() for weight in model.parameters())
    return 4 * (weights * (COPIES[params.optimizer] + 1) + 2 * values)


def count_operations(model: nn.Module, params: Params) -> int:
    """Count a photo's multiplications, forward, of convolutions and linear layers.

    Args:
        model: Of `build_model`, without memory.
        params: Of the trial.
    """
    return sum(
        output.numel() * layer.weight[0].numel()
        for layer, output in _list_outputs(model, 1, params.resize.size)
        if isinstance(layer, nn.Conv2d | nn.Linear)
    )


@torch.no_grad()
def _list_outputs(model: nn.Module, batch: int, side: int) -> list[tuple[nn.Module, Tensor]]:
    """List each layer and its output, on the device meta, for a batch of photos."""
    found: list[tuple[nn.Module, Tensor]] = []
    layers = [module for module in model.modules() if not list(module.children())]
    hooks = [
        layer.register_forward_hook(lambda layer, _, output: found.append((layer, output)))
        for layer in layers
    ]
    model(torch.empty(batch, 3, side, side, device="meta"))
    for hook in hooks:
        hook.remove()
    return found
