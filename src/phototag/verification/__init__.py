"""Verify a dataset: decode photos, read labels, find duplicates, and write a report."""
