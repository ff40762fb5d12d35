"""Fixtures of the tests of linear probes."""

import copy
from typing import Any

import pytest

from phototag.schema.params import Params


@pytest.fixture
def params(params_values: dict[str, Any]) -> Params:
    values = copy.deepcopy(params_values)
    values |= {"optimizer": "lbfgs", "weight_decay": 1.0, "epochs": 14}
    values["model"] |= {"name": "resnet18", "weights": "DEFAULT", "freeze": True, "linear": []}
    return Params.model_validate(values)
