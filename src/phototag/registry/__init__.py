"""Versions of the model in the MLflow registry, and the choice of the champion."""
