"""Commands that list and edit labels: `phototag label` and its subcommands."""

from pathlib import Path
from typing import Annotated

import typer

from phototag.base.files import project_root

label_app = typer.Typer()
Label = Annotated[str, typer.Argument(help="Label, as listed by `phototag label`.")]


@label_app.callback(invoke_without_command=True)
def label(context: typer.Context) -> None:
    """List the labels, or edit them.

    Without a subcommand, prints how many photos have each label (yes), lack it (no), and may have
    it (unknown), and prints the edits. The subcommands write edits to data/labels.yaml. To undo an
    edit, remove its line from this file.
    """
    from phototag.apps.label_counts import describe_labels

    if context.invoked_subcommand is None:
        typer.echo(describe_labels(project_root()))


@label_app.command()
def rename(
    old: Label, new: Annotated[str, typer.Argument(help="Name that is not a label yet.")]
) -> None:
    """Rename a label.

    Answers of reviewers about the old name count for the new one.
    """
    from phototag.apps.label_file import rename_label

    root = project_root()
    _report(root, *rename_label(root, old, new))


@label_app.command()
def merge(
    old: Annotated[list[str], typer.Argument(help="Labels, as listed by `phototag label`.")],
    new: Annotated[str, typer.Argument(help="Name of the merged label: a new name or a label.")],
) -> None:
    """Merge labels into one.

    A photo has the merged label if it has any of the labels.
    """
    from phototag.apps.label_file import merge_labels

    root = project_root()
    _report(root, *merge_labels(root, old, new))


@label_app.command()
def drop(label: Label) -> None:
    """Drop a label, so that it is not learned."""
    from phototag.apps.label_file import drop_label

    root = project_root()
    _report(root, *drop_label(root, label))


@label_app.command()
def imply(
    child: Label, parent: Annotated[str, typer.Argument(help="New name or existing label.")]
) -> None:
    """State that each photo with the label CHILD has the label PARENT too."""
    from phototag.apps.label_file import imply_label

    root = project_root()
    _report(root, *imply_label(root, child, parent))


@label_app.command()
def absent(label: Label) -> None:
    """State that photos of imports that do not list a label lack it.

    Otherwise, the label is unknown on these photos.
    """
    from phototag.apps.label_file import mark_absent

    root = project_root()
    _report(root, *mark_absent(root, label))


def _report(root: Path, changes: str, wanted: list[str]) -> None:
    """Print the changes, and write the new labels to `data.labels` if it lists labels."""
    from phototag.experiments.recipes import update_params

    if not changes:
        typer.echo("Nothing to change: data/labels.yaml already contains this edit.")
        return
    typer.echo(changes)
    if wanted and (change := update_params(root / "params.yaml", {"data.labels": wanted})):
        typer.echo(f"\nparams.yaml:\n{change.rstrip()}")
    typer.echo("\nTo undo the edit, revert these lines.")
    typer.echo("Next: dvc repro")
