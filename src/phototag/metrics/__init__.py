"""Metrics of multi-label predictions, one implementation of each.

Training, evaluation, registry and search use these functions. Targets are 1, 0 or `UNKNOWN`, and
every metric is computed over the known entries only.

Most functions take `weights`, float [resamples, num_photos]: how often each photo counts. They
return one value per resample. One row of ones gives the plain metric, the rows returned by
`bootstrap.bootstrap_weights` give the distribution of the metric.
"""
