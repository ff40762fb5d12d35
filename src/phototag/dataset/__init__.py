"""The dataset: packed photos, manifest, labels, groups, splits and statistics."""
