"""What a trained result depends on, as one hash: equal keys mean equal weights on one machine."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phototag.base.files import content_key
from phototag.network import distributed
from phototag.network.backbones import TIMM
from phototag.network.params import ModelParams
from phototag.network.pretrained import find_weights_file, list_weights_files
from phototag.training.loop import pick_dtype

PACKAGES = ("base", "dataset", "metrics", "network", "training")


def training_key(
    settings: Mapping[str, Any], spec: ModelParams, inputs: Sequence[Path], device: torch.device
) -> str:
    """Return the key of a training.

    It changes with the params that training reads, the inputs' contents, all code of the rooms that
    training runs, the contents of a file of weights, the precision that `auto` stands for, the
    libraries that compute and draw, the kind of device, and the number of processes. It does not
    change with a file's place, or with how the processes are spread over machines.

    Args:
        settings: `Params.train_settings()`.
        spec: The network's.
        inputs: The files that training reads, and the script that calls it.
        device: On which it trains.
    """
    named = [weights for _, weights in spec.backbones if weights]
    files = list_weights_files(spec.backbones)
    model = {
        **settings["model"],
        "weights": ["a file" if find_weights_file(weights) else weights for weights in named],
    }
    libraries = {"torch": torch.__version__, "numpy": np.__version__}
    if spec.backbones:
        libraries["torchvision"] = version("torchvision")
    if any(name.startswith(TIMM) for name, _ in spec.backbones):
        libraries["timm"] = version("timm")
    code = _list_code()
    found = {
        **settings,
        "model": model,
        "precision": str(pick_dtype(settings["precision"], device)),
        "libraries": libraries,
        "device": device.type,
        "processes": distributed.world_size(),
        "code": [path.relative_to(folder).as_posix() for folder, path in code],
    }
    return content_key(found, [*inputs, *files, *(path for _, path in code)])


def state_key(
    settings: Mapping[str, Any], spec: ModelParams, inputs: Sequence[Path], device: torch.device
) -> str:
    """Return the key of the states that a training passes through, by which it is taken up again.

    As `training_key`, but where the learning rate does not hang on how many epochs there are in
    all (a constant schedule, or heads that are solved), a longer training passes through the states
    of a shorter one: then `epochs` does not count, and the longer one goes on from them. Cosine and
    one-cycle are stretched over all epochs, and begin anew.
    """
    if settings["schedule"] == "constant" or settings["optimizer"] == "lbfgs":
        settings = {key: value for key, value in settings.items() if key != "epochs"}
    return training_key(settings, spec, inputs, device)


def _list_code() -> list[tuple[Path, Path]]:
    """List the Python files of the packages that training runs, each with its root folder."""
    root = Path(__file__).parents[1]
    return [(root, path) for name in PACKAGES for path in sorted((root / name).rglob("*.py"))]
