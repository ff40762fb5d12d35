"""Recipes, the queue of DVC experiments, workspaces, and MLflow runs of DVC experiments."""
