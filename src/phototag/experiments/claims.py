"""Named sets of experiments: read from experiments.yaml, queued with DVC, and collected."""

import io
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
import yaml
from dvc.api import DVCFileSystem
from dvc.repo import Repo
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy.special import entr

from phototag.errors import InputError
from phototag.files import write_table
from phototag.model import build_model
from phototag.params import ModelParams
from phototag.sync import list_experiments, read_revision

FILE, RESULTS = Path("experiments.yaml"), Path("docs/results")
SAMPLE, DRAWN = Path("data/sample"), "drawn"  # the photos that the repository draws, their name
RUN = ["photos", "variant", "seed"]
Expectation = Literal["better", "worse", "similar", "barely learns"]


class Claim(BaseModel):
    """One thing that the report says, and the variants that try it.

    Attributes:
        says: The claim in a sentence.
        variants: The first is what the others are compared with.
        expect: Variant -> what the report says of it beside the first.
        note: What a reader of the results should know besides.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    says: str
    variants: Annotated[tuple[str, ...], Field(min_length=1)]
    expect: dict[str, Expectation] = {}
    note: str = ""


class Experiments(BaseModel):
    """All of experiments.yaml.

    Attributes:
        photos: Name of a set of photos -> params that go with it.
        variants: Name -> params that differ from params.yaml.
        claims: Name -> claim.
        note: What holds for all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    photos: dict[str, dict[str, Any]]
    variants: dict[str, dict[str, Any]]
    claims: dict[str, Claim]
    note: str = ""

    @model_validator(mode="after")
    def _know_all_names(self) -> "Experiments":
        for name, claim in self.claims.items():
            for variant in claim.variants:
                if variant not in self.variants:
                    raise ValueError(f"claim {name!r} names {variant!r}, which is no variant")
            for variant in claim.expect:
                if variant not in claim.variants:
                    raise ValueError(f"claim {name!r} expects {variant!r}, but does not run it")
        return self


@dataclass(frozen=True)
class Run:
    """One experiment.

    Attributes:
        photos: Name of the set of photos.
        variant: Of experiments.yaml.
        seed: Of split, first weights and all that is drawn in training.
        overrides: Dotted key of params.yaml -> value.
    """

    photos: str
    variant: str
    seed: int
    overrides: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the DVC experiment and of the MLflow run."""
        return f"{self.photos}-{self.variant}-s{self.seed}"


def read_experiments(path: Path = FILE) -> Experiments:
    """Read and check experiments.yaml.

    Raises:
        InputError: The file is missing or is no YAML, or something in it is unknown.
    """
    try:
        return Experiments.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run from the repository's root") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    except ValidationError as error:
        told = error.errors()[0]
        key = ".".join(map(str, told["loc"])) or "the file"
        raise InputError(f"{path}: {key}: {told['msg'].removeprefix('Value error, ')}") from None


def plan_runs(
    experiments: Experiments,
    claims: Sequence[str],
    photos: Path | None,
    variants: Sequence[str],
    seeds: Iterable[int],
    raw: str = str(SAMPLE),
) -> list[Run]:
    """List the runs of some claims: seed by seed, each variant once.

    Args:
        experiments: Of `read_experiments`.
        claims: Their names.
        photos: A zip or folder; None takes what params.yaml names.
        variants: Only these; empty takes all of the claims'.
        seeds: One run each.
        raw: What params.yaml names.

    Raises:
        InputError: There is no claim, variant or file of that name.
    """
    for claim in claims:
        if claim not in experiments.claims:
            raise InputError(f"{FILE} has no {claim!r}; it has {', '.join(experiments.claims)}")
    known = list(dict.fromkeys(v for c in claims for v in experiments.claims[c].variants))
    for variant in variants:
        if variant not in known:
            raise InputError(f"{', '.join(claims)}: no variant {variant!r}, but {', '.join(known)}")
    if photos and not photos.exists():
        raise InputError(f"{photos}: there are no photos there")
    name = name_photos(str(photos or raw))
    data = {"data": {"raw": str(photos.resolve())}} if photos else {}
    runs = []
    for seed in seeds:
        for variant in known:
            if variant in (variants or known):
                own = experiments.photos.get(name, {}), experiments.variants[variant]
                overrides = {"seed": seed}
                for given in (data, *own):
                    overrides |= dict(flatten(given))
                runs.append(Run(name, variant, seed, overrides))
    return runs


def name_photos(raw: str) -> str:
    """Return what the runs on a zip or folder of photos are named by."""
    return DRAWN if Path(raw) == SAMPLE else Path(raw).stem


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value of nested groups with its dotted key."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def apply_overrides(values: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of params.yaml with some changed.

    Args:
        values: As read; stays as it is.
        overrides: Dotted key -> value.

    Raises:
        KeyError: A key is not there.
    """
    changed = deepcopy(values)
    for key, value in overrides.items():
        *groups, last = key.split(".")
        place = changed
        for group in groups:
            place = place[group]
        if last not in place:
            raise KeyError(key)
        place[last] = value
    return changed


def run_queued(root: Path, runs: Sequence[Run], jobs: int) -> None:
    """Run in DVC's queue what DVC has no experiment of, and wait for it.

    What an earlier call left in the queue of these runs is queued anew, as params and code are now;
    whatever else waits there runs too, as DVC empties its queue. A run that was killed goes on
    where its training stopped.

    Args:
        root: The repository.
        runs: Of `plan_runs`.
        jobs: How many at a time.

    Raises:
        InputError: DVC refused one, or one failed; the message says how to see why.
    """
    done = {name for name, _ in list_experiments(root)}
    active, queued = _tidy_queue(root)
    stale = sorted({run.name for run in runs} & queued)
    if stale:
        _dvc(root, "queue", "remove", *stale)
    for run in runs:
        if run.name not in done | active:
            overrides = [f"{key}={_to_hydra(value)}" for key, value in run.overrides.items()]
            settings = [part for override in overrides for part in ("-S", override)]
            # Only the champion's own pipeline registers models.
            _dvc(root, "exp", "run", "--queue", "--name", run.name, *settings, "evaluate")
    if any(run.name not in done for run in runs):
        _dvc(root, "exp", "run", "--run-all", "--jobs", str(jobs), quiet=False)
    done = {name for name, _ in list_experiments(root)}
    failed = [run.name for run in runs if run.name not in done]
    if failed:
        raise InputError(
            f"{len(failed)} of {len(runs)} experiments failed: `dvc queue logs {failed[0]}` says "
            "why; the same command tries them again"
        )


def list_finished(root: Path, experiments: Experiments) -> list[Run]:
    """List the runs of experiments.yaml that DVC has, whatever the photos."""
    found = []
    for name, revision in list_experiments(root):
        values = yaml.safe_load(read_revision(root, revision, "params.yaml") or "")
        photos, seed = name_photos(values["data"]["raw"]), values["seed"]
        runs = [Run(photos, variant, seed, {}) for variant in experiments.variants]
        found += [run for run in runs if run.name == name]
    return found


def _tidy_queue(root: Path) -> tuple[set[str], set[str]]:
    """Forget runs whose worker is gone, and name those that run and those that wait."""
    with Repo(str(root)) as repo:
        queue = repo.experiments.celery_queue
        active = {str(entry.name) for entry in queue.iter_active()}
        if active and not queue.worker_status():
            queue.kill(list(active), force=True)
            active = set()
        return active, {str(entry.name) for entry in queue.iter_queued()}


def _to_hydra(value: Any) -> str:
    """Write a value as DVC's --set-param reads it: JSON, but keys without quotes."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_to_hydra(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_to_hydra, value)) + "]"
    if isinstance(value, str):  # a path may hold whatever else means something there
        return "'" + value.replace("'", r"\'") + "'"
    return json.dumps(value)


def _dvc(root: Path, *arguments: str, quiet: bool = True) -> None:
    done = subprocess.run(
        ["dvc", *arguments], cwd=root, capture_output=quiet, text=True, check=False
    )
    if done.returncode and quiet:
        raise InputError(f"dvc {arguments[0]} failed: {done.stderr.strip() or done.stdout.strip()}")


def collect_results(root: Path, runs: Sequence[Run]) -> pd.DataFrame:
    """Write what the runs gave into docs/results/: runs.csv and curves.csv.

    Rows of the same photos, variant and seed are replaced, others stay.

    Args:
        root: The repository.
        runs: Those that DVC has no experiment of are passed over.

    Returns:
        The rows of these runs in runs.csv.
    """
    revisions = dict(list_experiments(root))
    found = [(run, revisions[run.name]) for run in runs if run.name in revisions]
    rows, curves = [], []
    for run, revision in found:
        own = {"photos": run.photos, "variant": run.variant, "seed": run.seed}
        history = pd.read_csv(
            io.StringIO(read_revision(root, revision, "reports/train/history.csv") or "")
        )
        rows.append(own | _summarize(root, revision, history))
        curves.append(pd.DataFrame(own, history.index).join(history.drop(columns="lr")).round(5))
    merge_table(root / RESULTS / "runs.csv", pd.DataFrame(rows), RUN)
    if curves:
        merge_table(root / RESULTS / "curves.csv", pd.concat(curves), [*RUN, "epoch"])
    return pd.DataFrame(rows)


def _summarize(root: Path, revision: str, history: pd.DataFrame) -> dict[str, Any]:
    training = json.loads(read_revision(root, revision, "reports/train/training.json") or "")
    scores = json.loads(read_revision(root, revision, "reports/evaluate/metrics.json") or "")
    # Only what is needed: an experiment may be older than some keys of params.yaml.
    values = yaml.safe_load(read_revision(root, revision, "params.yaml") or "")
    spec = ModelParams.model_validate(values["model"])
    stats = json.loads(DVCFileSystem(str(root), rev=revision).read_text("data/stats.json"))
    rates = np.array(list(stats["label_counts"].values())) / stats["num_images"]
    with torch.device("meta"):
        network = build_model(spec, len(rates), values["resize"]["size"], [0.5] * 3, [1.0] * 3)
    return {
        "epochs": len(history),
        "best_epoch": training["epoch"],
        "prior_loss": round(float((entr(rates) + entr(1 - rates)).mean()), 4),
        "val_loss": round(training["val_loss"], 4),
        "val_f1_micro_at_0.5": round(history["f1_micro"].max(), 4),
        **{f"test_{key}": value for key, value in scores.items()},
        "num_parameters": sum(each.numel() for each in network.parameters()),
    }


def merge_table(path: Path, rows: pd.DataFrame, key: list[str]) -> None:
    """Put rows into a table: those of the same key are replaced, others stay."""
    if rows.empty:
        return
    if path.exists():
        old = pd.read_csv(path)
        rows = pd.concat([old, rows]).drop_duplicates(key, keep="last")
    write_table(path, rows[[*key, *(c for c in rows if c not in key)]].sort_values(key))
