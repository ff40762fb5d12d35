import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torchvision import models

from phototag.base.errors import InputError
from phototag.schema.checks import check_backbones

Values = dict[str, Any]


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A file of weights of squeezenet1_1."""
    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "w.pt")
    return str(tmp_path / "w.pt")


def check(values: Values, size: int = 64, **model: Any) -> None:
    values["resize"]["size"] = size
    values["model"] |= model
    Path("params.yaml").write_text(yaml.safe_dump(values))
    check_backbones()


def test_a_copy_uses_the_untracked_weights_file_of_the_project(
    tmp_path: Path, params_values: Values, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")  # DVC runs a `--temp` experiment in a copy
    with pytest.raises(InputError, match=r"'w\.pt' is not a file"):
        check(params_values, name="squeezenet1_1", weights="w.pt")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    check(params_values, name="squeezenet1_1", weights="w.pt")


@pytest.mark.parametrize(
    ("size", "name", "message"),
    [
        (64, "squeezenet1_0", r"w\.pt does not fit squeezenet1_0"),
        (8, "squeezenet1_1", r"squeezenet1_1 does not support photos of 8 x 8 pixels"),
        (64, "squeezenet1_1+squeezenet9", r"no classifier 'squeezenet9'"),
        (64, "conv", r"model\.conv\.4: the feature map of 5 x 5 pixels is smaller than .* size 7"),
    ],
)
def test_backbone_that_does_not_fit_is_refused(
    tmp_path: Path,
    params_values: Values,
    weights: str,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    name: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        check(params_values, size, name=name, weights=weights)


def test_check_of_the_conv_network_does_not_import_torch() -> None:
    script = "import sys; from phototag.schema.checks import check_backbones; check_backbones();"
    script += "assert 'torch' not in sys.modules"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True)
