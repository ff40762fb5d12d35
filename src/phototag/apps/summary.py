"""Summary of the last evaluation, printed by `phototag summary`."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from phototag.apps.results import (
    LOCK,
    METRICS,
    list_hashes,
    parse_lock,
    read_lock,
    read_scores,
)
from phototag.base.files import read_json, read_source, read_table
from phototag.base.git import ask_git
from phototag.base.keys import flatten
from phototag.base.params import read_values
from phototag.evaluation.targets import describe_targets, name_labels
from phototag.metrics.classification import MIN_POSITIVES
from phototag.metrics.selection import CROSS_VALIDATION, find_evaluated
from phototag.registry.decision import describe_decision

SYNTHETIC = "data/sample"  # value of `data.raw` for the synthetic dataset
# Files that determine the photos and labels on which a model is evaluated.
DATASET = ("data/manifest.csv", "data/splits.csv")
NEXT_RECIPES = {  # recipe of a linear probe -> recipe to try next, with a description
    "pretrained": ("pretrained-best", "use two backbones"),
    "pretrained-best": ("finetuned", "train the backbone too; needs a GPU"),
    "hub": ("hub-large", "use a larger backbone; needs a GPU"),
}


def summarize(root: Path) -> str:
    """Return the latest scores, registered version, path of the report and next commands as text.

    Raises:
        InputError: The evaluate stage has not been run, or one of its files is damaged.
    """
    scores = read_scores(root)
    known = scores.pop("known", None)
    report = (root / METRICS).with_name("report.html")
    width = max(map(len, scores), default=0)
    lines = []
    for name, value in scores.items():
        shown = f"{value:.4f}" if isinstance(value, float) else value
        lines.append(f"  {name:<{width}}  {shown}")
    if known is not None:
        lines += ["", f"Scores on {known} known entries (pairs of a photo and a label)"]
    if find_evaluated(scores) == CROSS_VALIDATION:
        lines += ["", "Scores by cross-validation: each photo was predicted by a model that was"]
        lines += ["not trained on it. There is no test split."]
    lines += _describe_labels(root / METRICS)
    lines += ["", *_describe_registration(root / "reports/register/decision.json")]
    if not report.is_file():
        missing = "The report is not in this clone: run `dvc pull` if the project has a DVC remote"
        return "\n".join([*lines, f"{missing}, or `dvc repro`."])
    commands = list(_suggest(root))
    width = max(len(command) for command, _ in commands)
    lines += [f"Report:     {report}", "", "Next:"]
    return "\n".join([*lines, *(f"  {command:<{width}}  # {what}" for command, what in commands)])


def _describe_labels(metrics: Path) -> list[str]:
    """Name the labels that cannot be judged, and describe the cost of `evaluate.target`."""
    scores, labels = (metrics.with_name(f"{name}.csv") for name in ("scores", "per_label"))
    if not (scores.is_file() and labels.is_file()):  # a clone without `dvc pull`
        return []
    per_label = read_table(labels, keep_default_na=False, dtype={"label": str})
    few = per_label[per_label["support"] < MIN_POSITIVES]
    counted = [f"{row.label} ({row.support})" for row in few.itertuples()]
    lines = describe_targets(read_table(scores), per_label)
    if counted:
        lines.append(
            f"Too few positives to judge (fewer than {MIN_POSITIVES}): {name_labels(counted)}"
        )
    return ["", *lines] if lines else []


def _suggest(root: Path) -> Iterator[tuple[str, str]]:
    """Yield commands that fit the photos and the recipe, each with a description."""
    params = flatten(read_values(root / "params.yaml"))
    if _is_comparable(root):
        yield "dvc metrics diff", "compare with the last commit"
    if params.get("optimizer") != "lbfgs":
        with suppress(KeyError, TypeError, ValueError):  # the next `dvc repro` reports the value
            lr = f"{float(params['lr']) / 2:g}"
            yield f"dvc exp run -S lr={lr}", "train with half the learning rate"
    elif params.get("recipe") in NEXT_RECIPES:
        # Training tries many L2 strengths by itself, and a linear probe has no learning rate.
        recipe, description = NEXT_RECIPES[params["recipe"]]
        yield f"phototag recipe {recipe}", description
    if params.get("data.raw") == SYNTHETIC:
        yield "phototag import SOURCE", "import photos of your own"
    else:
        yield "phototag review", "check labels that may be wrong"
    yield "make ui", "open the MLflow UI"


def _is_comparable(root: Path) -> bool:
    """Return whether the last commit has other scores on the same photos and labels."""
    lock, metrics = (
        ask_git(root, "show", f"HEAD:./{name}", strip=False) for name in (LOCK, METRICS)
    )
    if not lock or not metrics or metrics == read_source(root / METRICS):
        return False
    used, before = (
        list_hashes(stages["evaluate"], "deps") for stages in (read_lock(root), parse_lock(lock))
    )
    return all(name in used and used[name] == before.get(name) for name in DATASET)


def _describe_registration(decision_file: Path) -> list[str]:
    if not decision_file.is_file():
        return []
    decision = read_json(decision_file)
    text = describe_decision(decision).splitlines()[0]
    if decision["version"] is None:
        return [text]
    # The registry may have changed since, or DVC may have restored an old file. Importing MLflow
    # takes seconds, so the text only names the command that reads the registry.
    return [
        f"{text} on {decision['time'][:16]} UTC; `phototag history` shows the current champion and "
        "later decisions",
        f"Comparison: {decision_file.with_name('report.html')}",
    ]
