"""The registered model: an MLflow pyfunc, defined from code, that takes photos.

Input: a data frame with the column `image`, each a photo's file as bytes, as base64, as a data URL,
or, where the server's owner names a folder in PHOTOTAG_ROOT, as a file URL in it. Output: for each
photo `labels` (those at or over their threshold), `scores` (label -> probability) and `error`
(null, or why the photo could not be read).
"""

import base64
import io
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Map, Schema
from PIL import Image

from phototag.base.errors import InputError
from phototag.base.files import content_key
from phototag.decoding.formats import FORMATS
from phototag.network.allocator import keep_freed_memory
from phototag.network.runtime import Session, can_record
from phototag.network.weights import read_metadata, required_packages
from phototag.serving.queue import Joined
from phototag.serving.tagger import accelerate_tagger, load_tagger, tag_photos

# What the version's code imports; its environment needs no more (no dvc, no matplotlib).
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
# The rooms whose code a version brings along: those that the tagger imports.
ROOMS = ("base", "dataset", "decoding", "metrics", "network", "serving")
# What a stranger may ask of a server at once.
MAX_PIXELS = 25_000_000  # of one photo
MAX_BYTES = 32 * 2**20  # of one photo's file
MAX_REQUEST_BYTES = 64 * 2**20  # of all files of a request
MAX_ROWS = 256
ROOT = "PHOTOTAG_ROOT"
TOO_LARGE = f"larger than {MAX_BYTES // 2**20} MiB"
# The same, whatever is there: nobody learns which files the server has.
NO_FILE = "no file of this name that this server may read"
# One column of any type: base64 and bytes come through as they are, and plain lists too.
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(AnyType(), "image", required=False)]),
    outputs=Schema(
        [
            ColSpec(Array(DataType.string), "labels"),
            ColSpec(Map(DataType.double), "scores"),
            ColSpec(DataType.string, "error", required=False),
        ]
    ),
)


class PhotoTagger(PythonModel):  # type: ignore[misc]
    """Tags photos given as bytes, base64, data URLs or file URLs."""

    def load_context(self, context: Any) -> None:
        """Load weights and thresholds from the model's own artifacts."""
        keep_freed_memory()
        self.root = read_root()
        files = {name: Path(file) for name, file in context.artifacts.items()}
        tagger = load_tagger(files["model"], files["thresholds"])
        graph = files.get("graph")
        network = Session(graph.read_bytes()) if graph else tagger.network
        self.tagger = replace(tagger, network=Joined(network))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Tag every photo; a bad one gets an error and leaves the others alone.

        Raises:
            MlflowException: Not one could be read, or they are too many; a server answers 400.
        """
        photos = read_rows(model_input, self.root)
        tags = tag_photos(self.tagger, photos, MAX_PIXELS)
        if tags and all(tag.error for tag in tags):
            errors = "; ".join(f"row {row}: {tag.error}" for row, tag in enumerate(tags[:5]))
            raise _refuse(f"no row holds a photo that can be read ({errors})")
        return [{"labels": t.labels, "scores": t.scores, "error": t.error} for t in tags]


def read_root() -> Path | None:
    """Read which folder the server's owner lets clients name files of; by default none.

    Raises:
        InputError: The environment variable PHOTOTAG_ROOT names no folder.
    """
    named = os.environ.get(ROOT)
    if not named:
        return None
    if not Path(named).is_dir():
        raise InputError(f"{ROOT} is {named}, which is no folder: name one, or unset it")
    return Path(named).resolve()


def read_rows(rows: pd.DataFrame, root: Path | None = None) -> list[bytes | InputError]:
    """Read the photos of the column `image`; a list in a cell stands for as many rows.

    Args:
        rows: A photo is bytes (also as a list of numbers), base64 (with line breaks, of either
            alphabet, padded or not; also as `{"b64": ...}`), a data URL or a file URL.
        root: The folder whose files may be named, or None.

    Raises:
        MlflowException: There is no such column, or it holds more than a server should take.
    """
    # As lists: what pandas does to a table of one cell takes longer than to decode its photo.
    cells = rows["image"].tolist() if "image" in rows.columns.tolist() else []
    if all(cell is None or cell is pd.NA or isinstance(cell, float) for cell in cells):
        raise _refuse(
            "send a column `image` of photos as base64, data URLs or bytes; a file on the server "
            f"is named file:NAME, where its owner set {ROOT}"
        )
    values = [value for cell in cells for value in _flatten(cell)]
    if len(values) > MAX_ROWS:
        raise _refuse(f"{len(values)} photos: send at most {MAX_ROWS} in one request")
    photos = []
    num_bytes = 0
    for value in values:
        photos.append(_read(value, root))
        num_bytes += len(photos[-1]) if isinstance(photos[-1], bytes) else 0
        if num_bytes > MAX_REQUEST_BYTES:
            limit = MAX_REQUEST_BYTES // 2**20
            raise _refuse(f"photos of over {limit} MiB together: send fewer in one request")
    return photos


def _refuse(reason: str) -> MlflowException:
    return MlflowException(reason, INVALID_PARAMETER_VALUE)


def _flatten(cell: Any) -> list[Any]:
    """Return what a cell holds: one photo, or a list of them, whatever its depth."""
    if isinstance(cell, np.ndarray) and cell.dtype != np.uint8:
        cell = cell.tolist()
    if isinstance(cell, list | tuple) and not (cell and isinstance(cell[0], int)):
        return [value for item in cell for value in _flatten(item)]
    return [cell]


def _read(value: Any, root: Path | None) -> bytes | InputError:
    """Read one photo; return, not raise, why it cannot be read."""
    try:
        if isinstance(value, Mapping) and set(value) == {"b64"}:
            value = value["b64"]
        if isinstance(value, str):
            if value[:5].lower() == "file:":
                return _read_file(value[5:], root)
            data = _decode(value)
        elif isinstance(value, bytes | bytearray | memoryview | list | tuple | np.ndarray):
            data = bytes(value)
        else:
            return InputError(f"neither base64 nor bytes, but {type(value).__name__}")
    except (ValueError, TypeError) as error:
        return InputError(str(error))
    return data if len(data) <= MAX_BYTES else InputError(TOO_LARGE)


def _decode(text: str) -> bytes:
    if len(text) > MAX_BYTES * 3 // 2:  # with room for line breaks
        raise ValueError(TOO_LARGE)
    if text[:5].lower() == "data:":
        kind, comma, text = text.partition(",")
        if not comma or not kind.lower().endswith(";base64"):
            raise ValueError("a data URL, but not of base64")
        text = unquote(text)
    # Line breaks and other white space, the URL-safe alphabet and missing padding are all in use.
    text = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise ValueError(f"not base64: {error}") from None


def _read_file(name: str, root: Path | None) -> bytes | InputError:
    """Read a file under `root`; everything else gets the same answer, there or not."""
    if root is None:
        return InputError(f"this server reads no files of its own: its owner did not set {ROOT}")
    try:
        if name.startswith("//"):  # file://host/path, where the host is this one
            name = "/" + name[2:].partition("/")[2]
        path = Path(os.path.normpath(root / unquote(name)))
        # Judged by name first, so that not even the time tells what is outside.
        if path.is_relative_to(root):
            path = path.resolve()
            if path.is_relative_to(root) and path.is_file() and path.stat().st_size <= MAX_BYTES:
                return path.read_bytes()
    except Exception:  # NUL in a name, links in a circle, no right to read
        pass
    return InputError(NO_FILE)


def log_model(model_file: Path, thresholds_file: Path, registered_name: str) -> ModelInfo:
    """Log the model to the active run and register a version of it.

    The version holds the weights, the thresholds and the code of `packaged_files`, no pickle; and
    the recorded network, where ONNX Runtime is installed and runs it.
    """
    files = {"model": model_file, "thresholds": thresholds_file}
    with TemporaryDirectory() as folder:
        network = accelerate_tagger(load_tagger(model_file, thresholds_file)).network
        if isinstance(network, Session):
            files["graph"] = Path(folder, "recorded.onnx")
            files["graph"].write_bytes(network.graph)
        # MLflow refuses links that lead elsewhere, and DVC may have put one in a file's place.
        place = Path(folder, "files")
        place.mkdir()
        copies = {key: str(shutil.copy(file, place)) for key, file in files.items()}
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("entry.py")),
            artifacts=copies,
            code_paths=[str(copy_package(Path(folder)))],
            pip_requirements=_pin_requirements(model_file),
            signature=SIGNATURE,
            input_example=pd.DataFrame({"image": [_example_photo()]}),
            registered_model_name=registered_name,
        )


def packaged_files() -> dict[str, Path]:
    """Return the code that a version brings along: name in the package -> file."""
    package = Path(__file__).parents[1]
    files = [package / "__init__.py"]
    files += [file for room in ROOMS for file in sorted((package / room).glob("*.py"))]
    return {file.relative_to(package).as_posix(): file for file in files}


def copy_package(folder: Path) -> Path:
    """Copy `packaged_files` into a folder, as a package of its own, and return that."""
    package = folder / "phototag"
    for name, file in packaged_files().items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, package / name)
    return package


def digest_model(model_file: Path, thresholds_file: Path) -> str:
    """Hash all that a version is made of: weights, thresholds, code, requirements."""
    files = packaged_files()
    return content_key(
        [*files, *_pin_requirements(model_file)], [model_file, thresholds_file, *files.values()]
    )


def _pin_requirements(model_file: Path) -> list[str]:
    names = [*REQUIREMENTS, *required_packages(read_metadata(model_file))]
    if can_record():
        names.append("onnxruntime")
    if "HEIF" in FORMATS:  # what it was trained on, it reads where it is served
        names.append("pillow-heif")
    return [f"{name}=={version(name).split('+')[0]}" for name in names]


def _example_photo() -> str:
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()
