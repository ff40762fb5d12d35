"""docs/results.md: what the experiments say about the report's claims."""

from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from phototag.base.errors import InputError
from phototag.base.files import write_text
from phototag.experiments.claims import DRAWN, REFERENCE, Experiments
from phototag.experiments.collection import RESULTS, read_runs, read_table
from phototag.experiments.curves import BESIDE, draw_beside_report, draw_curves
from phototag.experiments.tables import (
    match_epoch_times,
    tabulate_alternatives,
    tabulate_claims,
    tabulate_label_noise,
    tabulate_times,
    tabulate_variants,
)
from phototag.experiments.verdicts import LITTLE, SLIGHT, Trial, list_trials
from phototag.pages.cells import escape_markdown

PAGE = Path("docs/results.md")


def write_results(root: Path, experiments: Experiments) -> None:
    """Write docs/results.md and its figures from the tables in docs/results/.

    Raises:
        InputError: No experiment has been collected yet.
    """
    runs = read_runs(root)
    if runs.empty:
        raise InputError(f"{RESULTS} holds no runs yet: `phototag experiments` lists what to run")
    curves = pd.read_csv(root / RESULTS / "curves.csv")
    networks = read_table(root, "networks", ["variant", "time"])
    epoch_times = match_epoch_times(networks, experiments)
    label_noise = read_table(root, "label_noise", ["photos", "variant"])
    judged = label_noise.loc[label_noise["variant"] != REFERENCE, ["photos", "variant"]]
    trials = list_trials(experiments, runs)
    beside = [
        {"title": title, "path": _link(draw_beside_report(root, runs, curves, name))}
        for name, (title, _, _) in BESIDE.items()
    ]
    # HTML's escaping is none of Markdown's: names are escaped where they are written.
    environment = Environment(
        loader=PackageLoader("phototag.experiments"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["wrap"] = _wrap
    text = environment.get_template("results.md.j2").render(
        slight=f"{SLIGHT:.0%}",
        little=f"{LITTLE:.0%}",
        note=experiments.note,
        trials=tabulate_claims(trials),
        beside=beside,
        sections=[_describe_trial(root, trial, curves, epoch_times) for trial in trials],
        networks=networks,
        tabulate_times=tabulate_times,
        alternatives=read_table(root, "alternatives"),
        tabulate_alternatives=tabulate_alternatives,
        label_noise=label_noise,
        judged=["/".join(pair) for pair in judged.drop_duplicates().itertuples(index=False)],
        tabulate_label_noise=tabulate_label_noise,
    )
    write_text(root / PAGE, text)


def _describe_trial(
    root: Path, trial: Trial, curves: pd.DataFrame, epoch_times: dict[str, float]
) -> dict[str, Any]:
    """Draw the figure of a trial, and return what the template says of it."""
    claim, photos = trial.claim, trial.photos
    title = f"{trial.name.replace('-', ' ').capitalize()}: {photos}"
    own = curves[(curves["photos"] == photos) & curves["variant"].isin(claim.variants)]
    figure = RESULTS / f"{trial.name}-{photos}.png"
    draw_curves(root / figure, title, trial, own)
    return {
        "title": escape_markdown(f"{title} (drawn photos)" if photos == DRAWN else title),
        "claim": claim,
        "table": tabulate_variants(trial, own, epoch_times),
        "figure": _link(figure),
        "commands": _name_commands(trial),
    }


def _name_commands(trial: Trial) -> list[str]:
    """Name what runs a claim again, what runs one row again, and what compares two curves."""
    photos = trial.photos
    command = f"phototag experiments {trial.name}" + (
        "" if photos == DRAWN else f" --photos {photos}.zip"
    )
    seeds = trial.runs.groupby("variant")["seed"].agg(set)
    first, *_, last = [variant for variant in trial.claim.variants if variant in seeds]
    shared = seeds[first] & seeds[last]
    commands = [command, f"{command} --variant {last} --seed {min(shared or seeds[last])}"]
    if shared:
        seed = min(shared)
        commands.append(f"dvc plots diff {photos}-{first}-s{seed} {photos}-{last}-s{seed}")
    return commands


def _link(path: Path) -> str:
    return path.relative_to(PAGE.parent).as_posix()


def _wrap(text: str) -> str:
    return fill(" ".join(text.split()), 100, break_long_words=False, break_on_hyphens=False)
