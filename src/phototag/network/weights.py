"""The model file: a safetensors file with the weights of a network and their metadata."""

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
from phototag.network.familiarity import Familiarity
from phototag.network.model import build_model
from phototag.network.params import ModelParams

SYNTHETIC = "synthetic images"
REFERENCE, QUANTILES = "familiarity.reference", "familiarity.quantiles"  # names of tensors


@dataclass(frozen=True)
class Metadata:
    """Metadata of a model file.

    Attributes:
        labels: Names of the labels, in the order of the network's outputs, [num_labels].
        size: Side length of the photos that the network receives, in pixels.
        mean: Channel means of the train split, 0..1, [3].
        std: Channel standard deviations of the train split, 0..1, [3].
        model: The group `model` in params.yaml.
        content_key: Hash of the params, data and code of the `train` stage.
        epoch: Number of the epoch, or of the linear probe step, that produced the weights.
        val_loss: Mean binary cross entropy on the val split after this epoch or step, in nats.
        num_photos: Number of training photos; 0 in files written before this field existed.
        source: Source of the training photos: `SYNTHETIC`, or the value of `data.raw` in
            params.yaml.
        network_size: Side length to which the network enlarges the photos, in pixels (the value of
            `resize.size`); 0 in files written before this field existed, which means `size`.
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
    network_size: int = 0

    @property
    def is_synthetic(self) -> bool:
        """Whether the model was trained on the synthetic dataset only."""
        return self.source == SYNTHETIC

    @property
    def spec(self) -> ModelParams:
        """The group `model`, validated."""
        # Before the key `power` existed, backbones ignored `global_pool`.
        old = "power" not in self.model and self.model.get("name", "conv") != "conv"
        return ModelParams.model_validate(self.model | ({"global_pool": "none"} if old else {}))


def describe_origin(metadata: Metadata) -> str:
    """Return a sentence about the training photos, or "" if the metadata do not describe them."""
    if metadata.is_synthetic:
        return (
            f"The model was trained on {metadata.num_photos} {SYNTHETIC} only, so that its "
            "predictions for real photos are meaningless."
        )
    if metadata.num_photos:
        return f"The model was trained on {metadata.num_photos} photos from {metadata.source}."
    return ""


def save_model(
    path: Path, model: nn.Module, metadata: Metadata, familiarity: Familiarity | None = None
) -> None:
    """Write weights and metadata to a safetensors file; equal inputs give identical files."""
    # safetensors refuses tensors that share memory. Some timm networks use one tensor under several
    # names, and the file contains a copy for each name.
    tensors = {key: value.cpu().contiguous().clone() for key, value in model.state_dict().items()}
    if familiarity:
        tensors |= {REFERENCE: familiarity.reference.half(), QUANTILES: familiarity.quantiles}
    # Write a single entry: the order in which safetensors writes several entries varies.
    entry = {"phototag": json.dumps(asdict(metadata), sort_keys=True)}
    with replace_file(path) as temporary:
        save_file(tensors, temporary, entry)


def read_metadata(path: Path) -> Metadata:
    """Read the metadata of a model file.

    Raises:
        InputError: The file is missing, or was written by another version of phototag.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return Metadata(**json.loads(file.metadata()["phototag"]))
    except FileNotFoundError:
        raise _explain_missing(path) from None
    except Exception as error:
        raise _explain_other_version(path, error) from None


def _explain_missing(path: Path) -> InputError:
    return InputError(f"{path} is missing: run `dvc repro`")


def _explain_other_version(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(
        f"{path} does not fit this version of phototag ({reason}): run `dvc repro train`, or "
        "install the version that wrote the file"
    )


def load_model(path: Path) -> tuple[nn.Sequential, Metadata]:
    """Return the network of a model file, on the CPU in evaluation mode, and the metadata.

    Raises:
        InputError: The file is missing, or was written with another version of phototag,
            torchvision or timm.
    """
    metadata = read_metadata(path)
    try:
        sides = metadata.size, metadata.network_size
        mean, std, num_labels = metadata.mean, metadata.std, len(metadata.labels)
        model = build_model(metadata.spec, num_labels, sides[0], mean, std, sides[1])
        tensors = load_file(path)
        model.load_state_dict({k: tensors[k] for k in tensors if k not in (REFERENCE, QUANTILES)})
    except FileNotFoundError:  # DVC removed the file after its metadata was read
        raise _explain_missing(path) from None
    except (ValidationError, RuntimeError) as error:
        raise _explain_other_version(path, error) from None
    model.eval()
    return model, metadata


def load_familiarity(path: Path) -> Familiarity | None:
    """Return the familiarity in a model file, or None if an older version wrote the file.

    Raises:
        InputError: The file is missing.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if REFERENCE not in file.keys():  # noqa: SIM118 (not a dictionary)
                return None
            return Familiarity(file.get_tensor(REFERENCE), file.get_tensor(QUANTILES)).eval()
    except FileNotFoundError:
        raise _explain_missing(path) from None
