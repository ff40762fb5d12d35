"""Verification of a dataset: photos, label files, duplicates, corrections, and the report."""
