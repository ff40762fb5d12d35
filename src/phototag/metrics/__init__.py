"""Metrics of multi-label predictions, one implementation each."""
