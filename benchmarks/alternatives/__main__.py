"""Compare fastai, Lightning and this project: training time, F1 and lines of code.

Run `python -m benchmarks.alternatives PHOTOS.zip` on an otherwise idle machine. The two libraries
are installed from PyPI into a separate virtual environment in .phototag/, with the pinned version
of torch. Each library trains the report's network on the same photos and splits, with batches of 64
and with Adam at the report's learning rate and weight decay. The time of an epoch includes
validation. The first epoch is not counted, because it starts worker processes. Lines of code
exclude docstrings, comments and empty lines. phototag needs one line in params.yaml: the path of
the photos. The last row is the recipe `phototag`, with its own network and number of epochs.
"""

import ast
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks.claims.claims import plan_runs, read_experiments
from benchmarks.claims.collection import RESULTS
from benchmarks.machine import name_processor
from phototag.base.files import write_table
from phototag.base.keys import apply_overrides
from phototag.dataset.manifest import label_names, label_targets, read_kept

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".phototag/alternatives"
EPOCHS = 12
LIBRARIES = ("fastai", "lightning")


def make_environment() -> Path:
    """Install the libraries and the pinned torch, if they are not installed yet."""
    python, done = ENVIRONMENT / "bin/python", ENVIRONMENT / ".installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
        names = [*LIBRARIES, "torch", "torchvision", "pandas", "scikit-learn", "pillow"]
        pins = ["--constraint", str(ROOT / "requirements.lock")]
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([str(python), *install, *pins, *names], check=True)
        done.touch()
    return python


def prepare_photos(folder: Path, photos: Path) -> Path:
    """Run the data stages in `folder`, and write photos.csv for the other libraries.

    Returns:
        Path of the folder that contains the photo files.
    """
    for stage in ("resize", "split", "normalize_stats"):
        run(Path(sys.executable), folder, "-m", f"stages.{stage}")
    kept = read_kept(folder / "data/manifest.csv")
    splits = pd.read_csv(folder / "data/splits.csv", keep_default_na=False)
    names, targets = label_names(kept), label_targets(kept)
    labels = [";".join(n for n, given in zip(names, row, strict=True) if given) for row in targets]
    table = pd.DataFrame({"file": kept["file"], "split": splits["split"], "labels": labels})
    write_table(folder / "photos.csv", table)
    if photos.is_dir():
        return photos
    shutil.unpack_archive(photos, folder / "photos")
    return folder / "photos"


def run(python: Path, folder: Path, *command: str) -> str:
    """Run Python in `folder` with this repository's code; return the standard output."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [str(python), *command], cwd=folder, env=environment, stdout=subprocess.PIPE, check=True
    )
    return done.stdout.decode()


def count_lines(path: Path) -> int:
    """Count the lines of code in a file, without docstrings, comments and empty lines."""
    source = path.read_text()
    lines = {
        number
        for number, line in enumerate(source.splitlines(), 1)
        if line.strip() and not line.strip().startswith("#")
    }
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                lines -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(lines)


def compare(photos: Path) -> pd.DataFrame:
    """Train with each library and with phototag; return one row per training."""
    experiments = read_experiments()
    here = Path(__file__).parent
    python = make_environment()
    sides: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for variant in ("report", "phototag"):
            (planned,) = plan_runs(experiments, ["beaten"], photos, [variant], [0])
            overrides = planned.overrides | ({"epochs": EPOCHS} if variant == "report" else {})
            values = apply_overrides(yaml.safe_load((ROOT / "params.yaml").read_text()), overrides)
            (folder / f"{variant}.yaml").write_text(yaml.safe_dump(values))
        shutil.copy(folder / "report.yaml", folder / "params.yaml")
        files = prepare_photos(folder, photos.resolve())

        def measure(side: str, python: Path) -> dict[str, Any]:
            command = ("-m", "benchmarks.alternatives.measure", side)
            printed = run(python, folder, *command, str(folder), str(files), str(EPOCHS))
            result = json.loads(printed.splitlines()[-1])
            return {
                "seconds": round(statistics.median(result["seconds"][1:]), 2),
                "fastest": round(min(result["seconds"][1:]), 2),
                "slowest": round(max(result["seconds"][1:]), 2),
                "epochs": len(result["f1"]),
                "total": round(sum(result["seconds"]), 1),
                "val_loss": round(min(result["val_loss"]), 4),
                "f1_micro": round(max(result["f1"]), 3),
            }

        for library in LIBRARIES:
            written = (here / f"with_{library}.py", here / "network.py")
            row = {"side": f"{library}, the report's network"}
            row |= measure(f"with_{library}", python)
            sides.append(row | {"lines": sum(map(count_lines, written))})
        for variant, title in (
            ("report", "phototag, the report's network"),
            ("phototag", "phototag, its own configuration"),
        ):
            shutil.copy(folder / f"{variant}.yaml", folder / "params.yaml")
            sides.append({"side": title} | measure("phototag", Path(sys.executable)) | {"lines": 1})
    return pd.DataFrame(sides).assign(photos=photos.stem, processor=name_processor())


def main() -> None:
    """Print the table and write it to docs/research/results/."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).exists():
        sys.exit("usage: python -m benchmarks.alternatives PHOTOS.zip")
    table = compare(Path(sys.argv[1]))
    write_table(ROOT / RESULTS / "alternatives.csv", table)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
