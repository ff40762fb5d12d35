"""Metrics for multi-label predictions, used by training, evaluation, the registry and the search.

An entry is a pair of a photo and a label. Targets are 1, 0 or `UNKNOWN`. All metrics ignore the
entries with an unknown target. The arguments `targets`, `predicted` (0 or 1), `logits` and `scores`
(logits or probabilities) have one value per entry, [num_photos, num_labels].

Most functions return one value per resample. Their argument `weights`, float [resamples,
num_photos], contains how often each photo occurs in each resample. Pass one row of ones to get the
plain metric, or the result of `bootstrap.bootstrap_weights` to get the distribution of the metric.
"""
