"""Prometheus metrics of the server."""

from prometheus_client import Counter, Gauge, Histogram, Info

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)

REQUESTS = Histogram(
    "phototag_request_seconds",
    "Time from the headers of a request to its response, by HTTP status.",
    ["status"],
    buckets=SECONDS,
)
IN_FLIGHT = Gauge("phototag_requests_in_flight", "Requests that are being handled.")
PHOTOS = Counter("phototag_photos_total", "Photos, by whether they could be read.", ["outcome"])
UNFAMILIAR = Counter("phototag_unfamiliar_photos_total", "Photos unlike anything in training.")
LABELS = Counter("phototag_labels_total", "Photos for which a label was predicted.", ["label"])
MODEL = Info("phototag_model", "Name and version of the served model.")
RELOADS = Counter("phototag_reloads_total", "Loads of another version, by outcome.", ["outcome"])
LOG_ERRORS = Counter("phototag_log_errors_total", "Requests that could not be logged.")
