"""The report's claims, tested by experiments: `python -m benchmarks.claims list|run|results`.

Run from the root of the project. experiments.yaml lists the claims and their variants; the
results are collected in docs/research/results/ and shown in docs/research/results.md.
"""
