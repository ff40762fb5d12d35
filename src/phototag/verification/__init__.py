"""Verification of photos and label files: decisions, labels, duplicates, corrections, report."""
