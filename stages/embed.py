"""Embed: data/images.npy -> data/features.npy, of frozen backbones; empty where none are frozen."""

from pathlib import Path

import numpy as np

from phototag.base.files import project_root, replace_file
from phototag.base.params import read_params
from phototag.network.params import NetworkParams, pair_backbones, uses_cached_features

from . import run

IMAGES, FEATURES = Path("data/images.npy"), Path("data/features.npy")


def main() -> None:
    """Run the stage."""
    params = read_params(NetworkParams)
    name, weights = params.model.name, params.model.weights
    if not uses_cached_features(
        name, weights, params.model.freeze, params.finetune.linear_probe_first
    ):
        print(f"{name} is trained as a whole: no features to keep")
        with replace_file(FEATURES) as temporary:
            np.save(temporary, np.zeros((0, 0), np.float32))
        return
    # PyTorch takes seconds, for which the report's network need not wait here.
    from phototag.network.features import (
        PART,
        Frozen,
        embed_photos,
        features_key,
        note_pace,
        take_turn,
    )
    from phototag.network.pretrained import list_weights_files

    pairs = pair_backbones(name, weights)
    key = features_key(pairs, list_weights_files(pairs), IMAGES)
    folder = project_root() / ".phototag" / "features"
    frozen = Frozen(name, weights, IMAGES.absolute())
    with take_turn(folder):
        pace = embed_photos(frozen, FEATURES, folder / f"{key}{PART}", params.embed.backend)
        note_pace(folder, FEATURES, pace)


if __name__ == "__main__":
    run(main)
