"""The registered model: an MLflow pyfunc, defined from code, that takes photos.

Input: a data frame with the column `image`, each a photo's file as base64. Output: for each row
`labels` (those at or over their threshold), `scores` (label -> probability) and `error` (null, or
why the photo could not be read).
"""

import base64
import binascii
import io
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.pyfunc import PythonModel
from mlflow.types.schema import ColSpec, Schema
from PIL import Image

from phototag.files import read_json
from phototag.images import prepare_photo
from phototag.metrics import sigmoid
from phototag.weights import load_model

# What the version's code imports; its environment needs no more (no dvc, no matplotlib).
REQUIREMENTS = (
    "filelock",
    "joblib",
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "scikit-learn",
    "torch",
    "tqdm",
)


class PhotoTagger(PythonModel):  # type: ignore[misc]
    """Tags photos given as base64."""

    def load_context(self, context: Any) -> None:
        """Load weights and thresholds from the model's own artifacts."""
        self.model, self.metadata = load_model(Path(context.artifacts["model"]))
        point = read_json(Path(context.artifacts["thresholds"]))
        self.temperature = point["temperature"]
        self.thresholds = np.array([point["thresholds"][name] for name in self.metadata.labels])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Tag every row; a bad row gets an error and leaves the others alone."""
        return [self._tag(image) for image in model_input["image"]]

    def _tag(self, image: str) -> dict[str, Any]:
        try:
            data = base64.b64decode(image, validate=True)
        except (binascii.Error, ValueError) as error:
            return {"labels": [], "scores": {}, "error": f"not base64: {error}"}
        photo = prepare_photo(data, self.metadata.size)
        if photo.pixels is None:
            return {"labels": [], "scores": {}, "error": photo.reason}
        pixels = torch.from_numpy(photo.pixels.copy()).permute(2, 0, 1)[None]
        with torch.inference_mode():
            probabilities = sigmoid(self.model(pixels).numpy()[0] / self.temperature)
        names = self.metadata.labels
        return {
            "labels": [
                name
                for name, probability, threshold in zip(
                    names, probabilities, self.thresholds, strict=True
                )
                if probability >= threshold
            ],
            "scores": dict(zip(names, probabilities.tolist(), strict=True)),
            "error": None,
        }


def log_model(model_file: Path, thresholds_file: Path, registered_name: str) -> ModelInfo:
    """Log the model to the active run and register a version of it.

    The version holds the weights, the thresholds and this package's code, no pickle.
    """
    package = Path(__file__).parent
    return mlflow.pyfunc.log_model(
        name="model",
        python_model=str(package / "serving_model.py"),
        artifacts={"model": str(model_file), "thresholds": str(thresholds_file)},
        code_paths=[str(package)],
        pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS],
        signature=ModelSignature(inputs=Schema([ColSpec("string", "image")])),
        input_example=pd.DataFrame({"image": [_example_photo()]}),
        registered_model_name=registered_name,
    )


def _example_photo() -> str:
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()
