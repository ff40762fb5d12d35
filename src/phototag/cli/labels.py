"""Commands that list and edit labels: `phototag label` and its subcommands."""

from collections.abc import Sequence
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
    from phototag.apps.labels import describe_labels

    if context.invoked_subcommand is None:
        typer.echo(describe_labels(project_root()))


@label_app.command()
def rename(
    old: Label, new: Annotated[str, typer.Argument(help="Name that is not a label yet.")]
) -> None:
    """Rename a label.

    Answers of reviewers about the old name count for the new one.
    """
    _edit("rename", [old], new)


@label_app.command()
def merge(
    old: Annotated[list[str], typer.Argument(help="Labels, as listed by `phototag label`.")],
    new: Annotated[str, typer.Argument(help="Name of the merged label: a new name or a label.")],
) -> None:
    """Merge labels into one.

    A photo has the merged label if it has any of the labels.
    """
    _edit("rename", old, new, merge=True)


@label_app.command()
def drop(label: Label) -> None:
    """Drop a label, so that it is not learned."""
    _edit("drop", [label])


@label_app.command()
def imply(
    child: Label, parent: Annotated[str, typer.Argument(help="New name or existing label.")]
) -> None:
    """State that each photo with the label CHILD has the label PARENT too."""
    _edit("imply", [child], parent)


@label_app.command()
def absent(label: Label) -> None:
    """State that photos of imports that do not list a label lack it.

    Otherwise, the label is unknown on these photos.
    """
    _edit("absent", [label])


def _edit(key: str, labels: Sequence[str], other: str = "", merge: bool = False) -> None:
    from phototag.apps.labels import edit_labels

    typer.echo(edit_labels(project_root(), key, labels, other, merge))
