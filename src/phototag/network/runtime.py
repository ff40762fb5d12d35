"""Networks as ONNX graphs, which ONNX Runtime runs in half of PyTorch's time on a CPU."""

import io
import sys
import warnings
from importlib.util import find_spec

import torch
from torch import Tensor, nn

PACKAGES = ("onnx", "onnxruntime")
PARITY = 1e-4  # largest allowed difference from PyTorch, as a share of the largest output


class Session(nn.Module):
    """A module that runs an ONNX graph in ONNX Runtime on the CPU.

    Args:
        graph: ONNX file returned by `record`.
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
        """Map uint8 [batch, 3, size, size] to the network's output, float32 [batch, width]."""
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        (output,) = self.session.run(None, {"images": pixels})
        return torch.from_numpy(output)


class _ChannelsLast(nn.Module):
    """A network whose input has the memory layout of the packed array."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 [batch, size, size, 3] to the network's output."""
        output: Tensor = self.network(images.permute(0, 3, 1, 2))
        return output


def can_record() -> bool:
    """Return whether ONNX and ONNX Runtime are installed."""
    return all(map(find_spec, PACKAGES))


def export_graph(network: nn.Module, example: Tensor, input_name: str, output_name: str) -> bytes:
    """Export a network as an ONNX graph for batches of any size.

    Args:
        network: Network with one input tensor and one output tensor, both with the batch first.
        example: Input of at least two photos; of one, the exporter would fix the batch size at 1.
        input_name: Name of the graph's input.
        output_name: Name of the graph's output.

    Returns:
        Content of an ONNX file.
    """
    file = io.BytesIO()
    # The older of PyTorch's two exporters takes under 1 s instead of 8 s for the same graph, and
    # needs no further package. It warns that it is deprecated.
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (example.clone(),),
            file,
            input_names=[input_name],
            output_names=[output_name],
            dynamic_axes={input_name: {0: "batch"}, output_name: {0: "batch"}},
            dynamo=False,
        )
    return file.getvalue()


@torch.inference_mode()
def record(network: nn.Module, examples: Tensor) -> bytes | None:
    """Export a network for a `Session`, and compare the session's output with PyTorch's.

    Args:
        network: Network in evaluation mode.
        examples: Photos, uint8 [batch, 3, size, size], on the network's device.

    Returns:
        Content of an ONNX file. None on a GPU, if a package is missing, or, with a note on standard
        error, if ONNX Runtime cannot run the network or its output differs from PyTorch's.
    """
    if examples.is_cuda or not can_record():
        return None
    expected = network(examples).float()
    try:
        pixels = examples.permute(0, 2, 3, 1).repeat(2, 1, 1, 1)
        graph = export_graph(_ChannelsLast(network), pixels, "images", "found")
        output = Session(graph)(examples)
    except Exception as error:  # the exporter and ONNX Runtime raise errors of many types
        reason = str(error).partition("\n")[0] or type(error).__name__
        print(
            f"note: ONNX Runtime cannot run this network ({reason[:200]}); PyTorch runs it",
            file=sys.stderr,
        )
        return None
    difference = float((output - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    if not difference <= PARITY:  # also true for NaN
        print(
            f"note: ONNX Runtime's output differs from PyTorch's by {difference:.1e}; PyTorch "
            "runs the network",
            file=sys.stderr,
        )
        return None
    return graph


def accelerate(network: nn.Module, examples: Tensor) -> nn.Module:
    """Return a `Session` of the network if `record` succeeds, otherwise the network itself.

    Args:
        network: Network on its device, in evaluation mode.
        examples: Photos, uint8 [batch, 3, size, size], on that device.
    """
    graph = record(network, examples)
    return network if graph is None else Session(graph)
