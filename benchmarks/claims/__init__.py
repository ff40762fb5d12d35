"""Experiments that test the report's claims: `python -m benchmarks.claims list|run|results`.

Run the commands in the root folder of the project. experiments.yaml defines the claims and their
variants. Results are collected in docs/research/results/ and shown in docs/research/results.md.
"""
