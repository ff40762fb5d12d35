"""Verify and resize: data.raw -> data/images.npy, data/manifest.csv."""

from pathlib import Path

from tqdm import tqdm

from phototag.images import prepare_photos, write_images
from phototag.labels import image_number, number_images, read_targets
from phototag.manifest import build_manifest, write_manifest
from phototag.params import read_params
from phototag.raw import find_layout

from . import run


def main() -> None:
    """Run the stage."""
    params = read_params()
    source, size = Path(params.data.raw), params.resize.size
    names, annotations = find_layout(source)
    names.sort(key=lambda name: (image_number(name) or 0, name))
    targets = read_targets(source, annotations, number_images(names))

    prepared = tqdm(prepare_photos(source, names, size), "resize", len(names), disable=None)
    photos = write_images(Path("data/images.npy"), prepared, size)
    write_manifest(Path("data/manifest.csv"), build_manifest(names, photos, targets))


if __name__ == "__main__":
    run(main)
