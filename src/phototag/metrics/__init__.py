"""Metrics for multi-label predictions, used by training, evaluation, the registry and the search.

An entry is a pair of a photo and a label. Targets are 1, 0 or `UNKNOWN`, and every metric is
computed over the entries with a known target only.

Most functions take `weights`, float [resamples, num_photos], the number of times that each photo
counts in each resample, and return one value per resample. Pass one row of ones to get the plain
metric, or the result of `bootstrap.bootstrap_weights` to get the distribution of the metric.
"""
