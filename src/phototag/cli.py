"""The command line: `phototag --help`."""

import shlex
import socket
import subprocess
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from phototag.base.errors import InputError
from phototag.base.parallel import Backend

MODEL, THRESHOLDS = Path("models/model.safetensors"), Path("reports/evaluate/thresholds.json")
PORT = typer.Option(help="Of the server, on 127.0.0.1.", min=1, max=65535)
Format = Literal["table", "csv", "jsonl", "results", "coco", "labelstudio"]
SourceFormat = Literal[
    "numbered", "folders", "imagefolder", "coco", "labelstudio", "list", "tags", "one-hot"
]
Ranking = Literal["errors", "next", "duplicates"]
Nested = Literal["all", "outer", "inner"]

typer_app = typer.Typer(no_args_is_help=True, add_completion=False)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"phototag {metadata.version('phototag')}")
        raise typer.Exit


@typer_app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Classify photos with several labels per photo."""


def app() -> None:
    """Run the command line; the user's mistakes are told in one line, without a traceback."""
    try:
        typer_app()
    except InputError as error:
        sys.exit(f"error: {error}")


@typer_app.command("import")
def import_(
    source: Annotated[
        Path, typer.Argument(help="A folder or zip of photos, or a CSV or JSON that lists them.")
    ],
    to: Annotated[
        Path, typer.Option(help="A new zip or folder; a zip is one dependency for DVC.")
    ] = Path("data/raw.zip"),
    format_: Annotated[
        SourceFormat | None, typer.Option("--as", help="What SOURCE is, where it may be several.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="A list: the folder of its photos, if not beside it.")
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="A list: what separates labels in a cell.")
    ] = None,
    nested: Annotated[
        Nested | None, typer.Option(help="Folders in folders: which of them are labels.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="imN.jpg: where the label files are, if not in SOURCE.")
    ] = None,
    potential: Annotated[
        bool, typer.Option(help="MIRFLICKR: take CLASS.txt, not the stricter CLASS_r1.txt.")
    ] = False,
) -> None:
    """Bring your own photos into the layout that the pipeline reads, and name them in params.yaml.

    SOURCE is recognised by its content: numbered photos with label files, a folder a class, COCO
    instances, a Label Studio export, Hugging Face's imagefolder, or a CSV of labels, of tags, or
    of 0 and 1.
    """
    from phototag.importers.importer import import_photos
    from phototag.importers.recognition import Hints

    hints = Hints(format_, annotations, potential, images, separator, nested)
    summary = import_photos(source, to, hints)
    typer.echo(f"recognised as {summary.what}")
    for note in summary.notes:
        typer.echo(f"note: {note}")
    counts = ", ".join(f"{label} {count}" for label, count in summary.label_counts.items())
    typer.echo(f"{summary.num_images} photos in {summary.destination}: {counts}")
    if summary.unknown_counts:
        counts = ", ".join(f"{label} {count}" for label, count in summary.unknown_counts.items())
        typer.echo(f"not known: {counts}")
    typer.echo(_name_photos(summary.destination))


def _name_photos(photos: Path) -> str:
    """Write new photos' place into params.yaml, and tell the commands by which they are kept."""
    import yaml

    from phototag.experiments.recipes import update_params

    folder = Path.cwd()
    inside = photos.resolve().is_relative_to(folder)
    raw = str(photos.resolve().relative_to(folder) if inside else photos.resolve())
    key = yaml.safe_dump({"data.raw": raw}, allow_unicode=True, width=10_000).strip()
    try:
        update_params(Path("params.yaml"), {"data.raw": raw})
        lines = [f"params.yaml says `{key}` now."]
    except InputError as error:  # the photos are there all the same
        lines = [f"{error}; then write `{key}` into it."]
    if inside:  # DVC keeps only what lies in the project
        tracked = [f"{raw}.dvc"]
        ignored = subprocess.run(["git", "check-ignore", "-q", raw], check=False).returncode == 0
        if not ignored:  # then `dvc add` sees to it
            tracked.append(str(Path(raw).with_name(".gitignore")))
        # The copies that experiments run in hold what is committed; DVC empties git's index.
        commands = [["dvc", "add", raw], ["git", "add", *tracked]]
        commands.append(["git", "commit", "-m", "Add photos", *tracked])
        lines[0] += " Next, so that DVC and git keep the photos:"
        lines += [f"  {shlex.join(command)}" for command in commands]
    lines.append("Then `phototag recipe`, which lists settings to start from, and `dvc repro`.")
    return "\n".join(lines)


@typer_app.command()
def predict(
    sources: Annotated[
        list[str], typer.Argument(help="Photos, folders, patterns, or - for a list of paths.")
    ],
    format_: Annotated[
        Format, typer.Option("--format", "-f", help="Of the output; results is the course's.")
    ] = "table",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new file; by default the terminal.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an output whose writing was killed.")
    ] = False,
    backend: Annotated[
        Backend, typer.Option(help="Of joblib; dask and ray: a cluster that sees the same files.")
    ] = "sequential",
    model: Annotated[Path, typer.Option(help="Weights, of `train`.")] = MODEL,
    thresholds: Annotated[Path, typer.Option(help="Of `evaluate`.")] = THRESHOLDS,
) -> None:
    """Label photos with a local model file."""
    from phototag.apps import predictions
    from phototag.apps.formats import order_names
    from phototag.serving.tagger import load_tagger

    if output:
        _refuse_existing(output)
    elif resume:
        raise InputError("--resume goes on with an output: name it with --output")
    tagger = load_tagger(model, thresholds)
    tell = partial(typer.echo, err=True)
    if tagger.origin:
        tell(tagger.origin)
    listed = predictions.read_list(sys.stdin.buffer)
    names = order_names(predictions.find_photos(sources, listed, tell), format_)
    if output:
        predictions.write_predictions(tagger, names, format_, tell, output, resume, backend)
    else:
        predictions.show_predictions(tagger, names, format_, tell, backend)


@typer_app.command()
def summary() -> None:
    """Show the last evaluation, where the report is, and what to try next."""
    from phototag.apps.summary import summarize

    typer.echo(summarize(Path()))


@typer_app.command()
def sync() -> None:
    """Give every DVC experiment and commit its MLflow run, also one taken from DVC's cache."""
    from phototag.base.files import project_root
    from phototag.experiments.sync import sync_runs
    from phototag.tracking.store import connect

    with connect() as store:
        added, tagged = sync_runs(store, project_root())
    typer.echo(f"{len(added)} runs added to MLflow{': ' if added else ''}{', '.join(added)}")
    if tagged:
        typer.echo(f"{len(tagged)} runs told their revision: {', '.join(tagged)}")


@typer_app.command()
def recipe(
    name: Annotated[str | None, typer.Argument(help="Of a recipe; none lists them.")] = None,
) -> None:
    """Write a recipe's settings into params.yaml, and show what changed.

    What is yours alone (data, split, seed, evaluate) stays as it is.
    """
    from phototag.base.files import project_root
    from phototag.experiments import recipes

    root = project_root()
    known = recipes.read_recipes(root / recipes.FILE)
    if name is None:
        typer.echo(recipes.describe_recipes(known))
        return
    values = recipes.recipe_params(known, name)
    change = recipes.update_params(root / "params.yaml", values)
    typer.echo(change.rstrip() or f"params.yaml has the values of {name} already")
    if missing := recipes.missing_packages(values):
        typer.echo(f"\nNot installed: {', '.join(missing)}. Run `make setup-pretrained` first.")
    typer.echo("\nNext: dvc repro")


@typer_app.command()
def tune(
    study: Annotated[str | None, typer.Argument(help="Of search.yaml; none lists them.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Trials at a time.", min=1)] = 1,
    trials: Annotated[
        int | None, typer.Option(help="In all, instead of search.yaml's.", min=1)
    ] = None,
    hours: Annotated[
        float | None, typer.Option(help="Of trials, instead of its.", min=0.01)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of what is proposed, instead of its.", min=0)
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Only tell how far it is.")] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the best trial's settings into params.yaml.")
    ] = False,
) -> None:
    """Search settings: every trial is a DVC experiment and an MLflow run.

    What was killed goes on; what was tried is not tried again.
    """
    from phototag.base.files import project_root
    from phototag.search import studies, tuning

    root = project_root()
    if study is None:
        typer.echo(studies.describe_studies(studies.read_search(root / studies.FILE)))
        return
    given = {"trials": trials, "hours": hours, "seed": seed}
    changes = {key: value for key, value in given.items() if value is not None}
    if status:
        typer.echo(tuning.describe_status(root, study, changes))
    elif apply:
        change = tuning.apply_winner(root, study, changes)
        typer.echo(change.rstrip() or "params.yaml has these settings already")
        typer.echo("\nNext: dvc repro")
    else:
        tuning.tune(root, study, jobs, changes, tell=typer.echo)


@typer_app.command()
def history() -> None:
    """List every decision about the champion: when, which version, why."""
    from phototag.registry import gate
    from phototag.tracking.store import connect

    with connect() as store:
        entries = gate.read_history(store)
    for entry in entries:
        outcome = "champion" if entry["champion"] else "refused "
        typer.echo(
            f"{entry['time'][:19]}  version {entry['version']:>3}  {entry['kind']:<9}  {outcome}  "
            f"{entry['reason']}"
        )


@typer_app.command()
def promote(
    version: Annotated[int, typer.Argument(help="Of the registered model.")],
    reason: Annotated[str, typer.Option(help="Written to its history.")] = "promoted by hand",
) -> None:
    """Make a registered version the champion, whatever the comparison said."""
    from phototag.registry import gate
    from phototag.tracking.store import connect

    with connect() as store:
        decision = gate.promote(store, str(version), reason)
    _tell(decision)


@typer_app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Written to its history.")] = "rolled back by hand",
) -> None:
    """Make the version champion that was it before the present one."""
    from phototag.registry import gate
    from phototag.tracking.store import connect

    with connect() as store:
        decision = gate.roll_back(store, reason)
    _tell(decision)


def _tell(decision: dict[str, Any]) -> None:
    typer.echo(
        f"{decision['name']} version {decision['version']} is the champion "
        f"(before: {decision['previous_champion']})"
    )


@typer_app.command()
def export(
    output: Annotated[Path, typer.Argument(help="A new file, such as model.onnx.")],
    model: Annotated[Path, typer.Option(help="Weights, of `train`.")] = MODEL,
    thresholds: Annotated[Path, typer.Option(help="Of `evaluate`.")] = THRESHOLDS,
) -> None:
    """Write the model as ONNX, from photos' pixels to probabilities, for batches of any size."""
    from phototag.apps.export import export_onnx
    from phototag.serving.tagger import load_tagger

    _refuse_existing(output)
    export_onnx(load_tagger(model, thresholds), output)
    typer.echo(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")


def _refuse_existing(output: Path) -> None:
    if output.exists():
        raise InputError(f"{output} exists already: name a new file, or remove it")


def _refuse_busy(port: int) -> None:
    """Ask before a server starts: the servers themselves try again for minutes, or say nothing."""
    with socket.socket() as asked:
        # As servers do; without it, a server that has just ended would be in the way.
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            asked.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"port {port} cannot be used ({error.strerror}): name another one with --port"
            ) from None


@typer_app.command()
def demo(
    port: Annotated[int, PORT] = 8501,
    model: Annotated[Path, typer.Option(help="Weights, of `train`.")] = MODEL,
    thresholds: Annotated[Path, typer.Option(help="Of `evaluate`.")] = THRESHOLDS,
) -> None:
    """Serve a page on which one drops a photo and sees labels, scores and where they come from."""
    from phototag.apps import server

    _refuse_busy(port)
    page = Path(server.__file__).with_name("demo_page.py")
    server.serve_page(page, port, str(model.resolve()), str(thresholds.resolve()))


@typer_app.command()
def review(
    ranking: Annotated[
        Ranking,
        typer.Option(
            help="What to ask: likely label errors, what to label next, copies that differ."
        ),
    ] = "errors",
    who: Annotated[
        str | None, typer.Option(help="Written beside each answer; by default git's user.name.")
    ] = None,
    effect: Annotated[
        str | None,
        typer.Option(metavar="REVISION", help="No page: tell what the answers since then changed."),
    ] = None,
    port: Annotated[int, PORT] = 8502,
) -> None:
    """Serve a page on which one judges labels by keyboard; answers go to data/corrections.csv.

    `dvc repro` trains on them.
    """
    from phototag.apps.server import serve_page
    from phototag.review import effects

    if effect is not None:
        typer.echo(effects.describe_effect(Path(), effect))
        return
    _refuse_busy(port)
    page = Path(effects.__file__).with_name("review_page.py")
    serve_page(page, port, str(Path.cwd()), ranking, who or effects.name_user())


@typer_app.command()
def ui(port: Annotated[int, PORT] = 5000) -> None:
    """Serve MLflow on the project's store and print the address that opens its runs."""
    from phototag.tracking.ui import serve_ui

    _refuse_busy(port)
    serve_ui(port)
