"""Prediction of the labels of photos, and the MLflow model that serves these predictions."""
