"""Modules import slow libraries only in the functions that need them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = (
    "matplotlib",
    "mlflow",
    "onnxruntime",
    "pandas",
    "scipy",
    "scipy.stats",
    "sklearn",
    "torch",
    "torch._dynamo",
    "torchvision",
)
# Modules in the order in which one process imports them, and the libraries that each adds.
ADDED = {
    "phototag.cli": [],
    "stages.sample": [],
    "stages.embed": [],
    "stages.register": ["pandas"],
    "stages.normalize_stats": [],
    "stages.split": ["scipy"],
    "stages.resize": [],
    "stages.train": ["mlflow", "torch"],
    "stages.evaluate": ["matplotlib"],
}
SCRIPT = """
import importlib, json, sys
slow, names = map(json.loads, sys.argv[1:])
found, before = {}, set()
for name in names:
    importlib.import_module(name)
    loaded = {library for library in slow if library in sys.modules}
    found[name], before = sorted(loaded - before), loaded
print(json.dumps(found))
"""


@pytest.mark.slow
def test_modules_import_only_the_slow_libraries_that_they_use() -> None:
    arguments = map(json.dumps, (SLOW, list(ADDED)))
    found = subprocess.check_output(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=Path(__file__).parents[1], text=True
    )
    assert json.loads(found) == ADDED
