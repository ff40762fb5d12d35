"""Recipes, DVC's experiment queue, workspaces, and MLflow runs of DVC experiments."""
