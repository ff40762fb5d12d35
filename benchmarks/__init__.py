"""Benchmarks that compare several methods side by side and print ratios or differences."""
