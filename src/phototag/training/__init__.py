"""Training: epochs, linear probes, augmentations, losses, schedules, checkpoints."""
