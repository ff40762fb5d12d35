"""Compare adding photos to a dataset with starting over.

`python -m benchmarks.growing PHOTOS.zip [ADDED [TOTAL]]` reads numbered photos and their label
files from a zip. It trains and registers a model of the recipe `pretrained` on TOTAL - ADDED photos
(default: ADDED is 100, TOTAL is the number of photos in the zip). Then it adds ADDED photos with
`phototag import --add`, and trains and registers the next model. In a second clone of the
repository, all TOTAL photos are imported at once. The table has the seconds of each step, which
include the start of DVC, and the bytes added to DVC's cache. Run it on an otherwise idle machine
with 20 GB of free disk space. Uncommitted changes are not measured.
"""

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np

from benchmarks.machine import name_processor
from phototag.base.git import run_git

STAGES = ("resize", "split", "normalize-stats", "embed", "train", "evaluate", "register")
ADDED = 100


def main() -> None:
    """Measure both ways and print the table."""
    source = Path(sys.argv[1])
    added, total = (int(sys.argv[i]) if len(sys.argv) > i else None for i in (2, 3))
    root = Path(run_git(Path.cwd(), "rev-parse", "--show-toplevel"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = split_source(source, folder, added or ADDED, total)
        print(f"{sizes['new']} photos added to {sizes['old']}, {name_processor()}", flush=True)
        growing = Clone(root, folder / "growing")
        growing.run_pipeline(folder / "old.zip")
        growing.seconds.clear()
        before = growing.measure_cache()
        growing.run_pipeline(folder / "new.zip", "--add")
        grown = growing.measure_cache() - before
        fresh = Clone(root, folder / "fresh")
        fresh.run_pipeline(folder / "all.zip")
        print(f"{'':<17}{'adding':>14}{'starting over':>14}")
        for step in growing.seconds:
            print(f"{step:<17}{growing.seconds[step]:>12.1f} s{fresh.seconds[step]:>12.1f} s")
        totals = [sum(clone.seconds.values()) for clone in (growing, fresh)]
        print(f"{'total':<17}{totals[0]:>12.1f} s{totals[1]:>12.1f} s")
        print(f"{'DVC cache':<17}{grown / 1e6:>11.1f} MB{fresh.measure_cache() / 1e6:>11.1f} MB")


def split_source(source: Path, folder: Path, added: int, total: int | None) -> dict[str, int]:
    """Write old.zip, new.zip and all.zip; return the number of photos in each.

    The added photos, and the photos that are used if `total` is smaller than their number, are
    chosen at random.
    """
    with zipfile.ZipFile(source) as archive:
        names = archive.namelist()
        photos = {int(PurePosixPath(name).stem[2:]): name for name in names if "/images/" in name}
        labels = {
            PurePosixPath(name).name: set(map(int, archive.read(name).split()))
            for name in names
            if "/annotations/" in name and name.endswith(".txt")
        }
        order = np.random.default_rng(0).permutation(sorted(photos))[:total].tolist()
        parts = {"old": order[:-added], "new": order[-added:], "all": order}
        for part, numbers in parts.items():
            with zipfile.ZipFile(folder / f"{part}.zip", "w") as written:
                for number in sorted(numbers):
                    name = f"images/{PurePosixPath(photos[number]).name}"
                    written.writestr(name, archive.read(photos[number]))
                for label, found in labels.items():
                    text = "".join(f"{number}\n" for number in sorted(found & set(numbers)))
                    written.writestr(f"annotations/{label}", text)
    return {part: len(numbers) for part, numbers in parts.items()}


class Clone:
    """A clone of the repository in which the pipeline is timed.

    Attributes:
        seconds: Duration of each step in seconds.
    """

    def __init__(self, root: Path, folder: Path, revision: str = "HEAD") -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
        tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = kept | {"PATH": tools, "DVC_NO_ANALYTICS": "1"}
        self.environment["PYTHONPATH"] = str(folder / "src")  # before an installed phototag
        run_git(folder.parent, "clone", "--quiet", str(root), str(folder))
        run_git(folder, "checkout", "--quiet", revision)
        for key, value in (("user.name", "benchmark"), ("user.email", "benchmark@localhost")):
            run_git(folder, "config", key, value)
        self.run("phototag", "recipe", "pretrained")

    def run(self, *command: str) -> float:
        """Run a command that must succeed, and return its duration in seconds."""
        start = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}")
        return time.perf_counter() - start

    def run_pipeline(self, source: Path, *options: str) -> None:
        """Import photos, run and time all stages, and commit the results."""
        self.seconds["import"] = self.run("phototag", "import", str(source), *options)
        self.seconds["dvc add"] = self.run("dvc", "add", "data/raw")
        for stage in STAGES:
            self.seconds[stage] = self.run("dvc", "repro", "--single-item", stage)
        self.run("git", "add", "-A")
        self.run("git", "commit", "--quiet", "-m", "Results")

    def measure_cache(self) -> int:
        """Return the number of bytes in DVC's cache."""
        return sum(
            path.stat().st_size for path in self.folder.glob(".dvc/cache/**/*") if path.is_file()
        )


if __name__ == "__main__":
    main()
