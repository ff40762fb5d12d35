"""Speed on a CPU: reusing memory, and ONNX Runtime, which halves the inference time."""

import ctypes
import io
import platform
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PACKAGES = ("onnx", "onnxruntime")
PARITY = 1e-4  # largest accepted difference from PyTorch, divided by the output (Euclidean norms)
PART = 4  # number of photos; larger parts are slower, because they do not fit into the CPU caches
# Constants from malloc.h of glibc.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8
LARGE_BLOCK = 2**20  # bytes


def keep_freed_memory() -> None:
    """Let glibc reuse freed memory for later tensors instead of returning it to the kernel.

    By default, glibc returns large blocks to the kernel as soon as they are freed. Each training
    step then requests hundreds of megabytes again, and the kernel fills them with zeros. This takes
    a fifth of the step's time. Reusing memory does not change the peak memory. On systems without
    glibc, this function does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def limit_freed_memory() -> None:
    """Let glibc return freed memory to the kernel in a server with many threads.

    By default, glibc keeps several heaps per core, and each keeps freed blocks of up to 32 MiB.
    The largest requests of each thread would then occupy memory until the server ends. On systems
    without glibc, this function does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_ARENA_MAX, 2)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
        libc.mallopt(M_TRIM_THRESHOLD, 16 * LARGE_BLOCK)


class Session(nn.Module):
    """Module that runs an ONNX graph (the content of an ONNX file) in ONNX Runtime on the CPU.

    A batch is divided into parts of `PART` photos. One thread per core runs parts, each on its own.
    This is faster than running each layer on all cores, and the output for a photo is the same. A
    batch with fewer photos than cores is not divided, and each layer runs on all cores.
    """

    def __init__(self, graph: bytes) -> None:
        super().__init__()
        self.graph = graph
        self.cores = torch.get_num_threads()
        self.pool = ThreadPoolExecutor(self.cores, "onnx")
        self.session = _start_session(graph, 1)

    @cached_property
    def session_on_all_cores(self) -> "InferenceSession":
        """Session of ONNX Runtime that runs each layer on all cores; started at its first use."""
        return _start_session(self.graph, self.cores)

    def forward(self, images: Tensor) -> Tensor:
        """Map photos, uint8 [batch, 3, size, size], to the network's output, float32."""
        pixels = images.numpy()
        if len(pixels) < self.cores:
            return torch.from_numpy(_run(self.session_on_all_cores, pixels))
        parts = np.array_split(pixels, max(self.cores, len(pixels) // PART))
        outputs = self.pool.map(partial(_run, self.session), parts)
        return torch.from_numpy(np.concatenate(list(outputs)))


def _start_session(graph: bytes, threads: int) -> "InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Idle threads that spin would double the CPU time of a photo, and slow down decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _run(session: "InferenceSession", images: np.ndarray) -> np.ndarray:
    (output,) = session.run(None, {"images": np.ascontiguousarray(images)})
    return np.asarray(output)


def has_onnx_runtime() -> bool:
    """Return whether ONNX and ONNX Runtime are installed."""
    return all(map(find_spec, PACKAGES))


def export_graph(network: nn.Module, example: Tensor, *output_names: str) -> bytes:
    """Export a network, and return the content of an ONNX file that accepts any batch size.

    Args:
        network: Network with one input tensor. The first dimension of the input and of all outputs
            is the batch. The input of the ONNX graph is named `images`.
        example: Input with at least two photos. From one photo, the exporter would conclude that
            the batch size is always 1.
        output_names: Name of each output of the ONNX graph.
    """
    file = io.BytesIO()
    # If an error occurs, the exporter prints the graph of the network. Print it to standard error,
    # because commands such as `phototag predict` write their results to standard output.
    torch._C._jit_set_onnx_log_output_stream("stderr")
    # `dynamo=False` selects the older of PyTorch's two exporters. It takes less than 1 s instead of
    # 8 s for the same graph, and needs no additional package. Ignore its deprecation warning.
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (example.clone(),),
            file,
            input_names=["images"],
            output_names=[*output_names],
            dynamic_axes={name: {0: "batch"} for name in ("images", *output_names)},
            dynamo=False,
        )
    return file.getvalue()


def accelerate(network: nn.Module, examples: Tensor) -> nn.Module:
    """Convert a network to ONNX Runtime if that is possible and gives the same output.

    Args:
        network: Network in evaluation mode.
        examples: Photos on the device of the network, uint8 [batch, 3, size, size].

    Returns:
        A `Session`, or the unchanged network if it is on a GPU or if ONNX or ONNX Runtime is not
        installed. If ONNX Runtime cannot run the network, or if its output differs from PyTorch's,
        a note is printed to standard error and the unchanged network is returned.
    """
    if examples.is_cuda or not has_onnx_runtime():
        return network
    # Python handles signals in the main thread. In another thread, Ctrl-C cannot cause an error
    # that `_convert` would take for one of ONNX Runtime: PyTorch's features have other bytes.
    with ThreadPoolExecutor(1) as thread:
        converted = thread.submit(_convert, network, examples).result()
    if isinstance(converted, str):
        print(f"note: PyTorch is used instead of ONNX Runtime ({converted})", file=sys.stderr)
        return network
    return converted


@torch.inference_mode()
def _convert(network: nn.Module, examples: Tensor) -> Session | str:
    """Return a session with the same output as a network, or the reason why there is none."""
    expected = network(examples).float()
    try:
        # The exporter needs at least two photos (see `export_graph`): repeat them.
        session = Session(export_graph(network, examples.repeat(2, 1, 1, 1), "output"))
        # Norms, because the power transform of features magnifies single differences close to 0.
        share = float((session(examples) - expected).norm() / expected.norm().clamp_min(1e-30))
    except Exception as error:  # ONNX Runtime and the exporter raise errors of many types
        return str(error).partition("\n")[0][:200] or type(error).__name__
    if share <= PARITY:  # false for NaN
        return session
    return f"the output of ONNX Runtime differs from PyTorch's by {share:.1e}"
