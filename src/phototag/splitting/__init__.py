"""Stratified splits of photos into train, val and test."""
