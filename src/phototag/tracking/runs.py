"""MLflow runs: functions that create runs, name them, find them and log values to them.

Three tags link a run to its training and to DVC:

- `phototag.content_key` is a hash of the params, data and code of the training. Later stages use
  this hash to find the run. Therefore, the stage `train` does not need to pass on the run's id.
- `phototag.dvc_experiment` is the name of the DVC experiment, which is also the name of the run.
  Outside experiments, the tag is empty, and the run is named after its recipe, photos and time.
- `phototag.revision` is the git commit that contains the results. `phototag sync` sets this tag.
"""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag

from phototag.base.files import content_key
from phototag.base.keys import flatten
from phototag.metrics.selection import best_record, step_number
from phototag.tracking.description import (
    MANIFEST,
    NOTE_TAG,
    describe_inputs,
    describe_run,
    title,
)
from phototag.tracking.provenance import (
    COMMIT_TAG,
    experiment_name,
    has_died,
    is_of_this_machine,
    name_process,
    read_git_state,
)
from phototag.tracking.store import Store

KEY_TAG = "phototag.content_key"
EXP_TAG = "phototag.dvc_experiment"
REVISION_TAG = "phototag.revision"
PROCESS_TAG = "phototag.process"
ERROR_TAG = "phototag.error"
REBUILT_TAG = "phototag.rebuilt"
DESCRIBED_TAG = "phototag.described"  # hash of the description that phototag wrote last
DATA_TAG = "data_fingerprint"


@dataclass(frozen=True)
class Training:
    """Description of a training, from which an MLflow run is created.

    Attributes:
        key: Content key of the training, used to find its run.
        params: Nested params of the training. The run logs them with dotted keys.
        tags: Additional tags of the run. They override the tags that `create_run` sets.
        splits: Fingerprint and counts of each split, as returned by `describe_splits`.
        exp_name: Name of the DVC experiment, or an empty string if there is none (default: name of
            the current experiment).
        commit_time: Time of the git commit in `tags`, in milliseconds since 1970, if the run is
            rebuilt from this commit. It is then the start time and the end time of the run.
    """

    key: str
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    exp_name: str = field(default_factory=experiment_name)
    commit_time: int | None = None

    @cached_property
    def all_tags(self) -> dict[str, str]:
        """All tags of the run, except those of the process."""
        own = {KEY_TAG: self.key, EXP_TAG: self.exp_name}
        return own | describe_inputs(self.params, self.splits) | dict(self.tags)

    @property
    def run_name(self) -> str:
        """Name of the DVC experiment, or `pretrained, 450 photos, 30 Nov 14:05` without one."""
        if self.exp_name:
            return self.exp_name
        now = datetime.now().astimezone()  # local time, as in the table of runs
        end = f"{now.day} {now:%b %H:%M}"
        if self.commit_time is not None:
            end = f"commit {self.tags[COMMIT_TAG][:7]}"
        return f"{title(self.all_tags)}, {end}"

    @property
    def flat_params(self) -> dict[str, str]:
        """Params with dotted keys and string values, as MLflow stores them.

        The recipe is omitted: the tag `recipe` also states whether its values were changed. `_`
        replaces characters in keys, such as labels in `evaluate.target`, that MLflow refuses.
        """
        flat = flatten(self.params, lists=True)
        flat.pop("recipe", None)
        return {re.sub(r"[^\w.\- :]", "_", name): str(value) for name, value in flat.items()}


def create_run(store: Store, training: Training) -> str:
    """Create a run with the status RUNNING, log the params and the splits, and return its id."""
    # A queued experiment runs in a copy of the project, which may be at another commit.
    origin = {PROCESS_TAG: name_process(), **read_git_state(Path.cwd())}
    run = store.client.create_run(
        store.experiment_id,
        start_time=training.commit_time,
        run_name=training.run_name,
        tags={**origin, **training.all_tags},
    )
    params = [Param(name, value) for name, value in training.flat_params.items()]
    store.client.log_batch(run.info.run_id, params=params)
    log_splits(store, run.info.run_id, training.splits)
    return str(run.info.run_id)


def log_splits(store: Store, run_id: str, splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Log each split, as described by `describe_splits`, as a dataset of the run.

    MLflow identifies a dataset by name and digest, and keeps the profile that was logged first.
    """
    source = json.dumps({"uri": MANIFEST})
    for split, counts in splits.items():
        profile = json.dumps(counts)
        dataset = Dataset(split, counts["fingerprint"], "local", source, profile=profile)
        tag = InputTag("mlflow.data.context", split)
        store.client.log_inputs(run_id, [DatasetInput(dataset, [tag])])


def find_runs(store: Store, key: str, exp_name: str | None = None) -> list[Run]:
    """Return the runs that have a content key, newest first.

    If `exp_name` is given, only the runs of this DVC experiment are returned.
    """
    query = f"tags.`{KEY_TAG}` = '{key}'"
    runs = store.client.search_runs([store.experiment_id], query, order_by=["start_time DESC"])
    return [run for run in runs if exp_name in (None, run.data.tags.get(EXP_TAG, ""))]


def find_run(store: Store, training: Training) -> Run | None:
    """Return the best run of a training and DVC experiment, or None if there is none.

    The criteria, in order of priority: the run is finished; it ran on this machine; it is newer.
    The function ignores runs to which another process may still be writing, and runs with other
    values of the params `evaluate.*`.
    """
    runs = find_runs(store, training.key, training.exp_name)
    return min(
        (run for run in runs if not is_active(run) and has_evaluation_params(run, training)),
        key=lambda run: (
            run.info.status != "FINISHED",
            not is_of_this_machine(run.data.tags.get(PROCESS_TAG, "")),
        ),
        default=None,
    )


def find_run_to_resume(store: Store, training: Training, resumed: bool) -> Run | None:
    """Return the MLflow run in which a training continues, or None if a new MLflow run is needed.

    If the training resumes from a checkpoint (`resumed` is true), its MLflow run may have the name
    of another experiment, because DVC gives a restarted experiment a new name. Its MLflow run may
    even be finished, because the process can be killed after the last epoch.
    """
    own = [run for run in find_runs(store, training.key, training.exp_name) if not is_active(run)]
    if own:
        return own[0] if resumed or own[0].info.status != "FINISHED" else None
    unfinished = (run for run in find_runs(store, training.key) if run.info.status != "FINISHED")
    return next((run for run in unfinished if resumed and not is_active(run)), None)


def has_evaluation_params(run: Run, training: Training) -> bool:
    """Return whether a run and a training have the same params `evaluate.*`.

    MLflow cannot change a logged param. If these params changed after the training, the new scores
    are logged to another run.
    """
    old, new = run.data.params, training.flat_params
    names = [name for name in old.keys() | new.keys() if name.startswith("evaluate.")]
    return all(old.get(name) == new.get(name) for name in names)


def is_active(run: Run) -> bool:
    """Return whether another process, on this or another machine, may be writing to a run."""
    process = run.data.tags.get(PROCESS_TAG, "")
    return run.info.status == "RUNNING" and process != name_process() and not has_died(process)


def close_dead_runs(store: Store) -> None:
    """Set the status of RUNNING runs to KILLED if their process ran on this machine and died."""
    running = store.client.search_runs([store.experiment_id], "attributes.status = 'RUNNING'")
    for run in running:
        if has_died(run.data.tags.get(PROCESS_TAG, "")):
            store.client.set_tag(run.info.run_id, ERROR_TAG, "the process was killed")
            store.client.set_terminated(run.info.run_id, "KILLED")


def log_epochs(store: Store, run_id: str, history: Sequence[Mapping[Any, Any]]) -> None:
    """Log the metrics of each epoch (for a linear probe: L2 strength) that are not logged yet."""
    logged = {metric.step for metric in store.client.get_metric_history(run_id, "val_loss")}
    numbers = {"epoch", "step", "best_epoch", "best_step"}
    for record in history:
        if step_number(record) not in logged:
            values = {name: value for name, value in record.items() if name not in numbers}
            log_metrics(store, run_id, values, step_number(record))


def log_best(store: Store, run_id: str, history: Sequence[Mapping[Any, Any]]) -> None:
    """Log the metrics of the best epoch, whose weights are saved, with the prefix `best_`."""
    best = best_record(history)
    names = ("epoch", "step", "l2", "val_loss", "f1_micro", "f1_macro", "mAP")
    log_metrics(store, run_id, {f"best_{name}": best[name] for name in names if name in best})
    update_description(store, run_id)


def update_description(store: Store, run_id: str) -> None:
    """Describe the training and its latest metrics, unless a user edited the description."""
    run = store.client.get_run(run_id)
    text, hashed = describe_run(run), run.data.tags.get(DESCRIBED_TAG)
    shown = run.data.tags.get(NOTE_TAG, "")
    if text and (not shown or content_key(shown, []) == hashed):
        tags = [RunTag(NOTE_TAG, text), RunTag(DESCRIBED_TAG, content_key(text, []))]
        store.client.log_batch(run_id, tags=tags)


def log_metrics(
    store: Store,
    run_id: str,
    values: Mapping[str, float],
    step: int = 0,
    model_id: str | None = None,
    dataset: Dataset | None = None,
) -> None:
    """Log all metrics of one step in a single request.

    `model_id` and `dataset` are the MLflow model and the dataset that the metrics belong to.
    """
    now = time.time_ns() // 1_000_000
    link = (model_id, dataset.name, dataset.digest) if dataset else (model_id, None, None)
    metrics = [Metric(name, float(value), now, step, *link) for name, value in values.items()]
    store.client.log_batch(run_id, metrics=metrics)


def log_folder(store: Store, run_id: str, folder: Path) -> None:
    """Log the files of a folder as artifacts. The artifact folder has the same name."""
    store.client.log_artifacts(run_id, str(folder), folder.name)


def find_or_rebuild_run(store: Store, training: Training, history: pd.DataFrame) -> str:
    """Return the id of a training's MLflow run, and log the epochs that are missing in this run.

    If the store has no MLflow run of the training, this function creates one. The run is missing if
    DVC restored the model from its cache, the store could not be reached during the training, or
    the params `evaluate.*` changed after the training. `history` has one row per epoch.
    """
    run = find_run(store, training)
    if run and not run.inputs.dataset_inputs:  # `phototag sync` created it without the photos
        log_splits(store, run.info.run_id, training.splits)
    if run and run.info.status == "FINISHED" and "best_val_loss" in run.data.metrics:
        return str(run.info.run_id)
    tags = {REBUILT_TAG: "true", **training.tags}
    run_id = str(run.info.run_id) if run else create_run(store, replace(training, tags=tags))
    records = history.to_dict("records")
    log_epochs(store, run_id, records)
    log_best(store, run_id, records)
    store.client.set_terminated(run_id, "FINISHED", None if run else training.commit_time)
    return run_id
