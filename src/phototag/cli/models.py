"""Commands that use trained and registered models."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from phototag.base.errors import InputError, escape_control
from phototag.base.files import project_root, write_text
from phototag.base.parallel import Backend

if TYPE_CHECKING:
    from phototag.apps.sidecars import SidecarWriter

MODEL, THRESHOLDS = Path("models/model.safetensors"), Path("reports/evaluate/thresholds.json")
Port = Annotated[int, typer.Option(help="Port of the server on 127.0.0.1.", min=1, max=65535)]
ModelFile = Annotated[
    Path | None,
    typer.Option("--model", help=f"Model file written by the train stage (default: {MODEL})."),
]
ThresholdsFile = Annotated[
    Path | None,
    typer.Option(
        "--thresholds", help=f"JSON file written by the evaluate stage (default: {THRESHOLDS})."
    ),
]
Format = Literal["table", "csv", "jsonl", "labelstudio", "xmp"]
SUFFIXES: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl"}
Naming = Literal["a.jpg.xmp", "a.xmp"]
Reason = Annotated[str, typer.Option(help="Reason shown by `phototag history`.")]


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(help="Photos, folders of photos, or - to read paths from standard input."),
    ],
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format",
            "-f",
            help="Output format (default: csv or jsonl if --output ends with it, else table).",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="New output file (default: standard output)."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a killed run with --output.")
    ] = False,
    new: Annotated[
        bool,
        typer.Option(
            "--new", help="Add the photos that are not in --output yet; continues a killed run."
        ),
    ] = False,
    backend: Annotated[
        Backend,
        typer.Option(help="joblib backend; dask and ray workers must see the same file paths."),
    ] = "sequential",
    naming: Annotated[
        Naming | None,
        typer.Option(
            "--sidecars",
            help="Name of a new sidecar of a.jpg for -f xmp (default: a.jpg.xmp).",
        ),
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Remove the labels that -f xmp has written.")
    ] = False,
    model: ModelFile = None,
    thresholds: ThresholdsFile = None,
) -> None:
    """Predict the labels of photos.

    Loads the model from a local file; no server is needed. The format xmp writes the labels as
    keywords into XMP sidecars, files next to the photos that photo programs read.
    """
    if format_ is None:
        format_ = SUFFIXES.get(output.suffix.lower(), "table") if output else "table"
    if format_ == "xmp" and (output or new or resume):
        raise InputError(
            "-f xmp writes sidecars next to the photos, and can be repeated: omit --output, --new "
            "and --resume"
        )
    if not output and (new or resume):
        option = "--new" if new else "--resume"
        raise InputError(f"{option} requires an output file: add --output FILE")
    if new and resume:
        raise InputError("--new continues killed runs without --resume: omit --resume")
    if new and format_ not in SUFFIXES.values():
        raise InputError(
            f"--new can add photos to csv and jsonl, not to {format_}: pass an output file that "
            "ends with .csv or .jsonl"
        )
    if format_ != "xmp" and (naming or undo):
        raise InputError("--sidecars and --undo apply to sidecars only: add -f xmp")
    if undo:
        from phototag.apps.sidecars import SidecarWriter

        writer = SidecarWriter(partial(typer.echo, err=True))
        writer.remove(sources, sys.stdin.buffer)
        _finish_sidecars(writer)
        return
    if output and not new:
        _refuse_existing(output)
    files = _model_files(model, thresholds)
    report = partial(typer.echo, err=True)
    # Importing PyTorch takes seconds, so it is imported after the options are checked.
    if output and new:
        from phototag.apps.new_photos import NewPhotosJob

        if output.exists() and not output.is_file():
            raise InputError(f"{output} is not a file: pass another output file")
        # A link is not replaced by a file.
        output = Path(os.path.realpath(output))
        job = NewPhotosJob(output, format_, files, typer.echo, report, backend)
        job.add(sources, sys.stdin.buffer)
        return
    from phototag.apps.photo_files import check_existence, find_photos
    from phototag.apps.predictions import PredictionJob
    from phototag.serving.tagger import load_tagger

    tagger = load_tagger(*files)
    if tagger.origin:
        report(tagger.origin)
    names = find_photos(sources, sys.stdin.buffer, report)
    prediction = PredictionJob(tagger, names, format_, report, backend)
    if format_ == "xmp":
        from phototag.apps.sidecars import SidecarWriter

        writer = SidecarWriter(report, naming or "a.jpg.xmp")
        any_readable = writer.write(names, prediction.predict_rows())
        _finish_sidecars(writer)
    else:
        any_readable = prediction.write(output, resume) if output else prediction.print()
    check_existence(names)
    if not any_readable:
        raise InputError("none of these files could be read as a photo: pass image files")


def _finish_sidecars(writer: "SidecarWriter") -> None:
    """Print the number of sidecars written; raise an error if any was refused."""
    typer.echo(writer.describe())
    if refused := writer.counts["refused"]:
        raise InputError(f"sidecars not written: {refused} (see above)")


def export(
    output: Annotated[Path, typer.Argument(help="Path of a new file, such as model.onnx.")],
    model: ModelFile = None,
    thresholds: ThresholdsFile = None,
) -> None:
    """Export the model to ONNX.

    The ONNX graph maps batches of uint8 images to probabilities. The batch size is variable.
    """
    _refuse_existing(output)
    files = _model_files(model, thresholds)
    from phototag.apps.export import export_onnx
    from phototag.serving.tagger import load_tagger

    export_onnx(load_tagger(*files), output)
    typer.echo(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")


def demo(port: Port = 8501, model: ModelFile = None, thresholds: ThresholdsFile = None) -> None:
    """Serve a demo page in the browser.

    Upload a photo to see the predicted labels, their scores and a heat map.
    """
    from phototag.apps import server

    files = [str(file.resolve()) for file in _model_files(model, thresholds)]
    server.serve_page(Path(server.__file__).with_name("demo_page.py"), port, *files)


def ui(port: Port = 5000) -> None:
    """Serve the MLflow user interface."""
    from phototag.tracking.ui import serve_ui

    serve_ui(port)


def history() -> None:
    """List all decisions about the champion.

    Each line shows the time, model version, kind, outcome and reason of one decision. The last
    lines show deleted versions and the current champion.
    """
    from phototag.registry import versions
    from phototag.tracking.store import connect

    with connect() as store:
        entries = versions.read_history(store)
        current = versions.describe_registry(store)
    if not entries:
        typer.echo(
            "no version is registered: run `dvc repro`, or `dvc repro --force --single-item "
            "register` if all versions were deleted"
        )
        return
    for entry in entries:
        outcome = "champion" if entry["champion"] else "refused "
        typer.echo(
            f"{entry['time'][:19]}  version {entry['version']:>3}  {entry['kind']:<9}  {outcome}  "
            f"{escape_control(entry['reason'])}"
        )
    typer.echo("\n".join(current))


def card(
    version: Annotated[
        int | None,
        typer.Argument(
            help="Version number in the registry (default: the model of the last `dvc repro`)."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New file (default: standard output).")
    ] = None,
) -> None:
    """Write a model card in Markdown, with the metadata of the Hugging Face Hub.

    The card states the intended use, data, scores, thresholds and limits of a model. Without a
    version, it is made from files of the project, and no model registry is needed.
    """
    if output:
        _refuse_existing(output)
    if version is None:
        from phototag.apps.results import FILES
        from phototag.base.params import read_params
        from phototag.registry.card import render_card
        from phototag.registry.params import RegistrationParams
        from phototag.tracking.naming import project_name

        root = project_root()
        params = read_params(RegistrationParams, root / "params.yaml")
        files = {name: root / path for name, path in FILES.items()}
        text = render_card(files, project_name(), params.data.license)
    else:
        from phototag.registry.lookup import fetch_card
        from phototag.tracking.store import connect

        with connect() as store:
            text = fetch_card(store, str(version))
    if output:
        write_text(output, text)
    else:
        typer.echo(text, nl=False)


def promote(
    version: Annotated[int, typer.Argument(help="Version number in the model registry.")],
    reason: Reason = "promoted by hand",
    new_labels: Annotated[
        bool,
        typer.Option("--new-labels", help="Accept labels that differ from those of the champion."),
    ] = False,
) -> None:
    """Make a model version the champion.

    The version is not compared with the current champion, so its scores may be lower.
    """
    from phototag.registry import versions
    from phototag.tracking.store import connect

    with connect() as store:
        _print_decision(versions.promote(store, str(version), reason, new_labels))


def rollback(reason: Reason = "rolled back by hand") -> None:
    """Restore the previous champion."""
    from phototag.registry import versions
    from phototag.tracking.store import connect

    with connect() as store:
        _print_decision(versions.roll_back(store, reason))


def _print_decision(decision: dict[str, Any]) -> None:
    typer.echo(
        f"{decision['name']} version {decision['version']} is the champion "
        f"(previous champion: {decision['previous_champion']})"
    )


def _model_files(model: Path | None, thresholds: Path | None) -> tuple[Path, Path]:
    """Return the paths of model and thresholds; replace None with the project's default path."""
    files = model or project_root() / MODEL, thresholds or project_root() / THRESHOLDS
    for file in files:
        if not file.is_file():
            raise InputError(
                f"{file} is missing: run `dvc repro`, or pass a model file with --model and its "
                "thresholds file with --thresholds"
            )
    return files


def _refuse_existing(output: Path) -> None:
    """Raise an error if the output file exists, so that it is not overwritten."""
    if output.exists():
        raise InputError(f"{output} already exists: pass a new file name or remove it")
