"""Checks of params.yaml that run before any work is done.

A check changes no output, so no stage of dvc.yaml depends on this package: a new key in the params
of one package reruns the stages of that package only.
"""

import sys

from phototag.network.params import feature_map_side
from phototag.schema.params import Params, read_all_params


def check_params() -> Params:
    """Validate params.yaml, including what the conv network can take. Does not import torch.

    Raises:
        InputError: A param is invalid, or photos of `resize.size` are too small for the network.
    """
    params = read_all_params()
    if not params.model.backbones:
        feature_map_side(params.model, params.resize.size)
    return params


def check_backbones() -> None:
    """Build the backbones on the meta device and read their weights, to report misfits early.

    Weights that a library downloads are downloaded here; the library caches them for training.

    Raises:
        InputError: A backbone is unknown, it cannot take photos of `resize.size`, or its weights
            are missing or belong to another network.
    """
    params = check_params()
    if not params.model.backbones:
        return
    # Importing torch takes seconds, and the report's network does not need it here.
    from phototag.network.backbones import sketch_backbone
    from phototag.network.pretrained import read_pretrained

    size = params.resize.size
    for name, weights in params.model.backbones:
        backbone = sketch_backbone(name, weights, size)
        if weights is None:
            continue
        read_pretrained(name, backbone.network, weights)
        if backbone.size != size:
            print(
                f"note: the weights of {name} were trained on photos of {backbone.size} pixels "
                f"per side; resize.size is {size}",
                file=sys.stderr,
            )
