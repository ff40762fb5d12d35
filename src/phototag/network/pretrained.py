"""Pretrained weights: functions that find the file, read it, and match it to a backbone."""

import math
import os
import re
import sys
from collections import Counter, OrderedDict
from collections.abc import Collection
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from phototag.base.errors import InputError
from phototag.base.keys import flatten
from phototag.network.backbones import TIMM, import_timm, native_size, sketch_backbone
from phototag.network.params import Pairs

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
# Prefixes of the tensors of output layers, layers next to them, and auxiliary heads.
HEADS = ("aux", "AuxLogits.", "classif", "fc.", "head", "last_linear.")
State = OrderedDict[str, Tensor]


def find_weights_file(weights: str) -> Path | None:
    """Return the file if `weights` names a file or an installed package, or None otherwise.

    Raises:
        InputError: The package does not contain exactly one weights file.
    """
    # Experiments run in a copy of the project, without untracked files: also search the original.
    path = Path(weights).expanduser()
    for file in (path, os.environ.get("DVC_ROOT", "") / path):
        if file.is_file():
            return file
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


def read_pretrained(name: str, network: nn.Module, weights: str, pairs: Pairs = ()) -> State:
    """Read the state dict for `backbone.load_state_dict(..., strict=False)`.

    Args:
        name: Name of the backbone in params.yaml.
        network: Backbone to which the weights must belong. It can be on the meta device.
        weights: Path of a file, name of an installed package that contains one weights file, or
            name of weights that torchvision or timm downloads, such as `DEFAULT`.
        pairs: Name and weights of each backbone in params.yaml (default: only this backbone). If a
            download fails, the message explains how to download the weights of all of them.

    Raises:
        InputError: There are no weights with this name, or they belong to another network.
    """
    file = find_weights_file(weights)
    found = _read_file(file) if file else _download(name, weights, pairs or ((name, weights),))
    return _match(name, network, found, weights)


def _read_file(path: Path) -> State:
    """Read all tensors of a file; a nested tensor has a dotted name, such as `model.fc.weight`."""
    with path.open("rb") as file:
        start = file.read(64)
        file.seek(0)
        try:
            found: Any = (
                load_file(path)
                if start[8:9] == b"{"  # in safetensors, a JSON header follows its length (8 bytes)
                # weights_only prevents a malicious file from running code when it is loaded.
                else torch.load(file, map_location="cpu", weights_only=True)
            )
        except Exception as error:
            reason, fix = _explain(start, str(error))
            raise InputError(
                f"model.weights: {path} is not a weights file ({reason}): {fix}"
            ) from None
    flat = flatten(found) if isinstance(found, dict) else {}
    tensors = OrderedDict((key, value) for key, value in flat.items() if isinstance(value, Tensor))
    if not tensors:
        raise InputError(
            f"model.weights: {path} does not contain a state dict (a dictionary of tensors by "
            "name): choose another file"
        )
    return tensors


def _explain(start: bytes, error: str) -> tuple[str, str]:
    """Return why a file that starts with `start` contains no weights, and how to fix it."""
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer", "run `git lfs pull`"
    if re.match(rb"\s*<[!?a-z]", start, re.IGNORECASE):
        return "it is a web page", "download the weights again"
    if start[8:9] != b"{" and not start.startswith((b"PK", b"\x80")):
        return "it was not written by PyTorch or safetensors", "choose another file"
    if pickled := re.search(r"GLOBAL (\S+)", error):
        fix = "save only the state dict, with `torch.save(model.state_dict(), path)`"
        return f"it contains an object of the class {pickled[1]}", fix
    return error.partition("\n")[0], "choose another file"


def _strip_prefix(found: State, own: Collection[str]) -> State:
    """Remove the prefix, such as `module.`, of the network's tensors; drop tensors without it."""
    prefixes = Counter([""])
    for key in found:
        starts = [0, *(match.end() for match in re.finditer(r"\.", key))]
        prefixes.update(key[:start] for start in starts if key[start:] in own)
    ((prefix, _),) = prefixes.most_common(1)
    return OrderedDict(
        (key.removeprefix(prefix), value) for key, value in found.items() if key.startswith(prefix)
    )


def _download(name: str, weights: str, pairs: Pairs) -> State:
    bare = name.removeprefix(TIMM)
    if name.startswith(TIMM):
        timm = import_timm()
        known = ["DEFAULT"] if timm.get_pretrained_cfg(bare).has_weights else []
        create = partial(timm.create_model, bare, pretrained=True)
    else:
        from torchvision import models

        known = list(models.get_model_weights(name).__members__)
        create = partial(models.get_model, name, weights=weights, progress=False)
    if weights not in known:
        choices = ["a file", "a package", *known]
        fix = f"choose {', '.join(choices[:-1])} or {choices[-1]}"
        # timm selects the weights of a network by a tag in its name, such as resnet50.a1_in1k.
        tagged = f"{bare.partition('.')[0]}.{weights.rpartition('.')[2]}"
        if name.startswith(TIMM) and tagged in timm.list_pretrained():
            fix = f"set model.name to {TIMM}{tagged}, and model.weights to DEFAULT"
        raise InputError(
            f"model.weights: {weights!r} is not a file, not an installed package, and not the name "
            f"of weights for {name}: {fix}"
        )
    try:
        if name.startswith(TIMM):
            _check_hub(timm.get_pretrained_cfg(bare).hf_hub_id)
        with torch.device("cpu"):
            found: State = create().state_dict()
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"model.weights: the weights of {name} could not be downloaded ({reason}): "
            f"{_explain_download(pairs)}"
        ) from None
    return found


def _check_hub(repository: str | None) -> None:
    """Raise an error if weights are not cached and the model hub is out of reach.

    Without this request, timm would repeat its own requests for a minute.
    """
    from huggingface_hub import model_info, try_to_load_from_cache

    if repository and not any(
        isinstance(try_to_load_from_cache(repository, file), str)
        for file in ("model.safetensors", "pytorch_model.bin")
    ):
        model_info(repository, timeout=10)


def _explain_download(pairs: Pairs) -> str:
    """Return how to download the weights of all backbones on another computer."""
    commands, files, values = ["import torch"], [], []
    for name, weights in pairs:
        bare = name.removeprefix(TIMM)
        if weights is None or find_weights_file(weights):
            values.append(weights or "null")
            continue
        create = f"import timm; model = timm.create_model('{bare}', pretrained=True)"
        if not name.startswith(TIMM):
            create = "from torchvision import models; "
            create += f"model = models.get_model('{bare}', weights='{weights}')"
        file = f"{bare}.{weights}".removesuffix(".DEFAULT") + ".pt"
        values.append(file)
        if file not in files:
            commands += [create, f"torch.save(model.state_dict(), '{file}')"]
            files.append(file)
    value = values[0] if len(values) == 1 else f"[{', '.join(values)}]"
    return (
        "on a computer with internet access, run "
        f'`python -c "{"; ".join(commands)}"`, copy {" and ".join(files)} into this folder, and '
        f"set model.weights to {value}"
    )


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
    # The functions of timm and torchvision resize position embeddings to the photo size. timm's
    # function also converts files of older timm versions.
    try:
        if name.startswith(TIMM):
            library = sys.modules[type(network).__module__]
            return OrderedDict(library.checkpoint_filter_fn(dict(found), network))
        from torchvision.models.vision_transformer import interpolate_embeddings

        patch, num_tokens = own["conv_proj.weight"].shape[2], own["encoder.pos_embedding"].shape[1]
        image_size = patch * math.isqrt(num_tokens - 1)  # one token is the class token
        return OrderedDict(interpolate_embeddings(image_size, patch, found))
    except Exception:  # there is no such function, or the file belongs to another network
        return found


def _match(name: str, network: nn.Module, found: State, weights: str) -> State:
    """Return the tensors that the backbone needs; raise InputError if any is missing or unknown."""
    fitted, misfit = _fit(name, network, found)
    if misfit:
        size = native_size(name)
        _, native_misfit = _fit(name, sketch_backbone(name, weights, size).network, found)
        fix = "choose weights for this network"
        if not native_misfit:
            misfit = f"these weights require photos of {size} x {size} pixels; {misfit}"
            fix = f"set resize.size to {size}, or choose another network"
        raise InputError(f"model.weights: {weights} does not fit {name} ({misfit}): {fix}")
    own = network.state_dict()
    selected = OrderedDict((key, value) for key, value in fitted.items() if key in own)
    # mnasnet reads the version of each layer from `_metadata` when it loads a state dict.
    selected._metadata = own._metadata  # type: ignore[attr-defined]
    return selected


def _fit(name: str, network: nn.Module, found: State) -> tuple[State, str]:
    """Return the tensors, renamed as in the network, and the first mismatch ("" if none)."""
    own = network.state_dict()
    found = _rename(name, network, _strip_prefix(found, own))
    for key, value in own.items():
        if key in found and found[key].shape != value.shape:
            shapes = f"has shape {list(found[key].shape)} instead of {list(value.shape)}"
            return found, f"{key} {shapes}"
        # Older files lack num_batches_tracked, which inference does not need.
        if key not in found and not key.endswith(".num_batches_tracked"):
            return found, f"{key} is missing"
    unknown = (key for key in found if key not in own and not key.startswith(HEADS))
    return found, next((f"the network has no tensor {key}" for key in unknown), "")
