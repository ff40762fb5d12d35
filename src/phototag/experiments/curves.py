"""The figures of the page: losses over epochs."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from phototag.experiments.collection import RESULTS
from phototag.experiments.verdicts import Trial
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
    write_name,
)

REPORT_PRIOR = 0.2106  # of the report's 20 000 photos, from their label files
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800")
STYLES = ("-", "--", "-.")  # of the first eight variants, of the next ...
# Figure -> its title, networks of report_curves.csv, and the variants beside them, where they ran.
BESIDE = {
    "beside-report": (
        "The final network's losses, and those of this project's own configuration",
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
    """Draw the val losses of a claim's variants: means over seeds, and their ranges.

    Args:
        path: A PNG.
        title: Over the figure.
        trial: Of `list_trials`; knows the loss of the prior.
        curves: The rows of curves.csv of these runs.
    """
    there = [variant for variant in trial.claim.variants if variant in set(curves["variant"])]
    with figure_style([title, *there]):
        figure, axes = new_figure(title, "epoch", "val loss (nats)")
        for number, variant in enumerate(there):
            again, colour = divmod(number, len(COLOURS))
            band = _band(curves[curves["variant"] == variant], "val_loss")
            _draw_band(axes, band, COLOURS[colour], STYLES[again])
        prior = trial.runs["prior_loss"].iloc[0]
        axes.axhline(prior, color=GREY, linestyle=":")
        # What overfits leaves the picture at the top: each variant's best epoch is of interest.
        best = curves.groupby("variant")["val_loss"].min()
        axes.set_ylim(best.min() * 0.97, max(prior, best.max()) * 1.35)
        columns = 4 if max(map(len, there)) < 16 else 3
        _add_legend(figure, axes, [*there, "always the prior"], columns)
        save_figure(figure, path)


def draw_beside_report(root: Path, runs: pd.DataFrame, curves: pd.DataFrame, name: str) -> Path:
    """Draw our losses beside the report's own, each divided by the loss of its photos' prior.

    Args:
        root: The repository.
        runs: Of runs.csv; knows each set of photos' prior loss.
        curves: Of curves.csv.
        name: Of the figure, in `BESIDE`.

    Returns:
        The figure's path, in the repository.
    """
    _, networks, variants = BESIDE[name]
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
    with figure_style(label for label, _ in drawn):
        figure, axes = new_figure(
            "1 is always predicting the prior", "epoch", "loss / loss of the prior"
        )
        for column, style in (("val_loss", "-"), ("train_loss", ":")):
            for (_, losses), colour in zip(drawn, colours, strict=False):
                line = _band(losses.assign(ratio=losses[column] / losses["prior"]), "ratio")["mean"]
                axes.plot(line, color=colour, linestyle=style)
        axes.set_ylim(0, 1.5)
        names = [label for (label, _), _ in zip(drawn, colours, strict=False)]
        _add_legend(figure, axes, names, 2, more="dotted: on train")
        save_figure(figure, root / path)
    return path


def _add_legend(
    figure: Figure, axes: Axes, names: Sequence[str], columns: int, more: str = ""
) -> None:
    """Name the first lines; Matplotlib's own way leaves out names that begin with _."""
    lines = list(axes.get_lines()[: len(names)])
    if more:
        lines += axes.plot([], [], color=GREY, linestyle=":")
    labels = [write_name(name) for name in names] + [more] * bool(more)
    figure.legend(lines, labels, loc="outside lower center", ncols=columns)


def _band(losses: pd.DataFrame, column: str) -> pd.DataFrame:
    """Summarize seeds for each epoch, as long as all of them train: fewer would make it jump."""
    by_epoch = losses.groupby("epoch")[column]
    count = by_epoch.count()
    band = pd.DataFrame({"mean": by_epoch.mean(), "min": by_epoch.min(), "max": by_epoch.max()})
    return band[count == count.max()]


def _draw_band(axes: Axes, table: pd.DataFrame, colour: str, style: str) -> None:
    axes.plot(table.index, table["mean"], color=colour, linestyle=style)
    axes.fill_between(table.index, table["min"], table["max"], color=colour, alpha=0.15)
