"""The packed array and its labels: manifest, groups, splits, statistics, batches."""
