"""The registered model: an MLflow pyfunc, defined from code, that labels photos.

Input is a data frame with the column `image`. A cell holds the bytes of a photo's file, base64 or a
data URL. If the owner of the server sets PHOTOTAG_ROOT to a folder, a cell may also be a file URL
of a photo in that folder. Output for each photo is `labels` (those at or above their threshold),
`scores` (probability of each label) and `error` (null, or why the photo could not be read).
"""

import base64
import os
import shutil
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
from mlflow.pyfunc import PythonModel
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Map, Schema

from phototag.base.errors import InputError
from phototag.base.files import content_key
from phototag.decoding.formats import FORMATS
from phototag.network.runtime import Session, has_onnx_runtime, keep_freed_memory
from phototag.network.weights import read_metadata, required_packages
from phototag.serving.batching import MicroBatcher
from phototag.serving.tagger import accelerate_tagger, load_tagger, tag_photos

# Packages that the version's code imports, without those of training such as dvc or matplotlib.
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
# Packages of phototag whose code a version ships: those that the tagger imports.
PACKAGES = ("base", "decoding", "network", "serving")
# Limits of a request.
MAX_PIXELS = 25_000_000  # per photo
MAX_BYTES = 32 * 2**20  # per file
MAX_REQUEST_BYTES = 64 * 2**20  # all files together
MAX_ROWS = 256
ROOT = "PHOTOTAG_ROOT"
EXAMPLE = "R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw=="  # base64 of a GIF of one pixel
TOO_LARGE = f"larger than {MAX_BYTES // 2**20} MiB"
# One message for all cases, so that it does not reveal which files the server has.
NO_FILE = "no file of this name that this server may read"
# With a column of any type, base64, bytes and lists arrive unchanged.
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(AnyType(), "image")]),
    outputs=Schema(
        [
            ColSpec(Array(DataType.string), "labels"),
            ColSpec(Map(DataType.double), "scores"),
            ColSpec(DataType.string, "error", required=False),
        ]
    ),
)


class PhotoTagger(PythonModel):  # type: ignore[misc]
    """Model that labels photos given as bytes, base64, data URLs or file URLs."""

    def load_context(self, context: Any) -> None:
        """Load weights and thresholds from the model's artifacts."""
        keep_freed_memory()
        self.root = read_root()
        files = {name: Path(file) for name, file in context.artifacts.items()}
        tagger = load_tagger(files["model"], files["thresholds"])
        graph = files.get("graph")
        network = Session(graph.read_bytes()) if graph else tagger.network
        self.tagger = replace(tagger, network=MicroBatcher(network))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Label every photo; a photo that cannot be read gets an error.

        Raises:
            MlflowException: No photo can be read, or there are too many; a server answers 400.
        """
        photos = read_rows(model_input, self.root)
        tags = tag_photos(self.tagger, photos, MAX_PIXELS)
        if all(tag.error for tag in tags):
            errors = "; ".join(f"row {row}: {tag.error}" for row, tag in enumerate(tags[:5]))
            raise _refuse(f"no row holds a photo that can be read ({errors})")
        return [{"labels": t.labels, "scores": t.scores, "error": t.error} for t in tags]


def read_root() -> Path | None:
    """Return the folder PHOTOTAG_ROOT, or None if it is not set.

    Raises:
        InputError: PHOTOTAG_ROOT is not a folder.
    """
    value = os.environ.get(ROOT)
    if not value:
        return None
    if not Path(value).is_dir():
        raise InputError(
            f"{ROOT} is {value}, which is not a folder: set it to a folder or unset it"
        )
    return Path(value).resolve()


def read_rows(rows: pd.DataFrame, root: Path | None = None) -> list[bytes | InputError]:
    """Return the photos of the column `image`; a list in a cell counts as several rows.

    Args:
        rows: Data frame whose cells are bytes, base64 (padded or not, of either alphabet), data
            URLs or file URLs. MLflow passes `{"inputs": {"image": [...]}}` as one cell with a list.
        root: Folder whose files may be named, or None.

    Raises:
        MlflowException: The photos exceed the limits.
    """
    # Lists are faster: pandas takes longer for a table of one cell than decoding its photo takes.
    cells = [cell if isinstance(cell, list) else [cell] for cell in rows["image"].tolist()]
    values = [value for cell in cells for value in cell]
    if len(values) > MAX_ROWS:
        raise _refuse(f"{len(values)} photos: send at most {MAX_ROWS} in one request")
    photos = []
    num_bytes = 0
    for value in values:
        photos.append(_read(value, root))
        num_bytes += len(photos[-1]) if isinstance(photos[-1], bytes) else 0
        if num_bytes > MAX_REQUEST_BYTES:
            limit = MAX_REQUEST_BYTES // 2**20
            raise _refuse(f"photos of more than {limit} MiB in total: send fewer in one request")
    return photos


def _refuse(reason: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(reason)


def _read(value: Any, root: Path | None) -> bytes | InputError:
    """Return the contents of one photo, or the error with which it could not be read."""
    if isinstance(value, str) and value[:5].lower() == "file:":
        return _read_file(value[5:], root)
    if not isinstance(value, str | bytes):
        return InputError(f"{type(value).__name__} is neither base64 nor bytes")
    if len(value) > MAX_BYTES * 3 // 2:  # base64 takes 4/3, and line breaks add to it
        return InputError(TOO_LARGE)
    try:
        data = _decode(value) if isinstance(value, str) else value
    except ValueError as error:
        return InputError(f"not base64: {error}")
    return data if len(data) <= MAX_BYTES else InputError(TOO_LARGE)


def _decode(text: str) -> bytes:
    """Decode base64 or a data URL.

    Raises:
        ValueError: The text is neither.
    """
    if text[:5].lower() == "data:":
        kind, _, text = text.partition(",")
        if not kind.lower().endswith(";base64"):
            raise ValueError("a data URL must end with ;base64 before its comma")
    # Accept white space, the URL-safe alphabet and missing padding.
    text = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _read_file(name: str, root: Path | None) -> bytes | InputError:
    """Return the contents of a file under `root`; all other files give the same error."""
    if root is None:
        return InputError(f"this server reads no files: its owner did not set {ROOT}")
    try:
        if name.startswith("//"):  # file://host/path
            name = "/" + name[2:].partition("/")[2]
        path = Path(os.path.normpath(root / unquote(name)))
        # The name is checked before the disk is read, so response times reveal no file either.
        if path.is_relative_to(root):
            path = path.resolve()
            if path.is_relative_to(root) and path.is_file() and path.stat().st_size <= MAX_BYTES:
                return path.read_bytes()
    except Exception:  # for example a NUL in the name or a circular link
        pass
    return InputError(NO_FILE)


def log_model(model_file: Path, thresholds_file: Path, registered_name: str) -> ModelInfo:
    """Log the model to the active MLflow run and register a version of it.

    The version holds weights, thresholds and the code of `packaged_files`, without pickles. If
    ONNX Runtime can run the network, it also holds the network's ONNX graph.
    """
    files = {"model": model_file, "thresholds": thresholds_file}
    with TemporaryDirectory() as folder:
        network = accelerate_tagger(load_tagger(model_file, thresholds_file)).network
        if isinstance(network, Session):
            files["graph"] = Path(folder, "recorded.onnx")
            files["graph"].write_bytes(network.graph)
        # Files are copied because MLflow refuses links to other folders, and DVC may use links.
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
    """Return the code that a version ships, by its path in the package `phototag`."""
    package = Path(__file__).parents[1]
    files = [package / "__init__.py"]
    files += [file for name in PACKAGES for file in sorted((package / name).glob("*.py"))]
    return {file.relative_to(package).as_posix(): file for file in files}


def copy_package(folder: Path) -> Path:
    """Copy `packaged_files` to a package `phototag` in a folder, and return its path."""
    package = folder / "phototag"
    for name, file in packaged_files().items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, package / name)
    return package


def digest_model(model_file: Path, thresholds_file: Path) -> str:
    """Return a hash of everything in a version: weights, thresholds, code and requirements."""
    files = packaged_files()
    return content_key(
        [*files, *_pin_requirements(model_file)], [model_file, thresholds_file, *files.values()]
    )


def _pin_requirements(model_file: Path) -> list[str]:
    names = [*REQUIREMENTS, *required_packages(read_metadata(model_file))]
    if has_onnx_runtime():
        names.append("onnxruntime")
    if "HEIF" in FORMATS:  # the model may be trained on HEIC photos
        names.append("pillow-heif")
    return [f"{name}=={version(name).split('+')[0]}" for name in names]
