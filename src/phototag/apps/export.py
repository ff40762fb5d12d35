"""A trained model as ONNX, for runtimes without PyTorch."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from phototag.base.errors import InputError
from phototag.base.files import replace_file
from phototag.network.runtime import PARITY, export_graph
from phototag.serving.tagger import Tagger, draw_examples


class Probabilities(nn.Module):
    """The network with what turns its logits into probabilities."""

    def __init__(self, tagger: Tagger) -> None:
        super().__init__()
        self.network = tagger.network
        self.temperature = tagger.temperature

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 [batch, 3, size, size] to 0..1 [batch, num_labels]."""
        return torch.sigmoid(self.network(images) / self.temperature)


def export_onnx(tagger: Tagger, path: Path) -> None:
    """Write one ONNX file for batches of any size.

    Its input `images` is uint8 [batch, 3, size, size], as the packed array has them but with the
    channels first; its output `probabilities` is float32 [batch, num_labels]. The labels and their
    thresholds stand in its metadata.

    Args:
        tagger: The model.
        path: The file.

    Raises:
        InputError: ONNX is not installed, or cannot express the network; or ONNX Runtime, where it
            is installed, does not give what PyTorch does.
    """
    if find_spec("onnx") is None:
        raise InputError("`phototag export` needs ONNX: run `make setup-onnx`")
    import onnx

    network, example = Probabilities(tagger), draw_examples(tagger)
    try:
        recorded = export_graph(network, example, "images", "probabilities")
    except Exception as error:  # its exporter raises anything at all
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise InputError(f"this network cannot be written as ONNX ({reason})") from None
    _check_parity(recorded, network, example)
    found = onnx.load_from_string(recorded)
    thresholds = dict(zip(tagger.labels, tagger.thresholds.tolist(), strict=True))
    onnx.helper.set_model_props(found, {"thresholds": json.dumps(thresholds)})
    onnx.checker.check_model(found)
    with replace_file(path) as temporary:
        onnx.save(found, str(temporary))


@torch.inference_mode()
def _check_parity(recorded: bytes, network: nn.Module, example: Tensor) -> None:
    if find_spec("onnxruntime") is None:
        return
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(recorded, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"images": example.numpy()})
    except Exception as error:  # of its own kinds
        reason = str(error).partition("\n")[0][:200]
        raise InputError(f"ONNX Runtime cannot run this network ({reason})") from None
    off = float(np.abs(found - network(example).numpy()).max())
    if not off <= PARITY:  # nor where it is NaN
        raise InputError(f"ONNX Runtime is off by {off:.1e} with this network: nothing is written")
