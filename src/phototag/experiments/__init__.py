"""Recipes, workspaces for DVC experiments, and MLflow runs of DVC experiments."""
