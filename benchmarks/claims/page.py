"""Generation of the results page, docs/research/results.md."""

from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from benchmarks.claims.claims import REFERENCE, SYNTHETIC_NAME, Experiments
from benchmarks.claims.collection import RESULTS, check_data, read_runs, read_table
from benchmarks.claims.curves import COMPARED, draw_curves, draw_with_report
from benchmarks.claims.tables import (
    match_epoch_times,
    tabulate_alternatives,
    tabulate_claims,
    tabulate_label_noise,
    tabulate_times,
    tabulate_variants,
)
from benchmarks.claims.verdicts import LITTLE, SLIGHT, Trial, list_trials
from phototag.base.errors import InputError
from phototag.base.files import write_text
from phototag.pages.escaping import escape_markdown

PAGE = Path("docs/research/results.md")


def write_results(root: Path, experiments: Experiments) -> None:
    """Write docs/research/results.md and its figures from the tables in docs/research/results/.

    Raises:
        InputError: runs.csv is missing or empty, or mixes runs with different photos or labels.
    """
    runs = read_runs(root)
    if runs.empty:
        raise InputError(
            f"{RESULTS}/runs.csv has no runs: run `python -m benchmarks.claims run CLAIM`"
        )
    check_data(runs)
    curves = pd.read_csv(root / RESULTS / "curves.csv")
    networks = read_table(root, "networks", ["variant", "time"])
    epoch_times = match_epoch_times(networks, experiments)
    label_noise = read_table(root, "label_noise", ["photos", "variant"])
    judged = label_noise.loc[label_noise["variant"] != REFERENCE, ["photos", "variant"]]
    trials = list_trials(experiments, runs)
    compared = [
        {"title": title, "path": _link(draw_with_report(root, runs, curves, name))}
        for name, (title, _, _) in COMPARED.items()
    ]
    # Jinja can escape HTML only, so names are escaped for Markdown when tables are built.
    environment = Environment(
        loader=PackageLoader("benchmarks.claims"),
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
        compared=compared,
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
    """Draw the figure of a trial, and return the variables of its section in the template."""
    claim, photos = trial.claim, trial.photos
    title = f"{trial.name.replace('-', ' ').capitalize()}: {photos}"
    own = curves[(curves["photos"] == photos) & curves["variant"].isin(claim.variants)]
    figure = RESULTS / f"{trial.name}-{photos}.png"
    draw_curves(root / figure, title, trial, own)
    return {
        "title": escape_markdown(f"{title} dataset" if photos == SYNTHETIC_NAME else title),
        "claim": claim,
        "table": tabulate_variants(trial, own, epoch_times),
        "figure": _link(figure),
        "commands": _name_commands(trial),
    }


def _name_commands(trial: Trial) -> list[str]:
    """Return commands that run the claim, run a single variant, and compare two curves."""
    photos = trial.photos
    command = f"python -m benchmarks.claims run {trial.name}" + (
        "" if photos == SYNTHETIC_NAME else f" --photos {photos}.zip"
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
