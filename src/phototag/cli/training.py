"""Commands for data and training: import, recipe, summary, sync, tune and review."""

import getpass
import os
import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Literal
from unicodedata import normalize

import typer

from phototag.base.errors import InputError
from phototag.base.files import project_root
from phototag.base.git import ask_git
from phototag.base.keys import flatten
from phototag.base.params import read_values
from phototag.cli.models import MODEL, Port

SourceFormat = Literal[
    "numbered", "folders", "imagefolder", "coco", "labelstudio", "list", "one-hot", "keywords"
]
Missing = Literal["absent", "unknown", "absent-if-tagged"]
Ranking = Literal["errors", "next", "duplicates"]


def import_(
    source: Annotated[
        Path, typer.Argument(help="Folder or zip of photos, or a CSV or JSON file that lists them.")
    ],
    add: Annotated[
        bool, typer.Option("--add", help="Add the photos to those of an earlier import.")
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option(help="Folder of the new zip, or path of a single zip (default: data/raw)."),
    ] = None,
    format_: Annotated[
        SourceFormat | None, typer.Option("--as", help="Format of SOURCE (default: detect it).")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the listed photos (default: the folder of SOURCE)."),
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="Separator of the labels in a CSV cell (default: detect it).")
    ] = None,
    folder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MEANING",
            help="Meaning of a folder's name: label, none (its photos have none of the labels) or "
            "unknown (their labels are unknown). Repeat it for other folders.",
        ),
    ] = None,
    missing: Annotated[
        Missing | None,
        typer.Option(
            help="Meaning of a keyword that a photo lacks; required if the labels are keywords."
        ),
    ] = None,
    min_photos: Annotated[
        int | None, typer.Option(help="Skip keywords of fewer photos than this.", min=1)
    ] = None,
) -> None:
    """Import photos and labels.

    Writes a zip to data/raw and sets `data.raw` in params.yaml. SOURCE may be numbered photos with
    label files, one folder per label, COCO instances, a Label Studio export, a Hugging Face
    ImageFolder, a CSV with a column of labels, a one-hot CSV (one 0/1 column per label), or photos
    with keywords.
    """
    from phototag.base.processes import hold_lock
    from phototag.importers.additions import import_source
    from phototag.importers.folders import parse_meanings
    from phototag.importers.source import ImportOptions

    root = project_root()
    options = ImportOptions(
        format_, images, separator, missing, min_photos, parse_meanings(folder or [])
    )
    with hold_lock(root / ".phototag/locks/import", "imports photos"):
        imported = import_source(root, source, to, add, options)
        next_commands = _set_photos(root, imported.place, add)
    dataset = imported.dataset
    typer.echo(f"recognised as {dataset.description}")
    for note in [*dataset.notes, *dataset.describe_unlabelled()]:
        typer.echo(f"note: {note}")
    if add:
        typer.echo(
            f"{imported.new} new, {len(dataset.photos) - imported.new} already known, "
            f"{len(dataset.unlabelled)} without labels; the dataset now has {imported.total}"
        )
        if imported.updated:
            typer.echo(f"known photos whose labels are updated: {imported.updated}")
        if imported.lost:
            typer.echo(f"known photos that lose a label: {_join_counts(imported.lost)}")
    if imported.path is None:
        typer.echo("Nothing was added: the dataset has all these photos and labels.")
        return
    counted = dataset.count_labels()
    if add:  # the labels of the dataset are listed too
        counted = {label: count for label, count in counted.items() if count}
    counts = _join_counts(counted) or "no labels"
    typer.echo(f"{len(dataset.photos)} photos in {os.path.relpath(imported.path)}: {counts}")
    if unknown := dataset.count_unknown():
        typer.echo(f"photos with unknown labels: {_join_counts(unknown)}")
    typer.echo(next_commands)


def _join_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{label} {count}" for label, count in counts.items())


def _set_photos(root: Path, photos: Path, add: bool) -> str:
    """Set `data.raw` in params.yaml; return the commands that add the photos to DVC and git."""
    from phototag.experiments.recipes import update_params

    photos = photos.resolve()
    inside = photos.is_relative_to(root.resolve())
    raw = str(photos.relative_to(root.resolve()) if inside else photos)
    changed = update_params(root / "params.yaml", {"data.raw": raw})
    lines = [f"Set data.raw in params.yaml to {raw}."] if changed else []
    if inside:  # DVC tracks only files inside the project
        here = os.path.relpath(photos, Path.cwd())
        tracked = [f"{here}.dvc"]
        if ask_git(root, "check-ignore", raw) is None:  # `dvc add` will write a .gitignore
            tracked.append(str(Path(here).with_name(".gitignore")))
        params = os.path.relpath(root / "params.yaml")
        commit = ["git", "commit", "-m", "Add photos", *tracked, params]
        commands = [["dvc", "add", here], ["git", "add", *tracked], commit]
        lines.append("Run these commands to track the photos:")
        lines += [f"  {shlex.join(command)}" for command in commands]
    recipe = "" if add else "choose a recipe (`phototag recipe` lists them) and "
    lines.append(f"Then {recipe}run `dvc repro`.")
    return "\n".join(lines)


def recipe(
    name: Annotated[
        str | None, typer.Argument(help="Name of the recipe. Omit it to list all recipes.")
    ] = None,
) -> None:
    """Apply a recipe to params.yaml.

    Sets all params that training depends on, and prints the changes. The params of the photos, the
    evaluation and the machine are not changed; their names are printed too.
    """
    from phototag.experiments.recipes import update_params
    from phototag.tracking.recipes import FILE, read_recipes, recipe_params

    root = project_root()
    known = read_recipes(root / FILE)
    if name is None:
        for each, known_recipe in known.recipes.items():
            typer.echo(f"{each:<15}  {known_recipe.description}")
        return
    path, values = root / "params.yaml", recipe_params(known, name) | {"recipe": name}
    change = update_params(path, values)
    typer.echo(change.rstrip() or f"params.yaml already has the values of {name}")
    others = [key for key in flatten(read_values(path)) if key not in values]
    typer.echo(f"\nNot set by recipes: {', '.join(others)}")
    typer.echo("Next: dvc repro")


def summary() -> None:
    """Summarize the last evaluation.

    Prints the scores, the registered model version and the path of the report.
    """
    from phototag.apps.summary import summarize

    typer.echo(summarize(project_root()))


def sync(
    history: Annotated[
        bool,
        typer.Option(
            "--history",
            help="Also create the runs of all other commits, including those by other people.",
        ),
    ] = False,
) -> None:
    """Add missing runs and versions to MLflow.

    Adds a run for each DVC experiment, and for the results in the working tree, if it has no run in
    the MLflow store. Registers the model in the working tree if the registry has no version of it,
    for example after `git clone` and `dvc pull`.
    """
    from phototag.base.processes import hold_lock
    from phototag.experiments.registering import register_current
    from phototag.experiments.sync import sync_runs
    from phototag.tracking.store import StoreError, connect

    root = project_root()
    with hold_lock(root / ".phototag/locks/sync", "adds runs to MLflow"), connect() as store:
        added, tagged, unreadable = sync_runs(store, root, history)
        try:
            registered = register_current(store, root, typer.echo)
        except StoreError:
            raise
        except InputError as error:
            registered = ""
            typer.echo(f"warning: the model was not registered: {error}", err=True)
    if unreadable:
        typer.echo(f"warning: these results were skipped: {'; '.join(unreadable)}", err=True)
    names = f" ({', '.join(added)})" if added else ""
    typer.echo(f"MLflow runs created: {len(added)}{names}")
    if tagged:
        typer.echo(f"MLflow runs tagged with their revision: {', '.join(tagged)}")
    if registered:
        typer.echo(registered)


def tune(
    study: Annotated[
        str | None, typer.Argument(help="Study in search.yaml. Omit it to list all studies.")
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", help="Number of trials to run in parallel.", min=1)
    ] = 1,
    status: Annotated[
        bool, typer.Option("--status", help="Show the progress of the study without running it.")
    ] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the values of the best trial to params.yaml.")
    ] = False,
) -> None:
    """Tune hyperparameters with Optuna.

    Each completed trial is stored as a DVC experiment and as an MLflow run. To resume a study that
    was stopped, run the same command again.
    """
    from phototag.search import studies, tuning

    root = project_root()
    if study is None:
        typer.echo(studies.describe_studies(studies.read_search(root / studies.FILE)))
        return
    if status:
        typer.echo(tuning.describe_status(root, study))
    elif apply:
        change = tuning.apply_winner(root, study)
        typer.echo(change.rstrip() or "params.yaml already has these values")
        typer.echo("\nNext: dvc repro")
    else:
        tuning.tune(root, study, jobs)


def curve() -> None:
    """Measure the learning curve: scores by number of labelled photos.

    Fits linear probes on random subsets of train and val, judges them by cross-validation, and
    extrapolates the scores to more photos. Writes reports/curve/curve.csv and curve.png.
    """
    from phototag.apps.curve import write_curve

    typer.echo(write_curve(project_root()))


def review(
    ranking: Annotated[
        Ranking,
        typer.Option(
            help="Kind of questions: likely label errors, photos to label next, or duplicates with "
            "different labels."
        ),
    ] = "errors",
    who: Annotated[
        str | None, typer.Option(help="Name of the reviewer (default: user.name in git).")
    ] = None,
    effect: Annotated[
        str | None,
        typer.Option(
            metavar="REVISION",
            help="Print what has changed in labels, photos and scores since a git revision.",
        ),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Show 24 photos of one label on each page.")
    ] = False,
    port: Port = 8502,
) -> None:
    """Serve a page in the browser for reviewing labels.

    Answers are stored in data/corrections.csv. Run `dvc repro` to train with the corrected labels.
    """
    from phototag import review as package
    from phototag.apps.server import serve_page

    root = project_root()
    if effect is not None:
        from phototag.experiments.dvc_tools import read_tracked
        from phototag.review import effects

        typer.echo(effects.describe_effect(root, effect, partial(read_tracked, root, effect)))
        return
    who = who or ask_git(root, "config", "user.name") or getpass.getuser()
    who = normalize("NFC", " ".join(who.split()))  # as data/corrections.csv is read
    if not (root / MODEL).is_file():
        raise InputError(f"{MODEL} is missing: run `dvc repro`")
    page = Path(package.__path__[0], "page.py")
    serve_page(page, port, str(root), ranking, who, *(["--grid"] if grid else []))
