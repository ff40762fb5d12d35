"""A network as an ONNX graph, for runtimes without PyTorch."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn


def export_graph(network: nn.Module, example: Tensor, takes: str, gives: str) -> Any:
    """Record a network for batches of any size.

    Args:
        network: From one tensor, whose first dimension is the batch, to another.
        example: What it takes, of at least two photos: the exporter takes a batch of one for a
            fixed one.
        takes: Name of the graph's input.
        gives: Name of its output.

    Returns:
        The graph, an onnx.ModelProto.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            network.eval(),
            (example,),
            input_names=[takes],
            output_names=[gives],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    return program.model_proto
