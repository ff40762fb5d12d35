"""docs/results.md: what the experiments say about the report's claims."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from scipy.stats import t as student

from phototag.errors import InputError
from phototag.experiments import DRAWN, RESULTS, RUN, Claim, Expectation, Experiments, flatten
from phototag.figures import BLUE, GREEN, GREY, ORANGE, STYLE, new_figure, save_figure
from phototag.files import write_text

PAGE = Path("docs/results.md")
SLIGHT, LITTLE = 0.25, 0.2  # shares of what the first variant gains over the prior
REFERENCE = "report"  # the variant that is the report's network
REPORT_PRIOR = 0.2106  # of the report's 20 000 photos, from their label files
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800")
STYLES = ("-", "--", "-.")  # of the first eight variants, of the next ...
# Figure -> its title, networks of the report, and the variants beside them.
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
SHOWN = {"val_loss": "val loss", "test_f1_micro": "micro F1", "test_f1_macro": "macro F1"}


def read_runs(root: Path) -> pd.DataFrame:
    """Read docs/results/runs.csv; without it, an empty table."""
    return _read_table(root, "runs", RUN)


def _read_table(root: Path, name: str, columns: Sequence[str] = ()) -> pd.DataFrame:
    path = root / RESULTS / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(columns))


def judge_losses(losses: pd.DataFrame) -> tuple[float, str | None]:
    """Compare losses of two variants, seed by seed.

    Better or worse is what differs in the same direction for every seed, by more on average than
    the differences spread (largest less smallest), and slightly so where that is less than
    `SLIGHT` of what the first gains over always predicting the prior. All else is similar; but a
    variant that gains less than `LITTLE` of that barely learns.

    Args:
        losses: Row a seed; columns first, variant and prior, in nats.

    Returns:
        The mean difference, and the verdict; None where fewer than two seeds have both.
    """
    both = losses.dropna()
    differences = both["variant"] - both["first"]
    mean = float(differences.mean())
    if len(both) < 2:
        return mean, None
    gains = both[["first", "variant"]].rsub(both["prior"], axis=0).mean()
    if abs(gains["variant"]) < LITTLE * gains["first"]:
        return mean, "barely learns"
    agree = (np.sign(differences) == np.sign(mean)).all()
    if not agree or abs(mean) <= differences.max() - differences.min():
        return mean, "similar"
    slight = "slightly " if abs(mean) < SLIGHT * gains["first"] else ""
    return mean, slight + ("worse" if mean > 0 else "better")


def predict_range(values: pd.Series) -> tuple[float, float]:
    """Compute where one more run lies with a probability of 95 %.

    The prediction interval of a normal distribution whose mean and deviation are estimated:
    mean +- t(0.975, n - 1) * s * sqrt(1 + 1/n) (Hahn and Meeker, Statistical Intervals, 1991).

    Args:
        values: One score of n >= 2 runs.

    Returns:
        Lower and upper end.
    """
    n = len(values)
    half = float(student.ppf(0.975, n - 1) * values.std() * np.sqrt(1 + 1 / n))
    return float(values.mean()) - half, float(values.mean()) + half


def compare_with_tracked(rows: pd.DataFrame, tracked: pd.DataFrame) -> str:
    """Tell each run's scores beside those in docs/results/, their spread, and what to expect."""
    lines = []
    for row in rows.to_dict("records"):
        same = tracked[
            (tracked["photos"] == row["photos"]) & (tracked["variant"] == row["variant"])
        ]
        lines.append(f"{row['photos']}-{row['variant']}-s{row['seed']}")
        for key, title in SHOWN.items():
            told = f"  {title:<9} {row[key]:.4f}"
            if len(same):
                told += f"   tracked over {len(same)} seeds: {_format_spread(same[key], 4)}"
            if len(same) > 2:  # of two, it is wider than any score can be
                low, high = predict_range(same[key])
                within = "within" if low <= row[key] <= high else "NOT within"
                told += f"   {within} {max(low, 0):.3f} to {high:.3f}"
            lines.append(told)
    return "\n".join(lines)


def write_results(root: Path, experiments: Experiments) -> None:
    """Write docs/results.md and its figures from docs/results/runs.csv and curves.csv.

    Raises:
        InputError: No experiment has been collected yet.
    """
    runs = read_runs(root)
    if runs.empty:
        raise InputError(f"{RESULTS} holds no runs yet: `phototag experiments` lists what to run")
    curves = pd.read_csv(root / RESULTS / "curves.csv")
    sections = []
    for name, claim in experiments.claims.items():
        for photos in dict.fromkeys(runs.loc[runs["variant"].isin(claim.variants), "photos"]):
            ours = runs[(runs["photos"] == photos) & runs["variant"].isin(claim.variants)]
            if set(claim.variants[:1]) < set(ours["variant"]):
                sections.append((name, claim, photos, ours))
    with rc_context(STYLE):
        write_text(root / PAGE, "\n".join(_write_page(root, experiments, sections, curves)) + "\n")


def _write_page(
    root: Path,
    experiments: Experiments,
    sections: Sequence[tuple[str, Claim, str, pd.DataFrame]],
    curves: pd.DataFrame,
) -> Iterator[str]:
    yield from _introduce()
    if experiments.note:
        yield f"\n## What was run, and what was cut\n\n{_wrap(experiments.note)}"
    yield "\n## Claims"
    yield from _summarize(sections)
    for figure_name, (title, networks, variants) in BESIDE.items():
        beside = draw_beside_report(root, read_runs(root), curves, figure_name, networks, variants)
        yield f"\n{title}:\n\n![{title}]({beside.relative_to(PAGE.parent)})"
    epoch_times = _read_epoch_times(root, experiments)
    for name, claim, photos, runs in sections:
        title = name.replace("-", " ").capitalize()
        drawn = " (drawn photos)" if photos == DRAWN else ""
        yield f"\n## {title}: {photos}{drawn}\n\n> {claim.says}\n"
        if claim.note:
            yield f"{_wrap(claim.note)}\n"
        own = curves[(curves["photos"] == photos) & curves["variant"].isin(claim.variants)]
        yield from _tabulate(claim, runs, own, epoch_times)
        figure = RESULTS / f"{name}-{photos}.png"
        _draw_curves(root / figure, f"{title}: {photos}", claim, own, runs["prior_loss"].iloc[0])
        yield f"\n![Val loss over epochs]({figure.relative_to(PAGE.parent)})"
        yield _command(*_name_commands(name, claim, photos, runs))
    yield from _tell_times(root)
    yield from _tell_alternatives(root)
    yield from _tell_label_noise(root)


def _name_commands(name: str, claim: Claim, photos: str, runs: pd.DataFrame) -> Iterator[str]:
    """Name what runs a claim again, what runs one row again, and what compares two curves."""
    command = f"phototag experiments {name}" + (
        "" if photos == DRAWN else f" --photos {photos}.zip"
    )
    seeds = runs.groupby("variant")["seed"].agg(set)
    first, *_, last = [variant for variant in claim.variants if variant in seeds]
    shared = seeds[first] & seeds[last]
    yield command
    yield f"{command} --variant {last} --seed {min(shared or seeds[last])}"
    if shared:
        seed = min(shared)
        yield f"dvc plots diff {photos}-{first}-s{seed} {photos}-{last}-s{seed}"


def _read_epoch_times(root: Path, experiments: Experiments) -> dict[str, float]:
    """Read what an epoch takes of the variants whose like was measured.

    Alike are those that differ in nothing but epochs.
    """
    table = _read_table(root, "networks", ["variant", "time"])
    measured = {
        name: _without_epochs(experiments.variants[name])
        for name in table["variant"]
        if name in experiments.variants
    }
    times = dict(zip(table["variant"], table["time"], strict=True))
    return {
        variant: times[name]
        for variant, params in experiments.variants.items()
        for name, alike in measured.items()
        if _without_epochs(params) == alike
    }


def _without_epochs(params: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flatten(params) if key != "epochs"}


def _tell_times(root: Path) -> Iterator[str]:
    """Put the training time of networks side by side, where it was measured."""
    table = _read_table(root, "networks")
    if table.empty:
        return
    yield "\n## Time\n"
    yield _wrap(
        f"""Training, and the time of an epoch beside `{table["variant"].iloc[0]}`: medians of turns
        in one run on {table["processor"].iloc[0]}."""
    )
    yield _command(f"python -m benchmarks.networks {' '.join(table['variant'])}")
    yield "\n| variant | images/s | time of an epoch |\n|---|---|---|"
    for row in table.to_dict("records"):
        yield f"| {row['variant']} | {row['images_per_second']:.0f} | {row['time']:.2f} |"


def _tell_alternatives(root: Path) -> Iterator[str]:
    """Put other libraries beside this project, where that was measured."""
    table = _read_table(root, "alternatives")
    if table.empty:
        return
    one = table.iloc[0]
    ours = table.loc[table["side"].str.startswith("phototag"), "seconds"].iloc[0]
    yield "\n## What a user could pick instead\n"
    yield _wrap(
        f"""The same photos, split and batch size, and for the report's network the same learning
        rate and weight decay, in one run of one seed on {one["processor"]}. An epoch is training
        and the pass over val. Val loss and micro F1 at 0.5 on val are of the best epoch for each,
        not always one. The libraries decode JPEGs in worker processes in each epoch, as is usual
        with them; here the pipeline decoded them once, before the clock starts, and trains in
        bfloat16 where the processor has it. fastai's Adam takes weight decay off the weights, and
        its Resize crops photos at random in training. Lines are those that a user writes: here the
        one of params.yaml that names the photos, and for this project's own configuration also
        `dvc exp apply`, or its variant in experiments.yaml."""
    )
    yield _command(f"python -m benchmarks.alternatives {one['photos']}.zip")
    yield (
        "\n| | seconds an epoch | range | times phototag's | epochs | seconds in all | val loss "
        "| micro F1 | lines |\n|---|---|---|---|---|---|---|---|---|"
    )
    for row in table.to_dict("records"):
        yield (
            f"| {row['side']} | {row['seconds']:.1f} | {row['fastest']:.1f}-{row['slowest']:.1f} "
            f"| {row['seconds'] / ours:.2f} | {row['epochs']} | {row['total']:.0f} "
            f"| {row['val_loss']:.4f} | {row['f1_micro']:.3f} | {row['lines']} |"
        )


def _tell_label_noise(root: Path) -> Iterator[str]:
    """Tell how many labels are likely wrong, and scores without them, where that was measured."""
    table = _read_table(root, "label_noise")
    if table.empty:
        return
    yield "\n## Label noise and near duplicates\n"
    yield _wrap(
        """Likely label errors on test (confident learning, see
        [evaluation.md](evaluation.md)), and F1 with them and near duplicates set aside. What one
        network calls an error is set aside for the other: one that chose what it is not judged on
        would always gain. Still, both learnt from the same photos, so take a gain as an upper
        bound; where its sign changes between seeds, there is none to speak of."""
    )
    pairs = table.loc[table["variant"] != REFERENCE, ["photos", "variant"]].drop_duplicates()
    yield _command(f"python -m benchmarks.label_noise {' '.join(pairs.agg('/'.join, axis=1))}")
    yield (
        "\n| photos | judged | by the errors of | seeds | likely errors, of decisions "
        "| of these, a label missing | near duplicates: all photos, test "
        "| micro F1 | Δ set aside | macro F1 | Δ set aside |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|"
    )
    names = ["photos", "variant", "judge"]
    for _, own in table.groupby(names, sort=False):
        mean = own.drop(columns=names).mean()
        errors, decisions = mean["label_errors"], mean["decisions"]
        cells = [
            *own[names].iloc[0],
            str(len(own)),
            f"{errors:.0f} of {decisions:.0f} ({errors / decisions:.1%})",
            f"{mean['missing_labels']:.0f}",
            f"{mean['duplicates_in_all']:.0f}, {mean['duplicates_on_test']:.0f}",
        ]
        for key in ("f1_micro", "f1_macro"):
            gains = own[f"{key}_clean"] - own[f"{key}_all"]
            cells += [_format_spread(own[f"{key}_all"], 3), _format_spread(gains, 3, "+")]
        yield f"| {' | '.join(cells)} |"


def _command(*lines: str) -> str:
    return "\n".join(["\n```bash", *lines, "```"])


def _wrap(text: str) -> str:
    return fill(" ".join(text.split()), 100, break_long_words=False, break_on_hyphens=False)


def _introduce() -> Iterator[str]:
    yield "# Results\n"
    yield _wrap(
        """Written by `phototag results` from the tables in `docs/results/`, which
        `phototag experiments` and `benchmarks/` fill. [experiments.yaml](../experiments.yaml) has
        the claims, and what each variant changes in params.yaml."""
    )
    yield "\n## How to read it\n"
    for point in _explain():
        yield _wrap(f"- {point}").replace("\n", "\n  ")


def _explain() -> Iterator[str]:
    yield """`mirflickr-2500` are 2 500 of the report's own photos, an eighth of its number;
        `coco-20000` has its number of photos and 18 other labels; `drawn` is the sample that the
        repository draws. Photos cannot be shipped. The first are those of MIRFLICKR that
        [mirflickr-2500.txt](results/mirflickr-2500.txt) numbers, short side to 128 pixels, centre
        crop, with the course's labels; `phototag import` makes a zip of such a folder."""
    yield """A run is one seed: of the split, the first weights and all that is drawn in training.
        Figures are means over seeds, with the smallest and largest. Δ is how far a variant is from
        the first, on the seeds that both ran."""
    yield """Val loss is the mean binary cross entropy, in nats, of the best epoch, beside that of
        always predicting each label's rate on train, and of the last epoch. F1 is on test, at
        thresholds chosen on val; the best F1 on val at 0.5, as in the report, may be another
        epoch's. Training time is an epoch's (see Time) by the number of epochs trained."""
    yield """"of 40" is the most epochs that a seed trained: most variants on mirflickr-2500 stop 10
        epochs after their best."""
    yield f"""A variant is better or worse than the first where its val loss differs in the same
        direction for every seed, by more on average than the differences spread; slightly so where
        by less than {SLIGHT:.0%} of what the first gains over the prior; else it is similar. It
        barely learns where its own gain is under {LITTLE:.0%} of that. "Slightly worse" fits a
        report that says "similar" and one that says "worse"."""
    yield """This is no test of significance: with two seeds it sees a difference where there is
        none in 29 of 100 cases, with three in 8 (for normal noise)."""
    yield """Another machine, or another number of threads, rounds differently, and a rerun then
        comes out like another seed. `phototag experiments` prints it beside the tracked runs and,
        from three seeds on, the range in which 95% of further runs are expected."""


def _summarize(sections: Sequence[tuple[str, Claim, str, pd.DataFrame]]) -> Iterator[str]:
    yield "\n| claim | photos | seeds | in words | here |\n|---|---|---|---|---|"
    for name, claim, photos, runs in sections:
        count = runs.groupby("variant")["seed"].nunique()
        seeds = "-".join(dict.fromkeys(map(str, (count.min(), count.max()))))
        yield f"| {name} | {photos} | {seeds} | {claim.says} | {_answer(claim, runs)} |"


def _answer(claim: Claim, runs: pd.DataFrame) -> str:
    """Say whether the claim holds, or part of it; of one that expects nothing, the figures."""
    if not claim.expect:
        means = runs.assign(ratio=runs["val_loss"] / runs["prior_loss"]).groupby("variant")
        ratios, f1 = means["ratio"].mean(), means["val_f1_micro_at_0.5"].mean()
        return "; ".join(
            f"{variant}: val loss {ratios[variant]:.2f} of the prior's, micro F1 at 0.5 on val "
            f"{f1[variant]:.2f}"
            for variant in claim.variants
            if variant in ratios
        )
    told = dict(_judge_all(claim, runs))
    alike: dict[str, list[str]] = {}
    for variant, (difference, verdict) in told.items():
        if verdict is None:
            alike.setdefault("one seed, not judged", []).append(f"{variant} {difference:+.4f}")
        else:
            alike.setdefault(verdict, []).append(variant)
    words = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in alike.items())
    judged = {v: verdict for v in claim.expect if (verdict := told.get(v, (0.0, None))[1])}
    if not judged:
        return words
    right = sum(_fits(claim.expect[variant], verdict) for variant, verdict in judged.items())
    if right == len(claim.expect):
        return f"**holds**. {words}"
    if right == len(judged):
        return f"holds as far as it was run. {words}"
    return f"{'holds in part' if right else '**does not hold**'}. {words}"


def _fits(expected: Expectation, verdict: str) -> bool:
    if expected == "similar":
        return verdict == "similar" or verdict.startswith("slightly")
    return verdict.endswith(expected) or (expected == "worse" and verdict == "barely learns")


def _judge_all(claim: Claim, runs: pd.DataFrame) -> Iterator[tuple[str, tuple[float, str | None]]]:
    losses = runs.pivot(index="seed", columns="variant", values="val_loss")
    prior = runs.groupby("seed")["prior_loss"].first()
    for variant in claim.variants[1:]:
        if variant in losses:
            first = losses[claim.variants[0]]
            table = pd.DataFrame({"first": first, "variant": losses[variant], "prior": prior})
            yield variant, judge_losses(table)


def _tabulate(
    claim: Claim, runs: pd.DataFrame, curves: pd.DataFrame, epoch_times: Mapping[str, float]
) -> Iterator[str]:
    titles = [
        "variant",
        "parameters",
        "seeds",
        "best epoch",
        "val loss",
        "of the prior's",
        "Δ val loss",
        "last val loss",
        "micro F1",
        "macro F1",
        "micro F1 at 0.5, val",
    ]
    ran = [variant for variant in claim.variants if variant in set(runs["variant"])]
    timed = len(epoch_times.keys() & set(ran)) > 1 and ran[0] in epoch_times
    if timed:
        titles.append("training time")
    yield f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|"
    told = dict(_judge_all(claim, runs))
    first = runs[runs["variant"] == claim.variants[0]].set_index("seed")
    ends = curves.sort_values("epoch").groupby(["variant", "seed"])["val_loss"].last()
    for variant in ran:
        own = runs[runs["variant"] == variant].set_index("seed")
        difference, verdict = told.get(variant, (0.0, None))
        f1 = {key: _format_spread(own[key], 3) for key in ("test_f1_micro", "test_f1_macro")}
        if variant in told:
            f1 = {
                key: f"{text} Δ {(own[key] - first[key]).mean():+.3f}" for key, text in f1.items()
            }
        cells = [
            variant,
            f"{own['num_parameters'].iloc[0] / 1e6:.1f} M",
            str(len(own)),
            f"{_format_spread(own['best_epoch'], 0)} of {own['epochs'].max()}",
            _format_spread(own["val_loss"], 4),
            f"{(own['val_loss'] / own['prior_loss']).mean():.3f}",
            f"{difference:+.4f} {verdict or 'open'}" if variant in told else "",
            _format_spread(ends[variant], 3),
            *f1.values(),
            _format_spread(own["val_f1_micro_at_0.5"], 3),
        ]
        if timed:
            seconds = {
                name: epoch_times.get(name, float("nan")) * table["epochs"].mean()
                for name, table in ((variant, own), (ran[0], first))
            }
            ratio = seconds[variant] / seconds[ran[0]]
            cells.append("" if np.isnan(ratio) else f"{ratio:.2f}")
        yield f"| {' | '.join(cells)} |"


def _format_spread(values: pd.Series, digits: int, sign: str = "") -> str:
    mean, low, high = (
        f"{value:{sign}.{digits}f}" for value in (values.mean(), values.min(), values.max())
    )
    if len(values) == 1:
        return mean
    return f"{mean} ({low} to {high})" if sign else f"{mean} ({low}-{high})"


def _draw_curves(path: Path, title: str, claim: Claim, curves: pd.DataFrame, prior: float) -> None:
    figure, axes = new_figure(title, "epoch", "val loss (nats)")
    there = [variant for variant in claim.variants if variant in set(curves["variant"])]
    for number, variant in enumerate(there):
        again, colour = divmod(number, len(COLOURS))
        band = _band(curves[curves["variant"] == variant], "val_loss")
        _draw_band(axes, band, variant, COLOURS[colour], STYLES[again])
    axes.axhline(prior, color=GREY, linestyle=":", label="always the prior")
    # What overfits leaves the picture at the top: each variant's best epoch is of interest.
    best = curves.groupby("variant")["val_loss"].min()
    axes.set_ylim(best.min() * 0.97, max(prior, best.max()) * 1.35)
    figure.legend(loc="outside lower center", ncols=4 if max(map(len, there)) < 16 else 3)
    save_figure(figure, path)


def _band(losses: pd.DataFrame, column: str) -> pd.DataFrame:
    """Summarize seeds for each epoch, as long as all of them train: fewer would make it jump."""
    by_epoch = losses.groupby("epoch")[column]
    count = by_epoch.count()
    band = pd.DataFrame({"mean": by_epoch.mean(), "min": by_epoch.min(), "max": by_epoch.max()})
    return band[count == count.max()]


def _draw_band(axes: Axes, table: pd.DataFrame, label: str, colour: str, style: str) -> None:
    axes.plot(table.index, table["mean"], color=colour, linestyle=style, label=label)
    axes.fill_between(table.index, table["min"], table["max"], color=colour, alpha=0.15)


def draw_beside_report(
    root: Path,
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    name: str,
    networks: Sequence[str],
    variants: Sequence[str],
) -> Path:
    """Draw our losses beside the report's own, each divided by the loss of its photos' prior.

    Args:
        root: The repository.
        runs: Of runs.csv; knows each set of photos' prior loss.
        curves: Of curves.csv.
        name: Of the figure.
        networks: Of report_curves.csv.
        variants: To draw beside them, where they ran.

    Returns:
        The figure's path, in the repository.
    """
    reported = pd.read_csv(root / RESULTS / "report_curves.csv").assign(prior=REPORT_PRIOR)
    priors = runs.groupby("photos")["prior_loss"].mean()
    figure, axes = new_figure(
        "1 is always predicting the prior", "epoch", "loss / loss of the prior"
    )
    drawn = [
        (f"the report: {network}", reported[reported["network"] == network]) for network in networks
    ]
    for photos in dict.fromkeys(runs["photos"]):
        for variant in variants:
            own = curves[(curves["photos"] == photos) & (curves["variant"] == variant)]
            if len(own):
                drawn.append((f"{photos}: {variant}", own.assign(prior=priors[photos])))
    colours = ["black", GREY][: len(networks)] + list(COLOURS)
    for (label, losses), colour in zip(drawn, colours, strict=False):
        for column, style in (("val_loss", "-"), ("train_loss", ":")):
            line = _band(losses.assign(ratio=losses[column] / losses["prior"]), "ratio")["mean"]
            axes.plot(line, color=colour, linestyle=style, label=label if style == "-" else None)
    axes.plot([], [], color=GREY, linestyle=":", label="dotted: on train")
    axes.set_ylim(0, 1.5)
    figure.legend(loc="outside lower center", ncols=2)
    path = RESULTS / f"{name}.png"
    save_figure(figure, root / path)
    return path
