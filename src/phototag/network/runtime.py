"""Networks run by ONNX Runtime, which on a CPU takes half of PyTorch's time."""

import sys
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

from phototag.network.graph import export_graph

PACKAGES = ("onnx", "onnxruntime")
PARITY = 1e-4  # of the largest output, by which it may differ from PyTorch


class Session(nn.Module):
    """A recorded network, to be called as PyTorch's own.

    Args:
        graph: Of `record`.
    """

    def __init__(self, graph: bytes) -> None:
        super().__init__()
        import onnxruntime

        self.graph = graph
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 [batch, 3, size, size] to what the network gives, float32 [batch, width]."""
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        (found,) = self.session.run(None, {"images": pixels})
        return torch.from_numpy(found)


class _FromPixels(nn.Module):
    """A network, fed with photos as the packed array has them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 [batch, size, size, 3] to what the network gives."""
        found: Tensor = self.network(images.permute(0, 3, 1, 2))
        return found


def can_record() -> bool:
    """Say whether what records a network, and runs it, is installed."""
    return all(map(find_spec, PACKAGES))


def accelerate(network: nn.Module, examples: Tensor) -> nn.Module:
    """Return what runs a network fastest here: itself on a GPU, else a `Session`, if that can be.

    Args:
        network: On its device, in evaluation mode.
        examples: uint8 [batch, 3, size, size], there too.
    """
    graph = record(network, examples)
    return network if graph is None else Session(graph)


@torch.inference_mode()
def record(network: nn.Module, examples: Tensor) -> bytes | None:
    """Record a network for a `Session`.

    Args:
        network: In evaluation mode.
        examples: uint8 [batch, 3, size, size], on its device.

    Returns:
        None on a GPU; where the packages are not installed; and, with a note on the standard error,
        where ONNX Runtime cannot run the network, or does not give what PyTorch does.
    """
    if examples.is_cuda or not can_record():
        return None
    expected = network(examples).float()
    try:
        # A batch of one may pass for a fixed one.
        pixels = examples.permute(0, 2, 3, 1).repeat(2, 1, 1, 1)
        graph = export_graph(_FromPixels(network), pixels, "images", "found")
        found = Session(graph)(examples)
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        print(f"note: ONNX Runtime cannot run this network ({reason[:200]})", file=sys.stderr)
        return None
    off = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    if not np.isfinite(off) or off > PARITY:
        print(f"note: ONNX Runtime is off by {off:.1e}; PyTorch computes", file=sys.stderr)
        return None
    return graph
