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


class Predictor(nn.Module):
    """A network followed by the conversion of its output to probabilities and familiarities."""

    def __init__(self, tagger: Tagger) -> None:
        super().__init__()
        self.network, self.familiarity = tagger.network, tagger.familiarity
        self.num_labels, self.temperature = len(tagger.labels), tagger.temperature

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map uint8 images [batch, 3, size, size] to probabilities and, if known, familiarities.

        The shapes are [batch, num_labels] and [batch].
        """
        outputs = self.network(images)
        logits, distances = outputs[:, : self.num_labels], outputs[:, self.num_labels :]
        probabilities = torch.sigmoid(logits / self.temperature)
        if self.familiarity is None:
            return (probabilities,)
        return probabilities, self.familiarity.rate(distances)


def export_onnx(tagger: Tagger, path: Path) -> None:
    """Write a model to one ONNX file that accepts batches of any size.

    The input `images` is uint8 [batch, 3, size, size], RGB. The output `probabilities` is float32
    [batch, num_labels], and the output `familiarity` float32 [batch], 0..100. The metadata property
    `thresholds` is a JSON object that maps each label to a threshold, which is above 1 if the model
    abstains from this label.

    Args:
        tagger: Model to export.
        path: Path of the ONNX file to write.

    Raises:
        InputError: ONNX is not installed, or ONNX does not support an operation of the network.
    """
    if find_spec("onnx") is None:
        raise InputError("phototag export needs ONNX: run `make setup-onnx`")
    import onnx

    names = ["probabilities"] + ["familiarity"] * (tagger.familiarity is not None)
    try:
        graph = export_graph(Predictor(tagger), example_images(tagger), *names)
        model = onnx.load_from_string(graph)
    except Exception as error:  # the exporter raises many types of exceptions
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise InputError(f"the network cannot be exported to ONNX ({reason})") from None
    thresholds = dict(zip(tagger.labels, tagger.thresholds.tolist(), strict=True))
    onnx.helper.set_model_props(model, {"thresholds": json.dumps(thresholds)})
    onnx.checker.check_model(model)
    with replace_file(path) as temporary:
        onnx.save(model, str(temporary))
