"""A network as an ONNX graph, for runtimes without PyTorch."""

import io
import warnings

import torch
from torch import Tensor, nn


def export_graph(network: nn.Module, example: Tensor, takes: str, gives: str) -> bytes:
    """Record a network for batches of any size.

    Args:
        network: From one tensor, whose first dimension is the batch, to another.
        example: What it takes, of at least two photos: a batch of one may pass for a fixed one.
        takes: Name of the graph's input.
        gives: Name of its output.

    Returns:
        The graph, an ONNX file's bytes.
    """
    file = io.BytesIO()
    # Of the two exporters the older one: under a second where the other takes eight, the same
    # graph to a runtime, and a package less.
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore")  # of its age, and of its own internals
        torch.onnx.export(
            network.eval(),
            (example.clone(),),
            file,
            input_names=[takes],
            output_names=[gives],
            dynamic_axes={takes: {0: "batch"}, gives: {0: "batch"}},
            dynamo=False,
        )
    return file.getvalue()
