"""Foundations of all packages: params reader, files, errors, git, parallel tasks."""
