"""The prepared dataset: packed photos, manifest, labels, groups, splits and statistics."""
