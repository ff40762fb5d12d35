"""Commands that watch a model on photos without labels."""

import re
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from phototag.base.errors import InputError
from phototag.base.files import project_root
from phototag.base.parallel import Backend

monitor_app = typer.Typer(
    no_args_is_help=True, help="Estimate whether the model is still good, without labels."
)
FOLDER, REFERENCE = Path("reports/monitor"), "reference.safetensors"
EXIT_CODES = {"no alarm": 0, "alarm": 3, "withheld": 4}


@monitor_app.command()
def add(
    name: Annotated[str, typer.Option(help="Name of the window, such as 2026-03.")],
    sources: Annotated[
        list[str] | None, typer.Argument(help="Photos or folders of photos.", metavar="[FOLDER]...")
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(help="Folder written by `phototag serve --log-predictions`, instead."),
    ] = None,
    version: Annotated[
        int | None, typer.Option(help="Number of the model version (default: the champion).")
    ] = None,
    backend: Annotated[
        Backend,
        typer.Option(help="joblib backend; dask and ray workers must see the same file paths."),
    ] = "sequential",
) -> None:
    """Assess photos without labels.

    Estimates precision, recall and F1 of a model version, and writes reports/monitor. The exit code
    is 3 if the estimated F1 is clearly below that on held-out photos, and 4 if the photos are so
    different that no estimate is possible.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"--name is {name!r}: use letters, digits, '.', '_' and '-'")
    if bool(sources) == (log is not None):
        raise InputError("pass either folders of photos or --log FOLDER")
    from phototag.apps.photo_files import check_existence, find_photos
    from phototag.base.processes import hold_lock
    from phototag.monitoring.assessment import assess
    from phototag.monitoring.reference import load_reference
    from phototag.monitoring.results import number_window, read_windows, write_results
    from phototag.monitoring.windows import predict_window, read_window
    from phototag.registry.versions import download_version, find_champion, has_files
    from phototag.tracking.store import connect
    from phototag.tracking.windows import log_window

    root, report = project_root(), partial(typer.echo, err=True)
    names = find_photos(sources, sys.stdin.buffer, report) if sources else []
    check_existence(names)
    with connect() as store, TemporaryDirectory() as folder:
        number = version or find_champion(store)
        if number is None:
            raise InputError("there is no champion to monitor: run `dvc repro`, or pass --version")
        if not has_files(store, str(number)):
            raise InputError(
                f"version {number} of the model {store.name} does not exist, or its files were "
                "deleted: run `phototag history` to list the versions, and pass another --version"
            )
        files = download_version(store, number, folder)
        if not (files / REFERENCE).is_file():
            raise InputError(
                f"version {number} has no {REFERENCE}, because an earlier release of phototag "
                "registered it: train and register a model again, or pass another --version"
            )
        reference = load_reference(files / REFERENCE)
        if log is not None:
            window = read_window(log, str(number), reference.labels)
        else:
            pair = files / "model.safetensors", files / "thresholds.json"
            window, errors = predict_window(pair, names, backend)
            for error in errors:
                report(error)
        with hold_lock(root / ".phototag/locks/monitor", "adds a window"):
            position = number_window(read_windows(root / FOLDER), str(number), window.fingerprint)
            assessment = assess(window, reference, position)
            metrics = write_results(
                root / FOLDER, name, str(number), window.fingerprint, assessment
            )
        log_window(store, name, str(number), metrics, root / FOLDER / name)
    typer.echo(
        f"{name}, {len(window.sha256)} photos, version {number}: {assessment.verdict} "
        f"({assessment.reason})"
    )
    raise typer.Exit(EXIT_CODES[assessment.verdict])
