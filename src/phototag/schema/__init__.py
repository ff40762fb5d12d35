"""The whole of params.yaml, and the checks across packages."""
