"""Benchmarks that compare ways side by side and print ratios or differences."""
