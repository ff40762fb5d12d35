"""Registered model: an MLflow pyfunc model that predicts the labels of photos.

The input is a data frame with the column `image`. Each cell contains the bytes of an image file, a
base64 string or a data URL. If the server's environment variable `PHOTOTAG_ROOT` is set to a
folder, a cell may also contain the file URL of a photo in that folder. The output for each photo
consists of `labels` (labels whose probability is at least their threshold), `scores` (probability
of each label), `error` (null, or the reason why the photo could not be read) and `familiarity` (see
`phototag.network.familiarity`).
"""

import base64
import os
import shutil
import traceback
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

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
from phototag.network.runtime import Session, has_onnx_runtime, keep_freed_memory
from phototag.network.weights import read_metadata
from phototag.serving.batching import MicroBatcher
from phototag.serving.limits import (
    EXAMPLE,
    MAX_BYTES,
    MAX_PIXELS,
    MAX_REQUEST_BYTES,
    MAX_ROWS,
    TOO_LARGE,
)
from phototag.serving.tagger import accelerate_tagger, load_tagger, tag_photos

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
MAX_MESSAGE = 500  # characters of an error message
ROOT = "PHOTOTAG_ROOT"
UNREADABLE = "the request cannot be read: send JSON without deep nesting and long numbers"
# The message is the same for all files, so that it does not reveal which files exist.
NO_FILE = "there is no file of this name that this server may read"
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
        keep_freed_memory()
        scoring_server.invocations = respond
        self.root = read_root()
        files = {name: Path(file) for name, file in context.artifacts.items()}
        tagger = load_tagger(files["model"], files["thresholds"])
        graph = files.get("graph")
        network = Session(graph.read_bytes()) if graph else tagger.network
        self.tagger = replace(tagger, network=MicroBatcher(network))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Predict the labels of each photo. If a photo cannot be read, `error` has the reason.

        Raises:
            MlflowException: None of the photos can be read, or the photos exceed the limits of a
                request. MLflow's server responds with the HTTP status 400.
        """
        photos = read_rows(model_input, self.root)
        tags = tag_photos(self.tagger, photos, MAX_PIXELS)
        if all(tag.error for tag in tags):
            errors = "; ".join(f"row {row}: {tag.error}" for row, tag in enumerate(tags[:5]))
            raise _refuse(f"no row contains a photo that can be read ({errors})")
        fields = ("labels", "scores", "error", "familiarity")
        return [{field: getattr(tag, field) for field in fields} for tag in tags]


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


def read_root() -> Path | None:
    """Return the value of the environment variable `PHOTOTAG_ROOT`, or None if it is not set.

    Raises:
        InputError: The value of `PHOTOTAG_ROOT` is not a folder.
    """
    value = os.environ.get(ROOT)
    if not value:
        return None
    if not Path(value).is_dir():
        raise InputError(
            f"{ROOT} is {value}, which is not a folder: set it to an existing folder or unset it"
        )
    return Path(value).resolve()


def read_rows(rows: pd.DataFrame, root: Path | None = None) -> list[bytes | InputError]:
    """Return the contents of the photos in the column `image`, or an error for each unusable cell.

    A cell has bytes, a base64 string (standard or URL-safe; padding is optional), a data URL, a
    file URL of a file in `root`, or a list of these. A list counts as several rows, because MLflow
    passes `{"inputs": {"image": [...]}}` as one cell with a list.

    Raises:
        MlflowException: The photos exceed the limits of a request.
    """
    # Lists are faster: for one cell, pandas would take longer than the decoding of a photo.
    cells = [cell if isinstance(cell, list) else [cell] for cell in rows["image"].tolist()]
    values = [value for cell in cells for value in cell]
    if len(values) > MAX_ROWS:
        raise _refuse(f"{len(values)} photos: send at most {MAX_ROWS} photos in one request")
    photos = []
    num_bytes = 0
    for value in values:
        photos.append(_read(value, root))
        num_bytes += len(photos[-1]) if isinstance(photos[-1], bytes) else 0
        if num_bytes > MAX_REQUEST_BYTES:
            limit = MAX_REQUEST_BYTES // 2**20
            raise _refuse(
                f"photos of more than {limit} MiB in total: send fewer photos in one request"
            )
    return photos


def _refuse(reason: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(reason)


def _read(value: Any, root: Path | None) -> bytes | InputError:
    """Return the contents of the image file that a cell contains or names, or an error."""
    if isinstance(value, str) and value[:5].lower() == "file:":
        return _read_file(value[5:], root)
    if not isinstance(value, str | bytes):
        return InputError(f"a value of type {type(value).__name__} is neither base64 nor bytes")
    if len(value) > MAX_BYTES * 3 // 2:  # base64 has 4/3 of the size, plus any line breaks
        return InputError(TOO_LARGE)
    try:
        data = _decode(value) if isinstance(value, str) else value
    except ValueError as error:
        return InputError(f"the text is not base64: {error}")
    return data if len(data) <= MAX_BYTES else InputError(TOO_LARGE)


def _decode(text: str) -> bytes:
    """Decode a base64 string or a base64 data URL; raise a ValueError for any other text."""
    if text[:5].lower() == "data:":
        kind, _, text = text.partition(",")
        if not kind.lower().endswith(";base64"):
            raise ValueError("a data URL must have ;base64 before its comma")
    # White space, the URL-safe alphabet and missing padding are accepted.
    text = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _read_file(name: str, root: Path | None) -> bytes | InputError:
    """Return the contents of a file in `root`. For all other files, return the same error."""
    if root is None:
        return InputError(f"this server does not read files, because {ROOT} is not set")
    try:
        if name.startswith("//"):  # file://host/path
            name = "/" + name[2:].partition("/")[2]
        path = Path(os.path.normpath(root / unquote(name)))
        # Names are checked before disk access, so that response times reveal nothing about files.
        if path.is_relative_to(root):
            path = path.resolve()
            if path.is_relative_to(root) and path.is_file() and path.stat().st_size <= MAX_BYTES:
                return path.read_bytes()
    except Exception:  # for example, the name contains a NUL or is a circular link
        pass
    return InputError(NO_FILE)


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
