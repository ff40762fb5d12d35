"""Schema of the whole params.yaml, composed of the params of all stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phototag.base.errors import InputError
from phototag.base.keys import flatten
from phototag.base.params import FILE, read_values, validate_params
from phototag.evaluation.params import EvaluationParams
from phototag.monitoring.params import ReferenceParams
from phototag.network.params import NetworkParams, feature_map_side
from phototag.registry.params import RegistrationParams
from phototag.splitting.params import SplittingParams
from phototag.synthetic.params import SyntheticParams
from phototag.training.params import TrainingParams
from phototag.verification.params import VerificationParams

RENAMED = {
    "evaluate.pooling": "evaluate.prior_strength",
    "finetune.head_first": "finetune.linear_probe_first",
}


class Params(  # type: ignore[misc]  # SyntheticParams declares only a part of the group `data`
    VerificationParams,
    SplittingParams,
    NetworkParams,
    TrainingParams,
    EvaluationParams,
    ReferenceParams,
    RegistrationParams,
    SyntheticParams,
):
    """Content of params.yaml: the params of all stages."""


def read_all_params(path: Path = FILE) -> Params:
    """Read and validate the whole params.yaml.

    Raises:
        InputError: The file is missing or not valid YAML, or one of its values is invalid.
    """
    return validate_all(read_values(path), str(path))


def validate_all(values: Mapping[str, Any], source: str) -> Params:
    """Validate the values of the whole params.yaml; error messages start with `source`.

    Raises:
        InputError: A key is unknown, missing or renamed, a value is out of range, two values
            exclude each other, or `resize.size` is too small for the conv network.
    """
    given = flatten(values)
    for old, new in RENAMED.items():
        if old in given:
            raise InputError(f"{source}: {old} was renamed to {new}: rename the key")
    params = validate_params(Params, values, source)
    if not params.model.backbones:
        feature_map_side(params.model, params.resize.size)
    return params
