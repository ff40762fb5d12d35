"""Comparison with fastai and Lightning, which could be used instead of this project."""
