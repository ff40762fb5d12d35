"""Generate the synthetic dataset, which replaces the report's photos."""
