"""Compare the results of a change with those of a base revision: `python -m tools.compare main`.

Writes build/compare/report.md, a comment for a pull request, and its figures.
"""

import io
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phototag.apps.results import FILES, METRICS, parse_scores
from phototag.base.errors import InputError
from phototag.base.files import exit_on_input_error, project_root, write_text
from phototag.base.git import ask_git, run_git
from phototag.dataset.targets import UNKNOWN
from phototag.experiments.dvc_tools import WORKSPACE, read_revision, read_tracked
from phototag.metrics.bootstrap import bootstrap_weights, confidence_interval, effective_groups
from phototag.metrics.classification import (
    MIN_POSITIVES,
    classification_scores,
    label_scores,
)
from phototag.metrics.differences import list_differences
from phototag.metrics.selection import CROSS_VALIDATION, find_evaluated, name_photos
from phototag.pages.escaping import escape_markdown
from phototag.pages.figures import (
    BLUE,
    GREY,
    ORANGE,
    Figure,
    figure_style,
    new_figure,
    save_figure,
    shorten_name,
)

CURVE = "reports/evaluate/pr_curve.csv"
NAMES = {"f1_micro": "micro F1", "f1_macro": "macro F1", "precision_micro": "micro precision"}
NAMES["recall_micro"] = "micro recall"
MAX_LABELS = 10  # largest number of labels that gained, and of labels that lost
RESAMPLES, SEED, TAIL = 1000, 0, 0.025


@dataclass(frozen=True)
class Comparison:
    """Scores of the base and of the change on the same photos.

    Attributes:
        photos: Description of the photos and labels that both have.
        scores: Table with one row per metric: `metric`, `change`, `base`, `difference`, and the
            bounds `low` and `high` of the 95% interval of the difference.
        labels: Table with one row per label and the same columns for its F1; `label` is its name,
            and `positives` is the number of photos with the label.
    """

    photos: str
    scores: pd.DataFrame
    labels: pd.DataFrame


def main(base: str = "main", revision: str = WORKSPACE) -> None:
    """Write the report, and print it.

    Args:
        base: Revision to compare with.
        revision: Revision of the change (default: the working tree).
    """
    root = project_root()
    for name in filter(None, (base, revision)):
        if ask_git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") is None:
            raise InputError(f"git has no revision {name}: pass another one as BASE or REV")
    folder = root / "build/compare"
    print(write_report(root, run_git(root, "rev-parse", "--short=8", base), revision, folder))
    print(f"Written to {folder / 'report.md'}", file=sys.stderr)


def write_report(root: Path, base: str, revision: str, folder: Path) -> str:
    """Write report.md and its figures to a folder, and return the Markdown text."""
    shown = f"`{revision}`" if revision else "the working tree"
    parts = [f"## Results of {shown}, compared with `{base}`"]
    try:
        comparison = compare(root, base, revision)
    except InputError as error:
        parts.append(f"The labels cannot be compared: {error}.")
        comparison = None
    if comparison:
        parts += [summarize(comparison), describe_scores(comparison.scores)]
    for title, kind in (("Metrics", "metrics"), ("Params", "params")):
        table = diff_with_dvc(root, kind, base, revision)
        parts += [f"### {title} (`dvc {kind} diff`)", table or "No change."]
    if comparison:
        parts += ["### F1 of the labels", describe_labels(comparison.labels)]
        with figure_style():
            figures = {"labels": draw_labels(select_labels(comparison.labels))}
            curves = [read_csv(root, each, CURVE) for each in (base, revision)]
            figures["pr_curve"] = draw_curves(*curves)
            for name, figure in figures.items():
                save_figure(figure, folder / f"{name}.png")
        parts += [f"![{name}]({name}.png)" for name in figures]
    text = "\n\n".join(parts) + "\n"
    write_text(folder / "report.md", text)
    return text


def compare(root: Path, base: str, revision: str) -> Comparison:
    """Score the predictions of two revisions for the photos and labels that both have.

    The targets are those of the change. The intervals come from a paired bootstrap of groups.

    Raises:
        InputError: The predictions of a revision are missing, or no photo or label is common.
    """
    kinds = [find_evaluated(read_metrics(root, each)) for each in (base, revision)]
    if kinds[0] != kinds[1]:
        raise InputError(f"the base was evaluated on {kinds[0]}, and the change on {kinds[1]}")
    old, new = (read_predictions(root, each, kinds[0]) for each in (base, revision))
    images, labels = (
        [name for name in new[key].unique() if name in known]
        for key, known in (("image", {*old["image"]}), ("label", {*old["label"]}))
    )
    if not (images and labels):
        raise InputError("the base and the change have no common photos or labels")
    pivot = partial(pivot_column, images=images, labels=labels)
    targets = pivot(new, "target")
    targets = np.where(np.isnan(targets), UNKNOWN, targets)
    splits = read_csv(root, revision, FILES["splits"]).set_index("image")["group"]
    groups = [str(group) for group in splits.loc[images]]
    weights = bootstrap_weights(len(images), RESAMPLES, SEED, groups)
    predicted = [pivot(table, "predicted") > 0 for table in (new, old)]
    found = [classification_scores(targets, each, weights) for each in predicted]
    rows = list_differences(found[0], found[1], NAMES, effective_groups(groups), TAIL)
    columns = ["metric", "change", "base", "difference", "low", "high"]
    f1 = [label_scores(targets, each, weights)[0] for each in predicted]
    low, high = confidence_interval(f1[0] - f1[1])
    table = pd.DataFrame(
        {
            "label": labels,
            "positives": (targets > 0).sum(axis=0),
            "change": f1[0][0],
            "base": f1[1][0],
            "difference": f1[0][0] - f1[1][0],
            "low": low,
            "high": high,
        }
    )
    scores = pd.DataFrame(rows, columns=columns)
    photos = f"{name_photos(len(images), kinds[0])} and {len(labels)} labels"
    return Comparison(photos, scores, table)


def read_metrics(root: Path, revision: str) -> dict[str, float]:
    """Return the scores in metrics.json at a revision."""
    text = read_revision(root, revision, METRICS)
    if text is None:
        raise InputError(f"{METRICS} is missing {at(revision)}: run `dvc repro` and commit it")
    return parse_scores(text, METRICS)


def read_predictions(root: Path, revision: str, evaluated_on: str) -> pd.DataFrame:
    """Return the predictions for the photos on which a model was evaluated."""
    table = read_csv(root, revision, FILES["predictions"])
    return table if evaluated_on == CROSS_VALIDATION else table[table["split"] == evaluated_on]


def read_csv(root: Path, revision: str, path: str) -> pd.DataFrame:
    """Return a table that DVC tracks.

    Raises:
        InputError: The file is neither in DVC's cache nor in its remote.
    """
    file = root / path
    content = read_tracked(root, revision, path) if revision else None
    if revision == WORKSPACE and file.is_file():
        content = file.read_bytes()
    if content is None:
        raise InputError(
            f"{path} is missing {at(revision)}: run `dvc repro` there, or `dvc pull --all-commits`"
        )
    # Labels and photos may be named NA or 2024.
    names = dict.fromkeys(("image", "label", "group", "split"), str)
    options: Any = {"keep_default_na": False, "na_values": [""], "dtype": names}
    table: pd.DataFrame = pd.read_csv(io.BytesIO(content), **options)
    return table


def at(revision: str) -> str:
    """Return a phrase that names a revision."""
    return f"at {revision[:8]}" if revision else "in the working tree"


def pivot_column(
    table: pd.DataFrame, column: str, images: Sequence[str], labels: Sequence[str]
) -> np.ndarray:
    """Return a column of the predictions as an array, float [num_images, num_labels]."""
    wide = table.pivot_table(column, "image", "label", aggfunc="first", observed=True, dropna=False)
    return wide.reindex(index=list(images), columns=list(labels)).to_numpy(np.float64)


def diff_with_dvc(root: Path, kind: str, base: str, revision: str) -> str:
    """Return the table of `dvc metrics diff` or `dvc params diff`, or ""."""
    command = [sys.executable, "-m", "dvc", kind, "diff", "--md", base, *filter(None, [revision])]
    options = ["--precision", "4"] if kind == "metrics" else []
    done = subprocess.run(
        [*command, *options], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InputError(f"dvc {kind} diff failed: {done.stderr.strip()}")
    header, rule, *rows = done.stdout.strip().splitlines() or ("", "")
    # Without changes, there is only the header. DVC writes the rows in any order.
    return "\n".join([header, rule, *sorted(rows)]) if rows else ""


def summarize(comparison: Comparison) -> str:
    """Return one sentence about micro F1, and one about the labels."""
    row = comparison.scores.set_index("metric").loc["f1_micro"]
    text = f"On the same {comparison.photos}, micro F1 is {row.change:.4f} "
    text += f"instead of {row.base:.4f}"
    if np.isnan(row.low):
        text += ". The photos are in too few groups for an interval."
    else:
        verdict = "better" if row.low > 0 else "worse" if row.high < 0 else "not clearly different"
        text += f" (difference {show_difference(row)}): the change is **{verdict}**."
    enough = comparison.labels.query("positives >= @MIN_POSITIVES")
    clear = int(((enough["low"] > 0) | (enough["high"] < 0)).sum())
    return (
        f"{text} F1 clearly differs for {clear} of {len(enough)} labels with at least "
        f"{MIN_POSITIVES} positives; by chance alone, it would for about {0.05 * len(enough):.1f}."
    )


def show_difference(row: Any) -> str:
    """Return a difference with its 95% interval."""
    interval = "" if np.isnan(row.low) else f" ({row.low:+z.4f} to {row.high:+z.4f})"
    return f"{row.difference:+z.4f}{interval}"


def describe_scores(scores: pd.DataFrame) -> str:
    """Return the table of the scores in Markdown."""
    rows = [
        f"| {NAMES[name]} | {row.base:.4f} | {row.change:.4f} | {show_difference(row)} |"
        for name, row in zip(scores["metric"], scores.itertuples(), strict=True)
    ]
    return "\n".join(
        ["| Metric | Base | Change | Difference (95% interval) |", "|---|---|---|---|", *rows]
    )


def select_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """Return the labels with the largest gains and losses, the largest gain first."""
    ranked = labels.query("positives >= @MIN_POSITIVES and difference != 0")
    ranked = ranked.sort_values("difference", ascending=False, kind="stable")
    gains, losses = ranked["difference"] > 0, ranked["difference"] < 0
    return pd.concat([ranked[gains].head(MAX_LABELS), ranked[losses].tail(MAX_LABELS)])


def describe_labels(labels: pd.DataFrame) -> str:
    """Return the table of the largest gains and losses in Markdown."""
    shown = select_labels(labels)
    if shown.empty:
        return f"F1 did not change for any label with at least {MIN_POSITIVES} positives."
    rows = [
        f"| {escape_markdown(str(row.label))} | {row.positives} | {row.base:.3f} | "
        f"{row.change:.3f} | {show_difference(row)} |"
        for row in shown.itertuples()
    ]
    note = "The intervals are not adjusted for the number of labels."
    if len(shown) < len(labels):
        note = f"Labels with the largest gains and losses, of {len(labels)}. {note}"
    header = [
        "| Label | Positives | Base | Change | Difference (95% interval) |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*header, *rows, "", note])


def draw_labels(labels: pd.DataFrame) -> Figure:
    """Draw the difference in F1 of each label with its interval."""
    figure, axes = new_figure("Difference in F1 with 95% interval", "change minus base", "")
    figure.set_figheight(1.6 + 0.25 * len(labels))
    rows = np.arange(len(labels))[::-1]
    errors = [labels["difference"] - labels["low"], labels["high"] - labels["difference"]]
    axes.errorbar(labels["difference"], rows, xerr=np.clip(errors, 0, None), fmt="o", color=BLUE)
    axes.axvline(0, color=GREY, linestyle=":")
    axes.set_yticks(rows, [shorten_name(label) for label in labels["label"]])
    return figure


def draw_curves(base: pd.DataFrame, change: pd.DataFrame) -> Figure:
    """Draw the precision-recall curves of the base and of the change."""
    title = "Precision-recall curve, all labels pooled"
    figure, axes = new_figure(title, "recall", "precision")
    for name, curve, color, style in (
        ("base", base, ORANGE, "--"),
        ("change", change, BLUE, "-"),
    ):
        axes.plot(curve["recall"], curve["precision"], style, color=color, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend()
    return figure


if __name__ == "__main__":
    with exit_on_input_error():
        main(*sys.argv[1:])
