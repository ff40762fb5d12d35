"""Evaluation of a model on held-out photos: thresholds, metrics, calibration and report."""
