"""Named sets of experiments, what came of them, and DVC's experiments as MLflow runs."""
