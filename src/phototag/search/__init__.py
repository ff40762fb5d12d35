"""Hyperparameter search with Optuna: `phototag tune`."""

import warnings

from phototag.base.errors import InputError

try:
    import optuna
except ModuleNotFoundError as error:
    raise InputError("phototag tune needs Optuna: run `make setup-tune`") from error

optuna.logging.set_verbosity(optuna.logging.WARNING)
# Heartbeats and retries are experimental in Optuna: their interfaces may change.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
