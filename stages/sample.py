"""Write the synthetic dataset: params -> data/sample."""

from pathlib import Path

from phototag.base.params import read_params
from phototag.synthetic.dataset import write_dataset
from phototag.synthetic.params import SyntheticParams

from . import run


def main() -> None:
    """Write the synthetic dataset with the size and seed in params.yaml."""
    params = read_params(SyntheticParams)
    write_dataset(Path("data/sample"), params.sample.num_images, params.seed)


if __name__ == "__main__":
    run(main)
