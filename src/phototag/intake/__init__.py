"""Photos and label files as people bring them: found, read, verified, made square, told about."""
