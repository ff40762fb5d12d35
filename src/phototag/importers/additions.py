"""Import of a source into a project: as its first photos, or in addition to earlier ones."""

import hashlib
import os
import re
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from phototag.base.errors import InputError
from phototag.base.files import remove_unfinished, replace_file
from phototag.base.params import read_params, read_values
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.photos import Photo
from phototag.decoding.sources import list_files, read_named_file
from phototag.decoding.system_files import split_system_files
from phototag.importers.formats import read_source
from phototag.importers.importer import import_photos, write_zip
from phototag.importers.source import ImportOptions, SourceDataset
from phototag.verification.edited_labels import EditedLabels
from phototag.verification.edited_targets import apply_edits
from phototag.verification.imports import import_number, list_zips, read_dataset
from phototag.verification.label_edits import EDITS, LabelEdits, read_edits
from phototag.verification.labels import normalize
from phototag.verification.params import VerificationParams

DEFAULT, SYNTHETIC = Path("data/raw"), Path("data/sample")
SHOWN = 10  # maximum number of labels in a note


@dataclass(frozen=True)
class Imported:
    """The result of an import.

    Attributes:
        dataset: Photos and labels of the source.
        place: Folder of imports or single zip that contains the photos.
        path: Path of the new zip; None if the source has neither new photos nor other labels.
        new: Number of photos that the dataset did not have.
        updated: Number of known photos whose labels the source changes.
        total: Number of photos that the dataset has after the import.
        lost: Label -> number of known photos that have it only before the import.
    """

    dataset: SourceDataset
    place: Path
    path: Path | None
    new: int
    updated: int
    total: int
    lost: dict[str, int] = field(default_factory=dict)


def choose_destination(root: Path, to: Path | None, add: bool) -> Path:
    """Return the folder of imports, or the single zip, to which a source is to be imported.

    Args:
        root: Root of the project.
        to: Path that the user chose (default: `data.raw` if `add`, else data/raw).
        add: Whether photos are added to a folder of imports.

    Raises:
        InputError: The photos would replace or mix with other photos. The message contains the
            options or commands to use.
    """
    raw = root / read_params(VerificationParams, root / "params.yaml").data.raw
    is_sample = raw == root / SYNTHETIC
    shown = os.path.relpath(raw)
    place = to or (raw if add else root / DEFAULT)
    _check_complete(to or raw)
    if add:
        if to is None and is_sample:
            raise InputError(
                "data.raw is the synthetic dataset, to which no photos can be added: run "
                "`phototag import SOURCE` without --add"
            )
        if not list_zips(place):
            raise InputError(_explain_conversion(place))
    elif to is None and not is_sample and raw.exists():
        raise InputError(
            f"data.raw is already {shown}: to add SOURCE to these photos, pass --add; to start "
            "another dataset, pass its folder or zip with --to"
        )
    elif place.suffix.lower() != ".zip":
        _check_new_folder(place)
    return place


def _check_complete(place: Path) -> None:
    """Check that a folder or zip has all files that DVC tracks, so that none is removed."""
    pointer = Path(f"{place.absolute()}.dvc")
    if not pointer.exists():
        return
    match read_values(pointer).get("outs"):
        case [{"nfiles": int(tracked)}]:
            pass
        case _:  # a single file
            tracked = 1
    # .dvcignore lists the system files, so DVC does not track them.
    files = list_files(place) if place.is_dir() else [place.name]
    found = len(split_system_files(files)[0]) if place.exists() else 0
    if found < tracked:
        shown = os.path.relpath(place)
        raise InputError(
            f"{shown}: DVC tracks {tracked} files, but {found} are here: run `dvc pull` to get the "
            f"others, or `dvc add {shlex.quote(shown)}` if you removed them on purpose"
        )


def _check_new_folder(folder: Path) -> None:
    """Check that a folder for the first import does not exist or is empty."""
    shown = os.path.relpath(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"--to {shown} is neither a folder nor a .zip: pass another path")
    if list_zips(folder):
        raise InputError(
            f"{shown} already contains imports: to add SOURCE to them, pass --add --to "
            f"{shlex.quote(shown)}; to start another dataset, pass another folder with --to"
        )
    if names := split_system_files(list_files(folder))[0]:
        raise InputError(
            f"{shown} contains other files, such as {names[0]}: pass a new folder with --to"
        )


def _explain_conversion(place: Path) -> str:
    """Return why photos cannot be added to a dataset, and the commands that convert it."""
    shown = os.path.relpath(place)
    if not place.exists() or (place.is_dir() and not split_system_files(list_files(place))[0]):
        return (
            f"{shown} has no imports: omit --add to start a dataset, or pass another path to --to"
        )
    folder = place.absolute().with_suffix("")
    if folder.exists():
        folder = folder.with_name(f"{folder.name}-imports")
    new = shlex.quote(os.path.relpath(folder))
    return (
        f"{shown} is not a folder of imports: run `phototag import {shlex.quote(shown)} --to {new}`"
        f", which writes all its photos to a zip in a new folder, and then `phototag import SOURCE "
        f"--add --to {new}`"
    )


def name_import(source: Path, folder: Path) -> str:
    """Return the name of the next zip in a folder of imports, such as 002-holiday.zip."""
    zips = list_zips(folder) if folder.exists() else []
    number = max([0, *map(import_number, zips)]) + 1
    name = Path(os.path.abspath(source))  # noqa: PTH100 - `resolve` would follow links
    text = normalize(name.name if name.is_dir() else name.stem)
    text = re.sub(r"[^\w.-]+", "-", text).strip("-._")[:60].rstrip("-._")
    return f"{number:03}-{text or 'photos'}.zip"


def import_source(
    root: Path, source: Path, to: Path | None, add: bool, options: ImportOptions
) -> Imported:
    """Import a source into a project; see `choose_destination` for the arguments.

    Raises:
        InputError: The source is invalid, or the photos would replace or mix with other photos.
    """
    place = choose_destination(root, to, add)
    if place.suffix.lower() == ".zip":
        path = place
    else:
        path = place / name_import(source, place)
        remove_unfinished(place.glob(".*.tmp.zip"))
    if add:
        return _add_photos(source, path, options, read_edits(root / EDITS))
    dataset = import_photos(source, path, options)
    return Imported(dataset, place, path, len(dataset.photos), 0, len(dataset.photos))


def _add_photos(source: Path, path: Path, options: ImportOptions, edits: LabelEdits) -> Imported:
    """Add the photos of a source to a folder of imports.

    Photos that the folder already has are listed in the new zip with their labels, but not stored.
    """
    labels, known, before = _read_targets(path.parent, edits)
    # The source may use the old or the new name of a label that data/labels.yaml renames.
    names = {label: edits.final(label) for label in labels}
    given = {*names.values()}
    dataset = read_source(source, replace(options, known_labels=frozenset({*names, *given})))
    added = {edits.final(label) for label in dataset.labels}
    decided = {*edits.drop, *edits.absent}  # labels that are not unknown in any import
    with replace_file(path) as temporary:
        write_zip(temporary, source, dataset, {*known})
    _, stored, after = _read_targets(path.parent, edits)
    new = len(stored) - len(known)
    what = "the dataset did not have, unknown for its other photos"
    dataset.notes.extend(_note_labels(what, added - given - decided))
    if new:
        what = "the source does not have, unknown for its new photos"
        dataset.notes.extend(_note_labels(what, given - added - decided))
    before = before.reindex(columns=after.columns)
    before = before.fillna(dict.fromkeys(edits.absent, 0)).fillna(UNKNOWN)
    updated = int((after.loc[before.index] != before).any(axis=1).sum())
    lost = ((before == 1) & (after.loc[before.index] != 1)).sum()
    is_needed = bool(new or updated)
    if not is_needed:
        path.unlink()
    return Imported(
        dataset,
        path.parent,
        path if is_needed else None,
        new,
        updated,
        len(stored),
        {str(label): int(count) for label, count in lost.items() if count},
    )


def _read_targets(folder: Path, edits: LabelEdits) -> tuple[list[str], list[str], pd.DataFrame]:
    """Return the labels in label files, the SHA-256 of stored photos, and their final targets."""
    dataset = read_dataset(folder)
    edited = EditedLabels(edits, dataset.list_labels())
    names = [entry.name for entry in dataset.stored]
    sha256 = [
        entry.cells.get("sha256") or hashlib.sha256(read_named_file(folder, entry.name)).hexdigest()
        for entry in dataset.stored
    ]
    if not edited.given:  # the imports with labels were removed
        return [], sha256, pd.DataFrame(index=names)
    labels = dataset.read_labels((), edited.fill)
    targets = dataset.merge_targets(labels.targets, sha256)
    final = apply_edits(edited, targets, [Photo("kept", "")] * len(names), {}).targets
    return [*labels.targets], sha256, pd.DataFrame(final, names)


def _note_labels(what: str, labels: set[str]) -> list[str]:
    """Return a note about labels, or an empty list."""
    shown = sorted(labels)[:SHOWN]
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return [f"labels that {what}: {', '.join(shown)}{more}"] if labels else []
