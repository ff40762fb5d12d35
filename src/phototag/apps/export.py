"""Export of a trained model to ONNX, for runtimes without PyTorch."""

import json
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from phototag.base.errors import InputError
from phototag.base.files import replace_file
from phototag.network.runtime import export_graph
from phototag.serving.tagger import Tagger, example_images


class Probabilities(nn.Module):
    """A network followed by temperature scaling and a sigmoid; maps pixels to probabilities."""

    def __init__(self, tagger: Tagger) -> None:
        super().__init__()
        self.network = tagger.network
        self.temperature = tagger.temperature

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images [batch, 3, size, size] to probabilities in 0..1 [batch, num_labels]."""
        return torch.sigmoid(self.network(images) / self.temperature)


def export_onnx(tagger: Tagger, path: Path) -> None:
    """Write a model to one ONNX file that accepts batches of any size.

    The input `images` is uint8 [batch, 3, size, size], RGB. The output `probabilities` is float32
    [batch, num_labels]. The metadata property `thresholds` is a JSON object that maps each label
    to a threshold, which is above 1 if the model abstains from this label.

    Args:
        tagger: Model to export.
        path: Path of the ONNX file to write.

    Raises:
        InputError: ONNX is not installed, or ONNX does not support an operation of the network.
    """
    if find_spec("onnx") is None:
        raise InputError("phototag export needs ONNX: run `make setup-onnx`")
    import onnx

    network, example = Probabilities(tagger), example_images(tagger)
    try:
        model = onnx.load_from_string(export_graph(network, example, "probabilities"))
    except Exception as error:  # the exporter raises many types of exceptions
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise InputError(f"the network cannot be exported to ONNX ({reason})") from None
    thresholds = dict(zip(tagger.labels, tagger.thresholds.tolist(), strict=True))
    onnx.helper.set_model_props(model, {"thresholds": json.dumps(thresholds)})
    onnx.checker.check_model(model)
    with replace_file(path) as temporary:
        onnx.save(model, str(temporary))
