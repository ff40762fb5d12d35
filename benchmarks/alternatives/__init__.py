"""Comparison with the libraries that a user could choose instead of this project."""
