"""Served version of the registered model, which is loaded again when its alias moves."""

import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from phototag.base.errors import InputError
from phototag.registry.versions import ABSENT
from phototag.server.metrics import MODEL, RELOADS
from phototag.serving.limits import EXAMPLE
from phototag.serving.requests import read_cells
from phototag.serving.tagger import Tagger, tag_photos
from phototag.serving.version import load_version
from phototag.tracking.store import FAILURES, describe_failure

ADDRESS = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")
PAUSE = 2  # seconds between two looks at the alias
RETRY = 30  # looks at the alias until a version that could not be loaded is tried again


@dataclass(frozen=True)
class Version:
    """A loaded version of a registered model."""

    name: str
    number: str
    tagger: Tagger


class Champion:
    """The version to serve. `version` changes when the alias in its address moves.

    Args:
        address: Address of the model, `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        uri: Address of the MLflow store, for messages.

    Raises:
        InputError: The address is invalid, MLflow does not answer, or there is no such version.
    """

    def __init__(self, address: str, uri: str) -> None:
        match = ADDRESS.fullmatch(address)
        if not match:
            raise InputError(
                f"{address} is not the address of a registered model: pass models:/NAME@ALIAS or "
                "models:/NAME/VERSION"
            )
        self.name, self.alias, self.fixed = match.groups()
        self.address, self.uri = address, uri
        self.client = MlflowClient()
        self.failed, self.wait, self.message = "", 0, ""  # last failed update
        try:
            self.version = self._load(self._find())
        except FAILURES as error:
            raise InputError(self._describe(error)) from error
        MODEL.info({"name": self.name, "version": self.version.number})

    def watch(self) -> None:
        """Start a thread that calls `update` every `PAUSE` seconds, if the address has an alias."""
        if self.alias:
            Thread(target=self._watch, name="champion", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(PAUSE)
            self.update()

    def update(self) -> None:
        """Load another version if the alias has moved; keep the present version if this fails."""
        try:
            number = self._find()
            if number == self.version.number or (number == self.failed and self.wait > 0):
                self.wait -= 1
                return
            self.failed, self.wait = number, RETRY
            self.version = self._load(number)
        except Exception as error:
            RELOADS.labels("error").inc()
            message = self._describe(error)
            if message != self.message:
                print(f"version {self.version.number} is kept: {message}", file=sys.stderr)
            self.message = message
        else:
            self.failed = self.message = ""
            RELOADS.labels("ok").inc()
            MODEL.info({"name": self.name, "version": number})
            print(f"now serving version {number} of {self.name}", file=sys.stderr)

    def _find(self) -> str:
        """Return the number of the version that the address names."""
        if self.fixed:
            return str(self.fixed)
        return str(self.client.get_model_version_by_alias(self.name, self.alias).version)

    def _load(self, number: str) -> Version:
        """Download and load a version, and predict the labels of an example once."""
        with TemporaryDirectory() as folder:
            files = Path(
                mlflow.artifacts.download_artifacts(
                    f"models:/{self.name}/{number}/artifacts", dst_path=folder
                )
            )
            model, thresholds, graph = (
                files / name for name in ("model.safetensors", "thresholds.json", "recorded.onnx")
            )
            tagger = load_version(model, thresholds, graph if graph.exists() else None)
            (tags,) = tag_photos(tagger, read_cells([EXAMPLE]))
        if tags.error:
            raise InputError(f"version {number} does not predict labels ({tags.error})")
        return Version(self.name, number, tagger)

    def _describe(self, error: Exception) -> str:
        if isinstance(error, MlflowException) and error.error_code in ABSENT:
            return (
                f"{self.address} does not exist in the MLflow store: run `dvc repro` to register a "
                "model, or `phototag promote VERSION` to choose the champion"
            )
        return describe_failure(error, self.uri)
