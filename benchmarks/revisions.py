"""Compare the speed of two revisions of phototag.

`python -m benchmarks.revisions PHOTOS.zip OLD [NEW]` clones the repository at two revisions
(default of NEW: HEAD) and trains and evaluates a model of the recipe `pretrained` in each. Params
that both revisions have get the values of the older one. Then it measures several commands
alternately; all times include the start of Python. PHOTOS.zip has numbered photos, as
`benchmarks.growing` reads them. Run it on an otherwise idle machine with 10 GB of free disk space;
it takes about 15 minutes. Uncommitted changes are not measured.
"""

import shutil
import statistics
import sys
import tempfile
import zipfile
from pathlib import Path

import yaml

from benchmarks.growing import Clone
from benchmarks.machine import name_processor
from phototag.base.git import run_git
from phototag.base.keys import apply_overrides, flatten
from phototag.base.params import read_values

TURNS = 3
EMBED, PREDICT, ONE, EXPERIMENT, HELP = (
    "embed",
    "predict all photos",
    "predict one photo",
    "dvc exp run",
    "phototag --help",
)


def main() -> None:
    """Prepare both clones, measure each command in each of them, and print the table."""
    source, old, new = Path(sys.argv[1]), sys.argv[2], [*sys.argv[3:], "HEAD"][0]
    root = Path(run_git(Path.cwd(), "rev-parse", "--show-toplevel"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(source) as archive:
            photos = [entry for entry in archive.namelist() if "/images/" in entry]
            archive.extractall(folder / "photos", photos)
        clones = [Clone(root, folder / f"{i}", revision) for i, revision in enumerate((old, new))]
        for clone in clones:
            clone.run("phototag", "import", str(source))
        use_common_params(*(clone.folder / "params.yaml" for clone in clones))
        for clone in clones:
            clone.run("dvc", "add", "data/raw")
            clone.run("dvc", "repro")
            clone.run("git", "add", "-A")
            clone.run("git", "commit", "--quiet", "-m", "Results")
        seconds: dict[str, list[list[float]]] = {}
        for turn in range(TURNS):
            for index, clone in enumerate(clones):
                for command, duration in measure(clone, folder / "photos", turn).items():
                    seconds.setdefault(command, [[], []])[index].append(duration)
        print(f"{len(photos)} photos, {name_processor()}, seconds (median of {TURNS})")
        print(f"{'':<20}{'old':>8}{'new':>8}   ratio")
        for command, found in seconds.items():
            before, after = map(statistics.median, found)
            print(f"{command:<20}{before:>8.1f}{after:>8.1f}{before / after:>8.2f}")


def use_common_params(old: Path, new: Path) -> None:
    """Overwrite each param that both files have with its value in `old`."""
    values, theirs = (flatten(read_values(path)) for path in (new, old))
    common = {key: theirs[key] for key in values.keys() & theirs.keys()}
    new.write_text(yaml.safe_dump(apply_overrides(read_values(new), common), sort_keys=False))


def measure(clone: Clone, photos: Path, turn: int) -> dict[str, float]:
    """Return the seconds that each command takes."""
    shutil.rmtree(clone.folder / ".phototag" / "features")  # embed computes all features again
    photo = next(path for path in sorted(photos.rglob("*")) if path.is_file())
    return {
        EMBED: clone.run("python", "-m", "stages.embed"),
        PREDICT: clone.run("phototag", "predict", str(photos), "-f", "csv"),
        ONE: clone.run("phototag", "predict", str(photo)),
        EXPERIMENT: clone.run("dvc", "exp", "run", "-S", f"weight_decay={0.05 + turn / 100}"),
        HELP: clone.run("phototag", "--help"),
    }


if __name__ == "__main__":
    main()
