"""The trained model's file: safetensors with all that is needed to use it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from phototag.base.errors import InputError
from phototag.base.files import replace_file
from phototag.network.backbones import TIMM
from phototag.network.model import build_model
from phototag.network.params import ModelParams

DRAWN = "drawn scenes"


@dataclass(frozen=True)
class Metadata:
    """What a model file says of itself.

    Attributes:
        labels: Names of the outputs, [num_labels].
        size: Pixels a side of the input.
        mean: Channel means of the train split, 0..1, [3].
        std: Channel standard deviations of the train split, 0..1, [3].
        model: The network's spec, as in params.yaml.
        content_key: Hash of the train stage's params, data and code.
        epoch: The epoch whose weights these are, from 1.
        val_loss: Mean binary cross entropy of that epoch on val.
        num_photos: It was trained on; 0 in files of before this was told.
        source: Of these photos: `DRAWN`, or data.raw of params.yaml.
    """

    labels: list[str]
    size: int
    mean: list[float]
    std: list[float]
    model: dict[str, Any]
    content_key: str
    epoch: int
    val_loss: float
    num_photos: int = 0
    source: str = ""

    @property
    def is_drawn(self) -> bool:
        """Whether it never saw a real photo."""
        return self.source == DRAWN

    @property
    def is_frozen(self) -> bool:
        """Whether what learnt was a head over kept features, `model[2:]`."""
        return ModelParams.model_validate(self.model).frozen


def describe_origin(metadata: Metadata) -> str:
    """Say in a sentence what a model was trained on; nothing where its file does not tell."""
    if metadata.is_drawn:
        return (
            f"Trained on {metadata.num_photos} drawn scenes alone: it knows no real photos, and "
            "what it says of one means nothing."
        )
    if metadata.num_photos:
        return f"Trained on {metadata.num_photos} photos of {metadata.source}."
    return ""


def save_model(path: Path, model: nn.Module, metadata: Metadata) -> None:
    """Write weights and metadata to one safetensors file; equal inputs give equal bytes."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    # One entry: safetensors writes several in an order that differs from run to run.
    entry = {"phototag": json.dumps(asdict(metadata), sort_keys=True)}
    with replace_file(path) as temporary:
        save_file(tensors, temporary, entry)


def read_metadata(path: Path) -> Metadata:
    """Read what a model file says of itself.

    Raises:
        InputError: The file is missing, or this version of phototag did not write it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            entry = file.metadata()["phototag"]
    except FileNotFoundError:
        raise InputError(f"{path} is missing: `dvc repro train` makes it") from None
    except Exception as error:
        raise InputError(f"{path} is no phototag model: {error}") from None
    try:
        return Metadata(**json.loads(entry))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is of another version of phototag: {error}") from None


def required_packages(metadata: Metadata) -> list[str]:
    """List the packages that bring the backbones of a model."""
    names = [name for name, _ in ModelParams.model_validate(metadata.model).backbones]
    timm = any(name.startswith(TIMM) for name in names)
    return ["timm", "torchvision"] if timm else ["torchvision"] if names else []


def load_model(path: Path) -> tuple[nn.Sequential, Metadata]:
    """Build the network from a model file, on the CPU, ready for inference.

    Raises:
        InputError: The file is missing, or this version of phototag, or of what brings its
            backbones, did not write it.
    """
    metadata = read_metadata(path)
    try:
        spec = ModelParams.model_validate(metadata.model)
        model = build_model(spec, len(metadata.labels), metadata.size, metadata.mean, metadata.std)
        model.load_state_dict(load_file(path))
    except (ValidationError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} does not fit this version of phototag: {reason}") from None
    model.eval()
    return model, metadata
