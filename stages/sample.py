"""Write the synthetic dataset, if `data.raw` names it: params -> data/sample."""

from pathlib import Path

from phototag.base.files import write_text
from phototag.base.params import read_params
from phototag.synthetic.dataset import write_dataset
from phototag.synthetic.params import SyntheticParams

from . import run


def main() -> None:
    """Write the synthetic dataset with the size and seed in params.yaml."""
    params = read_params(SyntheticParams)
    folder = Path("data/sample")
    if Path(params.data.raw).resolve().is_relative_to(folder.resolve()):
        write_dataset(folder, params.sample.num_images, params.seed)
    else:  # DVC does not restore empty folders
        write_text(folder / "README.txt", "The photos in `data.raw` are used instead.\n")


if __name__ == "__main__":
    run(main)
