"""Trains a network: epochs, augmentations, losses, schedules, checkpoints."""
