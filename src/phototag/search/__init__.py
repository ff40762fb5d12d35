"""Hyperparameter search with Optuna, started with `phototag tune`."""

import warnings

from phototag.base.errors import InputError

try:
    import optuna
except ModuleNotFoundError as error:
    raise InputError("phototag tune needs Optuna: run `make setup-tune` to install it") from error

optuna.logging.set_verbosity(optuna.logging.WARNING)
# Hide Optuna's warnings that heartbeats and retries are experimental.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
