"""Content keys: hashes of everything on which the trained weights depend.

On one machine, trainings with equal keys give equal weights.
"""

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

SOURCES = Path(__file__).parents[1]
PACKAGES = ("base", "dataset", "metrics", "network", "training")  # code that training runs


def training_key(
    settings: Mapping[str, Any], spec: ModelParams, inputs: Sequence[Path], device: torch.device
) -> str:
    """Return the content key of a training run.

    The key depends on the params that training reads, the content of the inputs and of the weights
    files, the code of the packages in `PACKAGES`, the precision that `auto` selects, the
    versions of the libraries, the type of the device, and the number of processes. The key does not
    change if files move, or if the same number of processes runs on fewer or more machines.

    Args:
        settings: Params returned by `TrainingParams.train_settings()`.
        spec: Params in the group `model`.
        inputs: Files that training reads, and the script of the `train` stage.
        device: Device on which the network is trained.
    """
    named = [weights for _, weights in spec.backbones if weights]
    libraries = {"torch": torch.__version__, "numpy": np.__version__}
    if spec.backbones:
        libraries["torchvision"] = version("torchvision")
    if any(name.startswith(TIMM) for name, _ in spec.backbones):
        libraries["timm"] = version("timm")
    code = [path for name in PACKAGES for path in sorted((SOURCES / name).rglob("*.py"))]
    found = {
        **settings,
        "model": {
            **settings["model"],
            "weights": ["a file" if find_weights_file(weights) else weights for weights in named],
        },
        "precision": str(pick_dtype(settings["precision"], device)),
        "libraries": libraries,
        "device": device.type,
        "processes": distributed.world_size(),
        "code": [path.relative_to(SOURCES).as_posix() for path in code],
    }
    return content_key(found, [*inputs, *list_weights_files(spec.backbones), *code])
