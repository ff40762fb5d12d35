"""Figures of losses over epochs for the results page."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.claims.collection import RESULTS
from benchmarks.claims.verdicts import Trial
from phototag.pages.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    Axes,
    Figure,
    figure_style,
    new_figure,
    save_figure,
    shorten_name,
)

REPORT_PRIOR = 0.2106  # loss of the constant baseline on the report's photos
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800")
STYLES = ("-", "--", "-.")  # eight lines use each style, in this order
# Figure -> title, networks in report_curves.csv, and variants to plot if they have results.
COMPARED = {
    "beside-report": (
        "Losses of the final network and of the recipe phototag",
        ("final network",),
        ("report", "phototag", "phototag-mixup-48-epochs"),
    ),
    "beside-report-l2": (
        "Losses with and without L2 (the report shows them for an earlier network)",
        ("second network, with L2", "second network, without L2"),
        ("report", "no-l2"),
    ),
}


def draw_curves(path: Path, title: str, trial: Trial, curves: pd.DataFrame) -> None:
    """Plot the val loss of each variant of a claim, as mean and range over the seeds.

    Args:
        path: Path of the PNG file to write.
        title: Title of the figure.
        trial: Trial returned by `list_trials`.
        curves: Rows of curves.csv that belong to the trial.
    """
    ran = [variant for variant in trial.claim.variants if variant in set(curves["variant"])]
    with figure_style():
        figure, axes = new_figure(title, "epoch", "val loss (nats)")
        for number, variant in enumerate(ran):
            again, colour = divmod(number, len(COLOURS))
            band = _band(curves[curves["variant"] == variant], "val_loss")
            _draw_band(axes, band, COLOURS[colour], STYLES[again])
        prior = trial.runs["prior_loss"].iloc[0]
        axes.axhline(prior, color=GREY, linestyle=":")
        # Only the best epoch of each variant is compared, so higher losses may be cut off.
        best = curves.groupby("variant")["val_loss"].min()
        axes.set_ylim(best.min() * 0.97, max(prior, best.max()) * 1.35)
        columns = 4 if max(map(len, ran)) < 16 else 3
        _add_legend(figure, axes, [*ran, "constant baseline"], columns)
        save_figure(figure, path)


def draw_with_report(root: Path, runs: pd.DataFrame, curves: pd.DataFrame, name: str) -> Path:
    """Plot losses of runs and of the report, divided by the loss of the constant baseline.

    Args:
        root: Root folder of the project.
        runs: Content of runs.csv, which has the loss of the constant baseline for each dataset.
        curves: Content of curves.csv.
        name: Name of the figure, a key of `COMPARED`.

    Returns:
        Path of the figure, relative to `root`.
    """
    _, networks, variants = COMPARED[name]
    reported = pd.read_csv(root / RESULTS / "report_curves.csv").assign(prior=REPORT_PRIOR)
    priors = runs.groupby("photos")["prior_loss"].mean()
    drawn = [
        (f"the report: {network}", reported[reported["network"] == network]) for network in networks
    ]
    for photos in dict.fromkeys(runs["photos"]):
        for variant in variants:
            own = curves[(curves["photos"] == photos) & (curves["variant"] == variant)]
            if len(own):
                drawn.append((f"{photos}: {variant}", own.assign(prior=priors[photos])))
    colours = ["black", GREY][: len(networks)] + list(COLOURS)
    path = RESULTS / f"{name}.png"
    with figure_style():
        figure, axes = new_figure(
            "1 is the constant baseline", "epoch", "loss / loss of the constant baseline"
        )
        for column, style in (("val_loss", "-"), ("train_loss", ":")):
            for (_, losses), colour in zip(drawn, colours, strict=False):
                line = _band(losses.assign(ratio=losses[column] / losses["prior"]), "ratio")["mean"]
                axes.plot(line, color=colour, linestyle=style)
        axes.set_ylim(0, 1.5)
        names = [label for (label, _), _ in zip(drawn, colours, strict=False)]
        _add_legend(figure, axes, names, 2, more="dotted: train")
        save_figure(figure, root / path)
    return path


def _add_legend(
    figure: Figure, axes: Axes, names: Sequence[str], columns: int, more: str = ""
) -> None:
    """Add a legend for the first lines, including names that start with _."""
    lines = list(axes.get_lines()[: len(names)])
    if more:
        lines += axes.plot([], [], color=GREY, linestyle=":")
    labels = [shorten_name(name) for name in names] + [more] * bool(more)
    figure.legend(lines, labels, loc="outside lower center", ncols=columns)


def _band(losses: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the mean, minimum and maximum over the seeds, for epochs reached by all seeds."""
    by_epoch = losses.groupby("epoch")[column]
    count = by_epoch.count()
    band = pd.DataFrame({"mean": by_epoch.mean(), "min": by_epoch.min(), "max": by_epoch.max()})
    return band[count == count.max()]


def _draw_band(axes: Axes, table: pd.DataFrame, colour: str, style: str) -> None:
    axes.plot(table.index, table["mean"], color=colour, linestyle=style)
    axes.fill_between(table.index, table["min"], table["max"], color=colour, alpha=0.15)
