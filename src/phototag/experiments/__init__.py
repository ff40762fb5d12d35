"""Recipes, DVC experiments and their queue, workspaces, and MLflow runs of DVC experiments."""
