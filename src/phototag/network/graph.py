"""A network as an ONNX graph, for runtimes without PyTorch."""

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    with warnings.catch_warnings(), torch.inference_mode(False), _quiet():
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter prints of a network that it cannot record out of standard output.

    It does so below Python, and there may be somebody's predictions.
    """
    try:
        own = os.dup(1)
    except OSError:  # there is none
        yield
        return
    if sys.stdout:
        sys.stdout.flush()
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(own, 1)
        os.close(own)
