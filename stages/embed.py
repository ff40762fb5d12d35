"""Cache the features of frozen backbones: data/images.npy -> data/features.npy."""

from pathlib import Path

import numpy as np

from phototag.base.files import project_root, replace_file
from phototag.base.params import read_params
from phototag.network.params import (
    FeatureSpec,
    NetworkParams,
    pair_backbones,
    uses_cached_features,
)

from . import run

IMAGES, FEATURES = Path("data/images.npy"), Path("data/features.npy")


def main() -> None:
    """Write the features of all photos, or an empty array if training does not use features."""
    params = read_params(NetworkParams)
    name, weights = params.model.name, params.model.weights
    if not uses_cached_features(
        name, weights, params.model.freeze, params.finetune.linear_probe_first
    ):
        print(f"training of {name} uses no cached features: {FEATURES} is empty")
        with replace_file(FEATURES) as temporary:
            np.save(temporary, np.zeros((0, 0), np.float32))
        return
    # Importing PyTorch takes seconds, so it is imported only if features are computed.
    from phototag.network.features import embed_photos

    spec = FeatureSpec(
        pair_backbones(name, weights),
        params.resize.size,
        params.model.global_pool,
        params.model.power,
    )
    store = project_root() / ".phototag" / "features"
    images = IMAGES.absolute()  # workers may use a different working directory
    done = embed_photos(spec, images, FEATURES, store, params.embed.backend)
    if done:
        print(f"photos whose features were already computed: {done}")


if __name__ == "__main__":
    run(main)
