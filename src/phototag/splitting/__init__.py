"""The split into train, val and test."""
