"""Networks on a CPU: ONNX Runtime, which needs half of PyTorch's time, and memory."""

import ctypes
import io
import platform
import sys
import warnings
from importlib.util import find_spec

import torch
from torch import Tensor, nn

PACKAGES = ("onnx", "onnxruntime")
PARITY = 1e-4  # largest allowed difference from PyTorch, as a share of the largest output
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc reuse freed memory for later tensors instead of returning it to the kernel.

    By default glibc returns large blocks at once, so each training step requests the same hundreds
    of megabytes again and the kernel zeroes them: a fifth of the step's time. Peak memory does not
    change. On systems without glibc this does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


class Session(nn.Module):
    """A module that runs an ONNX graph, the content of an ONNX file, in ONNX Runtime on the CPU."""

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
        (output,) = self.session.run(None, {"images": images.contiguous().numpy()})
        return torch.from_numpy(output)


def has_onnx_runtime() -> bool:
    """Return whether ONNX and ONNX Runtime are installed."""
    return all(map(find_spec, PACKAGES))


def export_graph(network: nn.Module, example: Tensor, output_name: str) -> bytes:
    """Return the content of an ONNX file for batches of any size; its input is named `images`.

    Args:
        network: Network with one input tensor and one output tensor, both with the batch first.
        example: Input of at least two photos; of one, the exporter would fix the batch size at 1.
        output_name: Name of the graph's output.
    """
    file = io.BytesIO()
    # On an error the exporter prints the network's graph, by default to standard output, which
    # may hold the predictions.
    torch._C._jit_set_onnx_log_output_stream("stderr")
    # The older of PyTorch's two exporters takes under 1 s instead of 8 s for the same graph, and
    # needs no further package. It warns that it is deprecated.
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (example.clone(),),
            file,
            input_names=["images"],
            output_names=[output_name],
            dynamic_axes={"images": {0: "batch"}, output_name: {0: "batch"}},
            dynamo=False,
        )
    return file.getvalue()


@torch.inference_mode()
def accelerate(network: nn.Module, examples: Tensor) -> nn.Module:
    """Export a network to ONNX Runtime, and compare the output with PyTorch's.

    Args:
        network: Network on its device, in evaluation mode.
        examples: Photos, uint8 [batch, 3, size, size], on that device.

    Returns:
        A `Session`. The network itself on a GPU, if a package is missing, or, with a note on
        standard error, if ONNX Runtime cannot run it or its output differs from PyTorch's.
    """
    if examples.is_cuda or not has_onnx_runtime():
        return network
    expected = network(examples).float()
    try:
        # With one photo the exporter would fix the batch size at 1.
        session = Session(export_graph(network, examples.repeat(2, 1, 1, 1), "output"))
        difference = (session(examples) - expected).abs().max()
    except Exception as error:  # the exporter and ONNX Runtime raise errors of many types
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        print(
            f"note: ONNX Runtime cannot run this network ({reason}); PyTorch runs it",
            file=sys.stderr,
        )
        return network
    share = float(difference / expected.abs().max().clamp_min(1e-30))
    if not share <= PARITY:  # also true for NaN
        print(
            f"note: ONNX Runtime's output differs from PyTorch's by {share:.1e}; PyTorch runs the "
            "network",
            file=sys.stderr,
        )
        return network
    return session
