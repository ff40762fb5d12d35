"""Content keys: a hash of everything on which a trained result depends.

Equal keys mean equal weights on one machine.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import phototag.base
import phototag.dataset
import phototag.metrics
import phototag.network
import phototag.training
from phototag.base.files import content_key
from phototag.network import distributed
from phototag.network.backbones import TIMM
from phototag.network.params import ModelParams
from phototag.network.pretrained import find_weights_file, list_weights_files
from phototag.training.precision import pick_dtype

PACKAGES = (
    phototag.base,
    phototag.dataset,
    phototag.metrics,
    phototag.network,
    phototag.training,
)


def training_key(
    settings: Mapping[str, Any], spec: ModelParams, inputs: Sequence[Path], device: torch.device
) -> str:
    """Return the content key of a training.

    The key depends on the params that training reads, the content of the inputs, the code of the
    packages that training runs, the content of a file of weights, the precision that `auto`
    selects, the versions of the libraries, the type of device and the number of processes. It does
    not depend on the paths of files or on how processes are distributed over machines.

    Args:
        settings: Params returned by `TrainingParams.train_settings()`.
        spec: The group `model`.
        inputs: Files that training reads, and the script that calls it.
        device: Device on which training runs.
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
    """Return the content key of a training's checkpoints.

    It equals `training_key`, except that `epochs` is left out if the states do not depend on it
    (constant schedule, or linear probe): a longer training then resumes from a shorter one. Cosine
    and one-cycle schedules depend on the number of epochs.
    """
    if settings["schedule"] == "constant" or settings["optimizer"] == "lbfgs":
        settings = {key: value for key, value in settings.items() if key != "epochs"}
    return training_key(settings, spec, inputs, device)


def _list_code() -> list[tuple[Path, Path]]:
    """Return every Python file of the packages, each with the folder that holds the packages."""
    folders = [Path(str(package.__file__)).parent for package in PACKAGES]
    return [(folder.parent, path) for folder in folders for path in sorted(folder.rglob("*.py"))]
