"""Checks of params.yaml that run before a stage does any work.

The checks do not change any output, so no stage in dvc.yaml depends on this package. A new key in
the params of one package therefore reruns only the stages that use that package.
"""

import os

from phototag.base.files import check_folder, project_root
from phototag.schema.params import Params, read_all_params


def check_params() -> Params:
    """Validate params.yaml without importing torch.

    Raises:
        InputError: A param is invalid, or MLflow cannot load models from the project's folder.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI", "").strip():
        check_folder(project_root())
    return read_all_params()


def check_backbones() -> None:
    """Build the backbones on the meta device and read their weights, to report errors early.

    Weights that torchvision or timm provides are downloaded and cached here, before training.

    Raises:
        InputError: A backbone is unknown, does not accept photos of `resize.size`, or has no
            feature maps to pool; or its weights are missing or belong to another network.
    """
    params = check_params()
    if not params.model.backbones:
        return
    # Importing torch takes seconds, so it is imported only if there are backbones to check.
    from phototag.network.backbones import sketch_backbone
    from phototag.network.pretrained import read_pretrained

    spec = params.model.features(params.resize.size)
    backbones = [sketch_backbone(*pair, *spec[1:]) for pair in spec.pairs]
    for backbone, (name, weights) in zip(backbones, spec.pairs, strict=True):
        if weights is not None:
            read_pretrained(name, backbone.network, weights, spec.pairs)
