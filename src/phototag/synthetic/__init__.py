"""Draws the embedded data set."""
