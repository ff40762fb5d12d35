"""Schema of the whole params.yaml, and checks that involve several packages."""
