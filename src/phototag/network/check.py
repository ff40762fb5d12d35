"""What is wrong with `model`, told before any photo is decoded."""

import sys

from phototag.base.params import Params


def check_model(params: Params) -> None:
    """Build the backbones without memory and read their weights, so that misfits are told at once.

    Weights that a library downloads are downloaded here; it keeps them for the training.

    Raises:
        InputError: There is no such network, it cannot take photos of this size, or its weights
            are not there or belong to another network.
    """
    spec, size = params.model, params.resize.size
    if not spec.backbones:
        return
    # PyTorch takes seconds, for which the report's network need not wait here.
    from phototag.network.backbones import sketch_backbone
    from phototag.network.pretrained import read_pretrained

    for name, weights in spec.backbones:
        backbone = sketch_backbone(name, weights, size)
        if weights is None:
            continue
        read_pretrained(name, backbone.network, weights)
        if backbone.size != size:
            print(
                f"note: the weights of {name} were trained on photos of {backbone.size} pixels a "
                f"side; resize.size is {size}",
                file=sys.stderr,
            )
