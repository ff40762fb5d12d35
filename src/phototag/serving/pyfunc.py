"""Registered model: an MLflow pyfunc model that predicts the labels of photos.

The input is a data frame with the column `image`. Each cell contains the bytes of an image file, a
base64 string or a data URL. If the server's environment variable `PHOTOTAG_ROOT` is set to a
folder, a cell may also contain the file URL of a photo in that folder. The output for each photo
consists of `labels` (labels whose probability is at least their threshold), `scores` (probability
of each label), `error` (null, or the reason why the photo could not be read) and `familiarity` (see
`phototag.network.familiarity`).
"""

import shutil
import traceback
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.pyfunc import PythonModel, scoring_server
from mlflow.pyfunc.scoring_server import invocations
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Map, Schema

from phototag.base.errors import InputError
from phototag.base.files import content_key
from phototag.decoding.formats import FORMATS
from phototag.network.backbones import required_packages
from phototag.network.runtime import Session, has_onnx_runtime
from phototag.network.weights import read_metadata
from phototag.serving.limits import EXAMPLE, MAX_MESSAGE
from phototag.serving.requests import list_predictions, read_cells, read_root, tag_request
from phototag.serving.tagger import accelerate_tagger, load_tagger
from phototag.serving.version import load_version

# Packages that the code of a version imports. Packages needed only for training are not listed.
REQUIREMENTS = (
    "joblib",
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "scipy",
    "torch",
)
# Subpackages of phototag that the tagger imports. A version contains their code.
PACKAGES = ("base", "decoding", "network", "serving")
UNREADABLE = "the request cannot be read: send JSON without deep nesting and long numbers"
# With the type `AnyType`, MLflow does not convert strings, bytes or lists in the column.
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(AnyType(), "image")]),
    outputs=Schema(
        [
            ColSpec(Array(DataType.string), "labels"),
            ColSpec(Map(DataType.double), "scores"),
            ColSpec(DataType.string, "error", required=False),
            ColSpec(DataType.double, "familiarity", required=False),
        ]
    ),
)


class PhotoTagger(PythonModel):  # type: ignore[misc]
    """MLflow model that predicts the labels of photos."""

    def load_context(self, context: Any) -> None:
        """Load the weights and the thresholds from the artifacts of the model."""
        scoring_server.invocations = respond
        self.root = read_root()
        files = {name: Path(file) for name, file in context.artifacts.items()}
        self.tagger = load_version(files["model"], files["thresholds"], files.get("graph"))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Predict the labels of each photo. If a photo cannot be read, `error` has the reason.

        Raises:
            MlflowException: None of the photos can be read, or the photos exceed the limits of a
                request. MLflow's server responds with the HTTP status 400.
        """
        # A list is faster: for one cell, pandas would take longer than the decoding of a photo.
        try:
            photos = read_cells(model_input["image"].tolist(), self.root)
            return list_predictions(tag_request(self.tagger, photos))
        except InputError as error:
            raise _refuse(str(error)) from None


def respond(*request: Any) -> Any:
    """Respond to a request as `invocations` of MLflow's server does, but send no stack traces.

    MLflow has no option for this, and it answers JSON that is nested too deeply for Python with the
    HTTP status 500. Therefore, this function replaces `invocations` when the model is loaded.
    """
    try:
        return invocations(*request)
    except Exception as error:
        traceback.print_exc()
        reason = error.message if isinstance(error, MlflowException) else "RecursionError"
        # The text before "Error: " repeats the request.
        reason = UNREADABLE if "RecursionError" in reason else reason.rpartition("\nError: ")[2]
        raise _refuse(reason[:MAX_MESSAGE]) from None


def _refuse(reason: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(reason)


def log_model(
    model_file: Path, thresholds_file: Path, registered_name: str, extra: Mapping[str, Path]
) -> ModelInfo:
    """Log a model to the active MLflow run and register it as a new version.

    The version contains the weights, the thresholds, the code listed by `packaged_files`, and the
    files in `extra`, which the server does not read. It has no pickle files. If ONNX Runtime can
    run the network, the version also has its ONNX graph.
    """
    files = {"model": model_file, "thresholds": thresholds_file, **extra}
    with TemporaryDirectory() as folder:
        network = accelerate_tagger(load_tagger(model_file, thresholds_file, True)).network
        if isinstance(network, Session):
            files["graph"] = Path(folder, "recorded.onnx")
            files["graph"].write_bytes(network.graph)
        # MLflow rejects links to other folders. The files may be such links, so they are copied.
        copies = Path(folder, "files")
        copies.mkdir()
        artifacts = {key: str(shutil.copy(file, copies)) for key, file in files.items()}
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("entry.py")),
            artifacts=artifacts,
            code_paths=[str(copy_package(Path(folder)))],
            pip_requirements=_pin_requirements(model_file),
            signature=SIGNATURE,
            input_example=pd.DataFrame({"image": [EXAMPLE]}),
            registered_model_name=registered_name,
        )


def packaged_files() -> dict[str, Path]:
    """Return the code files of a version: a mapping from paths within `phototag` to files."""
    package = Path(__file__).parents[1]
    files = [package / "__init__.py"]
    files += [file for name in PACKAGES for file in sorted((package / name).glob("*.py"))]
    return {file.relative_to(package).as_posix(): file for file in files}


def copy_package(folder: Path) -> Path:
    """Copy the code files of a version to a folder. Return the path of the package in it."""
    package = folder / "phototag"
    for name, file in packaged_files().items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, package / name)
    return package


def digest_model(model_file: Path, thresholds_file: Path) -> str:
    """Return a hash of the contents of a version: weights, thresholds, code and requirements."""
    files = packaged_files()
    return content_key(
        [*files, *_pin_requirements(model_file)], [model_file, thresholds_file, *files.values()]
    )


def _pin_requirements(model_file: Path) -> list[str]:
    names = [*REQUIREMENTS, *required_packages(read_metadata(model_file).spec.backbones)]
    if has_onnx_runtime():
        names.append("onnxruntime")
    if "HEIF" in FORMATS:  # if this machine reads HEIC photos, the version must, too
        names.append("pillow-heif")
    return [f"{name}=={version(name).split('+')[0]}" for name in names]
