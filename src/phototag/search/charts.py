"""The figures of a study."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from phototag.pages.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    Figure,
    new_figure,
    shorten_name,
)

SHOWN = 12  # keys of a figure
COLUMNS = 3  # panels side by side


def draw_history(table: pd.DataFrame, objective: str, rises: bool) -> Figure:
    """Draw each trial's score, and the best so far.

    Args:
        table: Of `report.tabulate_trials`.
        objective: Its name.
        rises: Whether more is better.
    """
    figure, axes = new_figure("Trials", "trial", f"{objective} on val")
    done, pruned = (table[table["state"] == state] for state in ("complete", "pruned"))
    axes.scatter(done["trial"], done["score"], s=18, color=BLUE, label="came to its end")
    if pruned["score"].notna().any():
        axes.scatter(
            pruned["trial"], pruned["score"], s=14, color=GREY, marker="x", label="ended early"
        )
    best = done["score"].cummax() if rises else done["score"].cummin()
    axes.step(done["trial"], best, color=ORANGE, where="post", label="best so far")
    if len(done):
        # Of the first trials some are hopeless, and would leave the others no room.
        far = done["score"].quantile(0.05 if rises else 0.95)
        low, high = sorted([far, best.iloc[-1]])
        room = (high - low) or abs(high) * 0.05 or 1.0
        axes.set_ylim(low - 0.15 * room, high + 0.15 * room)
    axes.legend()
    return figure


def draw_importance(importance: Mapping[str, float]) -> Figure:
    """Draw how much of the scores' variance each key explains.

    Args:
        importance: Key -> share, largest first.
    """
    figure, axes = new_figure("Importance (fANOVA)", "share of the variance of scores", "")
    shown = list(importance.items())[:SHOWN][::-1]
    axes.barh([shorten_name(key) for key, _ in shown], [share for _, share in shown], color=BLUE)
    axes.set_xlim(0, 1)
    return figure


def draw_slices(table: pd.DataFrame, keys: Sequence[str], objective: str) -> Figure:
    """Draw scores over each key's values, a panel a key.

    Args:
        table: Of `report.tabulate_trials`.
        keys: Columns of the table.
        objective: Its name.
    """
    rows = -(-len(keys) // COLUMNS)
    figure = Figure(figsize=(3.6 * COLUMNS, 2.9 * rows), layout="constrained")
    done = table[table["state"] == "complete"]
    order = done["trial"].to_numpy()
    for position, key in enumerate(keys):
        axes = figure.add_subplot(rows, COLUMNS, position + 1)
        known = done[key].notna().to_numpy()
        own = done[known]
        places, labels = place_values(own[key])
        axes.scatter(places, own["score"], s=12, c=order[known], cmap="viridis")
        if labels:
            axes.set_xticks(range(len(labels)), labels, rotation=20, ha="right", fontsize=8)
        elif spans_decades(own[key]):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")  # by default these are formulas
        axes.set_xlabel(shorten_name(key))
        axes.set_ylabel(objective if position % COLUMNS == 0 else "")
    return figure


def draw_parallel(table: pd.DataFrame, keys: Sequence[str], objective: str, rises: bool) -> Figure:
    """Draw each trial as a line through its values, the best ones on top, in colour.

    Args:
        table: Of `report.tabulate_trials`.
        keys: Columns of the table.
        objective: Its name.
        rises: Whether more is better.
    """
    done = table[table["state"] == "complete"].sort_values("score", ascending=rises)
    figure = Figure(figsize=(max(6.4, 1.5 * (len(keys) + 1)), 4.4), layout="constrained")
    axes = figure.add_subplot(title="Settings of the trials, the best tenth in colour")
    places = [_scale(done[key]) for key in keys] + [_scale(done["score"])]
    lines = np.array(places).T
    best = max(1, len(done) // 10)
    for number, line in enumerate(lines):
        top = number >= len(lines) - best
        colour = GREEN if top else GREY
        axes.plot(line, color=colour, alpha=0.9 if top else 0.2, zorder=3 if top else 1)
    names = [shorten_name(key) for key in keys] + [objective]
    axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
    axes.set_yticks([0, 1], ["lowest", "highest"])
    return figure


def place_values(values: pd.Series) -> tuple[Sequence[float], list[str]]:
    """Return where values stand on an axis; of words, in the alphabet's order, also the ticks."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return [float(value) for value in values], []
    words = values.map(str)
    names = sorted(set(words))
    return [names.index(word) for word in words], [shorten_name(name) for name in names]


def spans_decades(values: pd.Series) -> bool:
    """Say whether numbers reach over so much that they want a logarithmic axis."""
    return len(values) > 0 and values.min() > 0 and bool(values.max() / values.min() > 30)


def _scale(values: pd.Series) -> np.ndarray:
    """Bring a column to 0..1; what a trial does not have is left out."""
    known = values.notna()
    places, labels = place_values(values[known])
    scaled = np.full(len(values), np.nan)
    found = np.array(places, dtype=float)
    if not labels and len(found) and spans_decades(pd.Series(found)):
        found = np.log(found)
    span = float(np.ptp(found)) if len(found) else 0.0
    scaled[known.to_numpy()] = (found - found.min()) / span if span else 0.5
    return scaled
