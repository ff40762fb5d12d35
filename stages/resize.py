"""Verify and resize: `data.raw`, corrections -> data/{images.npy,manifest.csv}, reports/resize/."""

from importlib import import_module
from pathlib import Path

import numpy as np
from tqdm import tqdm

from phototag.base.files import project_root
from phototag.base.params import read_params
from phototag.dataset.manifest import check_labels, keep
from phototag.verification.corrections import read_answers
from phototag.verification.decode_cache import decoding_key, load_decode_cache, save_decode_cache
from phototag.verification.duplicates import group_duplicates
from phototag.verification.edited_labels import EditedLabels
from phototag.verification.edited_targets import apply_edits
from phototag.verification.imports import read_dataset
from phototag.verification.label_edits import check_unchanged, read_edits
from phototag.verification.ledger import build_manifest, write_manifest
from phototag.verification.packing import find_packed_side, prepare_photos, write_images
from phototag.verification.params import VerificationParams
from phototag.verification.problems import check_problems, describe_rejected
from phototag.verification.report import list_rejected, write_verification_report

from . import run

CORRECTIONS, EDITS = Path("data/corrections.csv"), Path("data/labels.yaml")
IMAGES = Path("data/images.npy")


def main() -> None:
    """Decode and verify photos, read labels, find duplicates, and write the report."""
    params = read_params(VerificationParams)
    edits = read_edits(EDITS)
    # Import by name, so that dvc.yaml need not list this dependency: checks change no output.
    import_module("phototag.schema.checks").check_backbones()
    source, resize = Path(params.data.raw), params.resize
    dataset = read_dataset(source)
    names = [entry.name for entry in dataset.stored]
    edited = EditedLabels(edits, dataset.list_labels(), params.data.labels).check()
    labels = dataset.read_labels(edited.needed, edited.fill)
    check_labels(edited.learned)
    read_answers(CORRECTIONS)  # an invalid file is refused before photos are decoded

    invalid = dataset.find_invalid_names()
    side = find_packed_side(source, names, resize.size, invalid, resize.max_pixels)
    cache = project_root() / ".phototag" / "resize"
    key = decoding_key(side, resize.min_side, resize.max_pixels)
    prepared = prepare_photos(
        source,
        names,
        side,
        invalid,
        resize.min_side,
        resize.max_pixels,
        resize.backend,
        cached=load_decode_cache(cache, key),
    )
    photos = write_images(IMAGES, tqdm(prepared, "resize", len(names), disable=None), side)
    save_decode_cache(cache, key, names, photos, IMAGES)
    images = np.load(IMAGES, mmap_mode="r")

    sha256 = [photo.sha256 for photo in photos]
    targets = dataset.merge_targets(labels.targets, sha256)
    check_unchanged(edits)
    # DVC records the file as it is after this stage, so answers stored meanwhile must be applied.
    answers = read_answers(CORRECTIONS)
    result = apply_edits(edited, targets, photos, answers)
    manifest = build_manifest(
        dataset.name_photos(),
        result.photos,
        result.targets,
        [entry.cells.get("group", "") for entry in dataset.stored],
        [entry.origin for entry in dataset.stored],
    )
    kept = keep(manifest)
    manifest.loc[manifest["decision"] != "rejected", "duplicate_group"] = group_duplicates(
        list(kept["sha256"]),
        list(kept["phash"]),
        images,
        resize.duplicate_bits,
        list(kept["import"]),
    )
    write_manifest(Path("data/manifest.csv"), manifest)

    problems = [*list_rejected(manifest), *labels.problems, *result.problems]
    problems += dataset.list_removed(sha256)
    report = Path("reports/resize")
    write_verification_report(
        report,
        manifest,
        problems,
        images,
        resize.size,
        dataset.system_files,
        result.counts,
        edited.renamed,
    )
    check_problems(problems, len(names), labels.num_lines, resize.on_problem, resize.max_rejected)
    for line in describe_rejected(problems, len(names)):
        print(line)


if __name__ == "__main__":
    run(main)
