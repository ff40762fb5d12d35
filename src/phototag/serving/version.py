"""Loading of the files of a registered version as a tagger for many simultaneous requests."""

from dataclasses import replace
from pathlib import Path

from phototag.network.runtime import Session, limit_freed_memory
from phototag.serving.batching import MicroBatcher
from phototag.serving.tagger import Tagger, load_tagger


def load_version(model_file: Path, thresholds_file: Path, graph: Path | None) -> Tagger:
    """Return a tagger that micro-batches. It runs the ONNX graph of the version, if there is one.

    Raises:
        InputError: A file is invalid, or was written with another version of phototag.
    """
    limit_freed_memory()
    tagger = load_tagger(model_file, thresholds_file, with_features=True)
    network = Session(graph.read_bytes()) if graph else tagger.network
    return replace(tagger, network=MicroBatcher(network))
