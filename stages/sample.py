"""Draw the embedded data set: params -> data/sample."""

from pathlib import Path

from phototag.base.params import read_params
from phototag.synthetic.params import SyntheticParams
from phototag.synthetic.sample import write_sample

from . import run


def main() -> None:
    """Run the stage."""
    params = read_params(SyntheticParams)
    write_sample(Path("data/sample"), params.sample.num_images, params.seed)


if __name__ == "__main__":
    run(main)
