"""Code that a version ships: all that it imports, and nothing else."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from phototag.network import runtime
from phototag.serving import pyfunc
from phototag.serving.pyfunc import copy_package, digest_model, packaged_files
from phototag.serving.tagger import load_tagger, tag_photos
from phototag.tracking.runs import Training, create_run
from phototag.tracking.store import Store
from tests.decoding.corpus import encode
from tests.models import make_backbone, make_model

LOAD = """
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pandas as pd, io
from PIL import Image
import phototag
assert Path(phototag.__file__).is_relative_to(sys.argv[1]), phototag.__file__
from phototag.serving.pyfunc import PhotoTagger
tagger = PhotoTagger()
tagger.load_context(SimpleNamespace(artifacts={"model": sys.argv[2], "thresholds": sys.argv[3]}))
file = io.BytesIO()
Image.new("RGB", (40, 30), (220, 0, 0)).save(file, "PNG")
(answer,) = tagger.predict(None, pd.DataFrame({"image": [file.getvalue()]}))
print(answer["labels"])
ours = {m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] == "phototag"}
assert all(Path(file).is_relative_to(sys.argv[1]) for file in ours)
"""


@pytest.mark.slow
def test_shipped_code_runs_without_the_repository(tmp_path: Path) -> None:
    package = copy_package(tmp_path / "code")
    files = make_model(tmp_path / "model")
    # PYTHONPATH comes before the installed package.
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(package.parent), *map(str, files)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['blue']\n"


@pytest.mark.slow
@pytest.mark.parametrize(("make", "size"), [(make_backbone, 64), (make_model, 16)])
def test_version_is_served_by_onnx_runtime_with_the_same_scores(
    store: Store, tmp_path: Path, make: Callable[..., tuple[Path, Path]], size: int
) -> None:
    known = np.random.default_rng(1).integers(0, 256, (40, size, size, 3), np.uint8)
    files = make(tmp_path / "model", size=size, photos=known)
    with store.lock, mlflow.start_run(run_id=create_run(store, Training("key"))):
        info = pyfunc.log_model(*files, "phototag", {})
    served = mlflow.pyfunc.load_model(info.model_uri)
    batcher = served.unwrap_python_model().tagger.network
    assert isinstance(batcher.network, runtime.Session)
    drawn = np.random.default_rng(0).integers(0, 256, (3, 30, 40, 3), np.uint8)
    photos = [encode(Image.fromarray(pixels)) for pixels in drawn]
    expected = tag_photos(load_tagger(*files), photos)
    for photo, tags in zip(photos, expected, strict=True):
        (answer,) = served.predict(pd.DataFrame({"image": [photo]}))
        assert answer["scores"] == pytest.approx(tags.scores, abs=1e-4)
        assert tags.familiarity is not None
        # Distances of noise hardly differ, so that small errors change the rank.
        assert answer["familiarity"] / 100 == pytest.approx(tags.familiarity / 100, abs=2e-3)
    assert len({str(tags.scores) for tags in expected}) == 3
    needed = mlflow.pyfunc.get_model_dependencies(info.model_uri)
    names = {line.partition("==")[0] for line in Path(needed).read_text().splitlines()}
    assert "onnxruntime" in names
    assert ("torchvision" in names) == (make is make_backbone)
    assert not {"onnx", "timm"} & names


def test_digest_covers_weights_thresholds_code_and_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = make_model(tmp_path / "model")
    package = copy_package(tmp_path / "copy")
    monkeypatch.setattr(pyfunc, "__file__", str(package / "serving/pyfunc.py"))
    first = digest_model(*files)
    assert digest_model(*files) == first
    assert digest_model(make_model(tmp_path / "other", known=1)[0], files[1]) != first
    for path in [*packaged_files().values(), files[1]]:
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        assert digest_model(*files) != first, path
        path.write_bytes(before)
    shutil.move(package / "base/timings.py", package / "base/renamed.py")
    assert digest_model(*files) != first
    shutil.move(package / "base/renamed.py", package / "base/timings.py")
    monkeypatch.setattr(pyfunc, "version", lambda name: "9.9")
    assert digest_model(*files) != first
