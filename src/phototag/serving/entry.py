"""Script that MLflow runs to load a registered model (MLflow calls this "models from code")."""

from mlflow.models import set_model

from phototag.serving.pyfunc import PhotoTagger

set_model(PhotoTagger())
