"""Helpers that all packages use: params.yaml, files, errors, git and parallel tasks."""
