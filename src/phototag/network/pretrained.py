"""Pretrained weights: functions that find the file, read it, and match it to a backbone."""

import re
import sys
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from phototag.base.errors import InputError
from phototag.network.backbones import TIMM, head_names, import_timm
from phototag.network.params import Pairs

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # auxiliary heads of googlenet and inception_v3
State = OrderedDict[str, Tensor]


def find_weights_file(weights: str) -> Path | None:
    """Return the file if `weights` names a file or an installed package, or None otherwise.

    Raises:
        InputError: The package does not contain exactly one weights file.
    """
    path = Path(weights)
    if path.is_file():
        return path
    module = weights.replace("-", "_")
    spec = find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0])
    files = sorted(file for file in folder.rglob("*") if file.suffix in SUFFIXES)
    if len(files) != 1:
        raise InputError(
            f"model.weights: the package {weights} contains {len(files) or 'no'} weights files: "
            "choose a package that contains exactly one, or a file"
        )
    return files[0]


def list_weights_files(pairs: Pairs) -> list[Path]:
    """List the weights files of backbones, without weights that torchvision or timm downloads."""
    files = [find_weights_file(weights) for _, weights in pairs if weights]
    return [file for file in files if file]


def read_pretrained(name: str, network: nn.Module, weights: str) -> State:
    """Read the state dict for `backbone.load_state_dict(..., strict=False)`.

    Args:
        name: Name of the backbone in params.yaml.
        network: Backbone to which the weights must belong. It can be on the meta device.
        weights: Path of a file, name of an installed package that contains one weights file, or
            name of weights that torchvision or timm downloads, such as `DEFAULT`.

    Raises:
        InputError: There are no weights with this name, or they belong to another network.
    """
    file = find_weights_file(weights)
    found = _read_file(file) if file else _download(name, weights)
    return _select(name, network, _rename(name, network, found), weights)


def _read_file(path: Path) -> State:
    try:
        found: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            # weights_only prevents a malicious file from running code when it is loaded.
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"model.weights: {path} is not a weights file ({reason}): choose another file"
        ) from None
    for wrapper in ("state_dict", "model"):  # keys under which training scripts save the state dict
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    ):
        raise InputError(
            f"model.weights: {path} does not contain a state dict (a dictionary of tensors by "
            "name): choose another file"
        )
    return OrderedDict((key.removeprefix("module."), value) for key, value in found.items())


def _download(name: str, weights: str) -> State:
    timm = name.startswith(TIMM)
    known = ["DEFAULT"]  # in timm, other weights are part of the network name: resnet50.a1_in1k
    if not timm:
        from torchvision import models

        known += [entry.name for entry in models.get_model_weights(name)]
    if weights not in known:
        raise InputError(
            f"model.weights: {weights!r} is not a file, not an installed package, and not the name "
            f"of weights for {name} in {'timm' if timm else 'torchvision'}: choose a file, a "
            f"package, or one of {', '.join(known)}"
        )
    try:
        with torch.device("cpu"):
            if timm:
                bare = name.removeprefix(TIMM)
                network = import_timm().create_model(bare, pretrained=True, num_classes=0)
            else:
                network = models.get_model(name, weights=weights, progress=False)
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"model.weights: the weights of {name} could not be downloaded ({reason}): without an "
            "internet connection, choose a file or an installed package that contains them"
        ) from None
    found: State = network.state_dict()
    return found


def _rename(name: str, network: nn.Module, found: State) -> State:
    """Rename the tensors of a file from an older version or another library as in the backbone."""
    own = network.state_dict()
    if all(key in found and found[key].shape == own[key].shape for key in own):
        return found
    if name.startswith("densenet"):
        # In older torchvision files, layers such as norm1 are named norm.1.
        pattern = r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"
        return OrderedDict((re.sub(pattern, r"\1\2", key), v) for key, v in found.items())
    if "_conv_stem.weight" in found:
        # The file was written by efficientnet_pytorch. timm has the same layers in the same order.
        body = [value for key, value in found.items() if not key.startswith("_fc.")]
        return OrderedDict(zip(own, body, strict=False))
    # timm's function converts older timm files, and resizes position embeddings to the photo size.
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if not name.startswith(TIMM) or convert is None:
        return found
    try:
        return OrderedDict(convert(dict(found), network))
    except Exception:  # the file belongs to another network, which `_select` reports
        return found


def _select(name: str, network: nn.Module, found: State, weights: str) -> State:
    """Return the tensors that the backbone needs; raise InputError if any is missing or unknown."""
    own = network.state_dict()
    # Older files lack num_batches_tracked, which inference does not need.
    needed = [key for key in own if key in found or not key.endswith(".num_batches_tracked")]
    heads = tuple(f"{head}." for head in head_names(network))
    misfits = [
        f"{key} is missing or has another shape"
        for key in needed
        if key not in found or found[key].shape != own[key].shape
    ]
    misfits += [
        f"the network has no tensor {key}"
        for key in found
        if key not in own and not key.startswith((*heads, *AUXILIARY))
    ]
    if misfits:
        raise InputError(
            f"model.weights: {weights} does not fit {name} ({misfits[0]}): choose weights for "
            "this network"
        )
    selected = OrderedDict((key, value) for key, value in found.items() if key in own)
    # mnasnet reads the version of each layer from `_metadata` when it loads a state dict.
    selected._metadata = own._metadata  # type: ignore[attr-defined]
    return selected
