"""Photo files to pixels."""
