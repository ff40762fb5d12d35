"""Verify and resize: data.raw -> data/{images.npy,manifest.csv}, reports/resize/."""

from importlib import import_module
from pathlib import Path

import numpy as np
from tqdm import tqdm

from phototag.base.params import read_params
from phototag.data.manifest import build_manifest, check_labels, keep, write_manifest
from phototag.intake.duplicates import group_duplicates
from phototag.intake.labels import image_number, read_labels, refuse_names
from phototag.intake.packing import prepare_photos, write_images
from phototag.intake.problems import check_problems
from phototag.intake.raw import find_layout
from phototag.intake.report import list_rejected, write_intake
from phototag.intake.sources import read_source_groups

from . import run


def main() -> None:
    """Run the stage."""
    params = read_params()
    # A check changes no output: what it needs of the network is none of this stage's dependencies.
    import_module("phototag.network.check").check_model(params)
    source, resize = Path(params.data.raw), params.resize
    layout = find_layout(source)
    names = sorted(layout.images, key=lambda name: (image_number(name) or 0, name))
    wanted = params.data.labels
    labels = read_labels(source, layout.annotations, names, wanted, layout.unknown)
    check_labels(labels.targets)
    source_groups, missing = read_source_groups(source, layout.sources, names)

    prepared = prepare_photos(
        source,
        names,
        resize.size,
        refuse_names(names),
        resize.min_side,
        resize.max_pixels,
        resize.backend,
    )
    progress = tqdm(prepared, "resize", len(names), disable=None)
    photos = write_images(Path("data/images.npy"), progress, resize.size)
    images = np.load("data/images.npy", mmap_mode="r")

    manifest = build_manifest(names, photos, labels.targets, source_groups)
    kept = keep(manifest)
    manifest.loc[manifest["decision"] != "rejected", "duplicate_group"] = group_duplicates(
        list(kept["sha256"]), list(kept["phash"]), images, resize.duplicate_bits
    )
    write_manifest(Path("data/manifest.csv"), manifest)

    problems = [*list_rejected(manifest), *labels.problems, *missing]
    write_intake(Path("reports/resize"), manifest, problems, images, layout.leftovers)
    check_problems(problems, len(names), labels.num_lines, resize.on_problem, resize.max_rejected)


if __name__ == "__main__":
    run(main)
