"""The registered model: an MLflow pyfunc, defined from code, that takes photos.

Input: a data frame with the column `image`, each a photo's file as base64 or bytes, or with the
column `path`, each a file on the model's own machine. Output: for each row `labels` (those at or
over their threshold), `scores` (label -> probability) and `error` (null, or why the photo could not
be read).
"""

import base64
import binascii
import io
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Map, Schema
from PIL import Image

from phototag.base.allocator import keep_freed_memory
from phototag.base.errors import InputError
from phototag.serving.tagger import load_tagger, read_photo, tag_photos

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
MAX_BYTES = 64 * 2**20  # of one photo's file
# Of any type, so that base64 and bytes both come through as they are.
SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            ColSpec(AnyType(), "image", required=False),
            ColSpec(AnyType(), "path", required=False),
        ]
    ),
    outputs=Schema(
        [
            ColSpec(Array(DataType.string), "labels"),
            ColSpec(Map(DataType.double), "scores"),
            ColSpec(DataType.string, "error", required=False),
        ]
    ),
)


class PhotoTagger(PythonModel):  # type: ignore[misc]
    """Tags photos given as base64, as bytes, or as paths."""

    def load_context(self, context: Any) -> None:
        """Load weights and thresholds from the model's own artifacts."""
        keep_freed_memory()
        self.tagger = load_tagger(
            Path(context.artifacts["model"]), Path(context.artifacts["thresholds"])
        )

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Tag every row; a bad row gets an error and leaves the others alone.

        Raises:
            MlflowException: Not one row could be read; a server answers 400.
        """
        tags = tag_photos(self.tagger, read_rows(model_input))
        if tags and all(tag.error for tag in tags):
            errors = "; ".join(f"row {row}: {tag.error}" for row, tag in enumerate(tags[:5]))
            raise MlflowException(
                f"no row holds a photo that can be read ({errors})", INVALID_PARAMETER_VALUE
            )
        return [{"labels": t.labels, "scores": t.scores, "error": t.error} for t in tags]


def read_rows(rows: pd.DataFrame) -> list[bytes | InputError]:
    """Read each row's photo: from the column `image` (base64 or bytes), or from `path`.

    Raises:
        MlflowException: There is neither column.
    """
    for column, read in (("image", _decode), ("path", read_photo)):
        if column in rows and not rows[column].isna().all():
            return [read(value) for value in rows[column]]
    raise MlflowException(
        "send a column `image` of photos as base64 or bytes, or a column `path`",
        INVALID_PARAMETER_VALUE,
    )


def _decode(value: Any) -> bytes | InputError:
    if isinstance(value, str):
        if len(value) > MAX_BYTES * 4 // 3:
            return InputError(f"larger than {MAX_BYTES // 2**20} MiB")
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            return InputError(f"not base64: {error}")
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    return InputError(f"neither base64 nor bytes, but {type(value).__name__}")


def log_model(model_file: Path, thresholds_file: Path, registered_name: str) -> ModelInfo:
    """Log the model to the active run and register a version of it.

    The version holds the weights, the thresholds and this package's code, no pickle.
    """
    package = Path(__file__).parents[1]
    return mlflow.pyfunc.log_model(
        name="model",
        python_model=str(Path(__file__).with_name("entry.py")),
        artifacts={"model": str(model_file), "thresholds": str(thresholds_file)},
        code_paths=[str(package)],
        pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS],
        signature=SIGNATURE,
        input_example=pd.DataFrame({"image": [_example_photo()]}),
        registered_model_name=registered_name,
    )


def _example_photo() -> str:
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()
