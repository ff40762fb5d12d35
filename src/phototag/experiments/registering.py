"""Registration of the model in the working tree, if the registry has no version of it.

In a clone of the repository, `dvc pull` downloads the model of the commit, but the clone has no
MLflow registry. Registration does not change any file that git or DVC tracks.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from dvc.repo import Repo

from phototag.apps.results import FILES, LOCK, list_hashes, read_lock
from phototag.base.files import read_json
from phototag.base.params import read_params
from phototag.experiments.sync import (
    HISTORY,
    MODEL,
    TRAINING,
    find_current_revision,
    read_result,
)
from phototag.registry.decision import describe_decision
from phototag.registry.lookup import has_version
from phototag.registry.params import RegistrationParams
from phototag.tracking.store import Store

DECISION = Path("reports/register")


def register_current(store: Store, root: Path, report: Callable[[str], None]) -> str:
    """Register the model in the working tree, and return the decision or what is missing.

    Nothing is done, and the result is an empty string, if the registry has a version of the model,
    or if the stage `register` did not run or did not register the model, such as in a DVC
    experiment.

    Raises:
        InputError: dvc.lock or a file of the model is damaged.
    """
    stages = read_lock(root)
    hashes = list_hashes(stages["register"], "deps")
    trained = list_hashes(stages["train"], "outs").get(MODEL)
    if not trained or trained != hashes.get(MODEL) or not (root / TRAINING).is_file():
        return ""
    key = read_json(root / TRAINING)["content_key"]
    files = {name: root / path for name, path in FILES.items()}
    decision_file = root / DECISION / "decision.json"
    missing = [path for path in (*files.values(), decision_file) if not path.is_file()]
    if missing:
        if has_version(store, key):
            return ""
        advice = "`dvc pull`" if _has_remote(root) else "`dvc repro`"
        path = missing[0].relative_to(root)
        return f"The model of {LOCK} is not registered: {path} is missing: run {advice}"
    if read_json(decision_file)["version"] is None:
        return ""
    if has_version(store, key, (files["model"], files["thresholds"])):
        return ""
    changed = [path for path in FILES.values() if _md5(root / path) != hashes.get(path)]
    result = read_result(root, find_current_revision(root), "")
    if changed or result is None:
        first = changed[0] if changed else HISTORY
        return f"The model is not registered: {first} differs from {LOCK}: run `dvc repro`"
    # Importing PyTorch takes seconds, so it is imported only if the model is registered.
    from phototag.registry.registration import register_results

    report("Registering the model, because the MLflow registry has no version of it ...")
    params = read_params(RegistrationParams, root / "params.yaml")
    training, _, _ = result
    with TemporaryDirectory() as folder:
        decision = register_results(
            store,
            files,
            training,
            params.evaluate.resamples,
            params.seed,
            Path(folder, DECISION.name),
            params.data.license,
        )
    return describe_decision(decision)


def _has_remote(root: Path) -> bool:
    with Repo(str(root)) as repo:
        return bool(repo.config["core"].get("remote"))


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
