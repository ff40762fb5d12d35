"""Monitoring of a model on photos without labels: estimated scores, drift, alarm and audit."""
