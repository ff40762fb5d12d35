"""Training: epochs, linear probes, augmentations, losses, schedules and checkpoints."""
