"""Pretrained weights: found, read, and put into a backbone that they fit."""

import re
import sys
from collections import OrderedDict
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from phototag.base.errors import InputError
from phototag.network.backbones import TIMM, head_names, import_timm

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # heads of googlenet and inception_v3, for training
State = OrderedDict[str, Tensor]


def find_weights_file(weights: str) -> Path | None:
    """Return the file that `model.weights` names, itself or by the package it lies in, or None.

    Raises:
        InputError: It is a package that holds no weights, or several.
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
            f"model.weights: the package {weights} holds {len(files) or 'no'} files of weights: "
            "name one with exactly one, or a file"
        )
    return files[0]


def list_weights_files(pairs: Iterable[tuple[str, str | None]]) -> list[Path]:
    """List the files that backbones' weights come from; downloads are none.

    Args:
        pairs: Of `ModelParams.backbones`.
    """
    files = [find_weights_file(weights) for _, weights in pairs if weights]
    return [file for file in files if file]


def read_pretrained(name: str, network: nn.Module, weights: str) -> State:
    """Read the weights that `model.weights` names for a backbone, in the backbone's own names.

    Args:
        name: The backbone's, as in params.yaml.
        network: The backbone, also on the device meta.
        weights: DEFAULT or another name that the library knows (it downloads them), a file, or an
            installed package that holds one file of weights.

    Returns:
        What the network's `load_state_dict` takes; older files lack counters of batches.

    Raises:
        InputError: There are none of that name, or they belong to another network.
    """
    file = find_weights_file(weights)
    found = _read_file(file) if file else _download(name, weights)
    return _fit(name, network, _rename(name, network, found), weights)


def _read_file(path: Path) -> State:
    try:
        # weights_only: a file cannot run code while it is read.
        found: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"model.weights: {path} holds no tensors ({reason})") from None
    for wrapper in ("state_dict", "model"):  # as training scripts keep them
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    ):
        raise InputError(f"model.weights: {path} holds no tensors, each under its name")
    state = OrderedDict((key.removeprefix("module."), v) for key, v in found.items())
    _copy_versions(found, state)
    return state


def _copy_versions(source: Any, state: State) -> None:
    # Which version of a layer wrote its tensors: mnasnet asks for it.
    if hasattr(source, "_metadata"):
        state._metadata = source._metadata  # type: ignore[attr-defined]


def _download(name: str, weights: str) -> State:
    timm = name.startswith(TIMM)
    known = ["DEFAULT"]  # of timm's others each has a name of its own, as in timm/resnet50.a1_in1k
    if not timm:
        from torchvision import models

        known += [entry.name for entry in models.get_model_weights(name)]
    if weights not in known:
        raise InputError(
            f"model.weights: {weights!r} is neither a file nor one of {name}'s in "
            f"{'timm' if timm else 'torchvision'} ({', '.join(known)}), nor an installed package"
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
            f"model.weights: the weights of {name} could not be downloaded ({reason}): where there "
            "is no network, name a file or an installed package that holds them"
        ) from None
    found: State = network.state_dict()
    return found


def _rename(name: str, network: nn.Module, found: State) -> State:
    """Give the tensors of a file the names that the network of today has for them."""
    own = network.state_dict()
    if all(key in found and found[key].shape == own[key].shape for key in own):
        return found
    try:
        renamed = _translate(name, network, found)
    except Exception:  # whatever the library says of it, the file belongs to another network
        return found
    _copy_versions(found, renamed)
    return renamed


def _translate(name: str, network: nn.Module, found: State) -> State:
    if name.startswith("densenet"):
        pattern = r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"  # norm.1 once, today norm1
        return OrderedDict((re.sub(pattern, r"\1\2", key), v) for key, v in found.items())
    if "_conv_stem.weight" in found:
        return _rename_efficientnet(found, network.state_dict())
    if "encoder.pos_embedding" in found and hasattr(network, "encoder"):
        return _resample_positions(network, found)
    # timm's own files: older names, positions of another size.
    module = sys.modules[type(network).__module__]
    translate = getattr(module, "checkpoint_filter_fn", None)
    if not name.startswith(TIMM) or translate is None:
        return found
    return OrderedDict(translate(dict(found), network))


def _rename_efficientnet(found: State, own: dict[str, Tensor]) -> State:
    """Translate the names of efficientnet_pytorch, which counts all blocks through, to timm's."""
    names = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    names["_fc"] = "classifier"
    inner = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    inner |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    inner |= {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
    # The first blocks, which do not widen their maps, have one layer less.
    plain = inner | {"_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    blocks = list(dict.fromkeys(".".join(k.split(".")[:3]) for k in own if k.startswith("blocks.")))
    renamed: State = OrderedDict()
    for key, value in found.items():
        first, *rest = key.split(".")
        if first == "_blocks" and int(rest[0]) < len(blocks):
            widens = f"_blocks.{rest[0]}._expand_conv.weight" in found
            layer = (inner if widens else plain).get(rest[1], rest[1])
            renamed[".".join([blocks[int(rest[0])], layer, *rest[2:]])] = value
        else:
            renamed[".".join([names.get(first, first), *rest])] = value
    return renamed


def _resample_positions(network: Any, found: State) -> State:
    """Stretch a torchvision transformer's table of positions to another size of photos."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    if network.encoder.pos_embedding.shape[2] != found["encoder.pos_embedding"].shape[2]:
        return found
    with torch.device("cpu"):
        stretched: State = interpolate_embeddings(
            network.image_size, network.patch_size, OrderedDict(found)
        )
    return stretched


def _fit(name: str, network: nn.Module, found: State, weights: str) -> State:
    """Keep what the backbone has a place for, and refuse what is missing or left over."""
    own = network.state_dict()
    counters = ".num_batches_tracked"  # older files have none, and inference does not need them
    for key, tensor in own.items():
        absent = key not in found and not key.endswith(counters)
        if absent or (key in found and found[key].shape != tensor.shape):
            raise _misfit(name, weights, f"{key} is missing or has another shape")
    heads = tuple(f"{head}." for head in head_names(network))
    left = [key for key in found if key not in own and not key.startswith((*heads, *AUXILIARY))]
    if left:
        raise _misfit(name, weights, f"it has no place for {left[0]}")
    fitting = OrderedDict((key, value) for key, value in found.items() if key in own)
    _copy_versions(found if hasattr(found, "_metadata") else own, fitting)
    return fitting


def _misfit(name: str, weights: str, why: str) -> InputError:
    return InputError(
        f"model.weights: {weights} does not fit {name}: {why}; name weights of this very network"
    )
