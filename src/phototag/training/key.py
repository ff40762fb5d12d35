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
from phototag.network.backbones import required_packages
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

    `settings` are the params returned by `TrainingParams.train_settings()`. `inputs` are the files
    that training reads, and the script of the `train` stage.
    """
    named = [weights for _, weights in spec.backbones if weights]
    libraries = {"torch": torch.__version__, "numpy": np.__version__}
    libraries |= {name: version(name) for name in required_packages(spec.backbones)}
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
