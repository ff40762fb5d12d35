"""MLflow runs: the store, a run, what a run records."""

import logging
import os

# Read when mlflow is imported: a pipeline reports to nobody, and a stage's log holds its own words.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# By its default, a call to a server that is away takes minutes; training would wait.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
# What fails there is told in one sentence (store.explain), and not by a traceback besides.
for _name in ("mlflow.store.db.utils", "mlflow.system_metrics"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
