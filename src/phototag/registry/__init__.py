"""Registration of models in the MLflow Model Registry, and selection of the champion."""
