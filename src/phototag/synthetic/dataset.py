"""The synthetic dataset: small scenes generated from a seed, in the layout of the report's data.

The report's photos cannot be distributed. The synthetic images share their essential properties:
the same 14 labels, about half of the images without labels, correlated labels (a portrait shows
people; images of the sea often show clouds), and labels that differ only by shape.

Label frequencies follow the report's photos, except that those of the rarest labels (baby, river,
sea, car, bird) are raised to about 2 %, so that 2 000 images contain about 40 of each label.
"""

import shutil
from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.synthetic.scene import draw_scene

LABELS = (
    *("baby", "bird", "car", "clouds", "dog", "female", "flower"),
    *("male", "night", "people", "portrait", "river", "sea", "tree"),
)
GRAYSCALE = 0.015  # share of the images that are saved in grayscale
CHUNK = 50  # number of images that one task writes
SIZE = 128  # side of the images in pixels


def draw_labels(rng: np.random.Generator) -> set[str]:
    """Sample the set of labels that one image shows."""
    labels: set[str] = set()
    if rng.random() < 0.32:
        labels.add("people")
        portrait = rng.random() < 0.49
        if portrait:
            labels.add("portrait")
        # Probabilities of: female only, male only, both, neither.
        shares = (0.50, 0.31, 0.12, 0.07) if portrait else (0.245, 0.37, 0.12, 0.265)
        labels |= [{"female"}, {"male"}, {"female", "male"}, set()][rng.choice(4, p=shares)]
        if rng.random() < (0.105 if portrait else 0.02):
            labels = (labels | {"baby"}) - {str(rng.choice(["female", "male"]))}
        rates = {"clouds": 0.02, "sea": 0.022, "night": 0.012, "dog": 0.01, "car": 0.009}
        rates |= {"river": 0.008, "tree": 0.007}
        if not portrait:
            labels |= {label for label, rate in rates.items() if rng.random() < 2 * rate}
    elif rng.random() < 0.29:
        rates = {"clouds": 17, "flower": 19, "night": 13, "tree": 12, "dog": 10, "bird": 10}
        rates |= {"car": 9, "sea": 8, "river": 9}
        names = list(rates)
        labels.add(str(rng.choice(names, p=np.array([*rates.values()]) / sum(rates.values()))))
    if "clouds" not in labels:
        rate = 0.25 if labels & {"sea", "river"} else 0.09 if "tree" in labels else 0.0
        labels |= {"clouds"} if rng.random() < rate else set()
    if "river" in labels and rng.random() < 0.11:
        labels.add("tree")
    if "night" in labels:
        labels.discard("clouds")
    return labels


def write_dataset(folder: Path, num_images: int, seed: int, n_jobs: int = -1) -> None:
    """Write the dataset: `images/imN.jpg` with N from 1, and `annotations/CLASS.txt`.

    The images do not depend on the number of worker processes, `n_jobs` (-1: one per core). The
    files are written to a temporary folder, which is renamed to `folder` at the end.

    Raises:
        InputError: The folder exists and is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: remove it or choose another folder")
    rng = np.random.default_rng(seed)
    drawn = [draw_labels(rng) for _ in range(num_images)]
    # Workers that joblib started earlier keep the working directory of that time.
    temporary = folder.absolute().with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "images").mkdir(parents=True)
    (temporary / "annotations").mkdir()
    starts = range(0, num_images, CHUNK)
    parallel = Parallel(n_jobs=n_jobs, return_as="generator")
    tasks = (delayed(_write_images)(temporary, drawn, start, seed) for start in starts)
    for _ in tqdm(parallel(tasks), "sample", len(starts), unit=f"{CHUNK} images", disable=None):
        pass
    for label in LABELS:
        numbers = [number for number, labels in enumerate(drawn, start=1) if label in labels]
        text = "".join(f"{number}\n" for number in numbers)
        (temporary / "annotations" / f"{label}.txt").write_text(text, encoding="ascii")
    temporary.rename(folder)


def _write_images(folder: Path, drawn: Sequence[Set[str]], start: int, seed: int) -> None:
    for number, labels in enumerate(drawn[start : start + CHUNK], start=start + 1):
        rng = np.random.default_rng([seed, number])
        image = draw_scene(labels, rng, SIZE)
        if rng.random() < GRAYSCALE:
            image = image.convert("L")
        image.save(folder / "images" / f"im{number}.jpg", quality=90)
