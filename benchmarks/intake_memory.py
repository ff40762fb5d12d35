"""Measure the peak memory of the stages resize, split and normalize-stats.

Run `python -m benchmarks.intake_memory [FOLDER]`. It needs 6 GB of disk space in FOLDER (default:
the system's temporary folder). The inputs are zips as written by `phototag import`, with 2 000,
20 000 and 100 000 noise images of 128 x 128 pixels and random labels.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import yaml
from joblib import Parallel, delayed
from PIL import Image

from benchmarks.synthetic import encode_jpeg

ROOT = Path(__file__).resolve().parents[1]
COUNTS = (2_000, 20_000, 100_000)
STAGES = ("resize", "split", "normalize_stats")
MEASURE = """
import resource, runpy, time
from joblib.externals.loky import get_reusable_executor
start = time.perf_counter()
runpy.run_module("stages.{stage}", run_name="__main__")
get_reusable_executor().shutdown(wait=True)  # RUSAGE_CHILDREN counts processes that have ended
own, child = (resource.getrusage(who).ru_maxrss // 1024
              for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(own, child, round(time.perf_counter() - start, 1))
"""


def draw_photos(start: int, count: int) -> list[bytes]:
    """Return `count` JPEG files of random blobs, with the seeds `start`, `start + 1`, ..."""
    photos = []
    for number in range(start, start + count):
        blobs = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
        image = Image.fromarray(blobs).resize((128, 128), Image.Resampling.BICUBIC)
        photos.append(encode_jpeg(image, 80))
    return photos


def write_zip(path: Path, count: int) -> None:
    """Write a zip with `count` photos and 14 label files."""
    chunks = Parallel(n_jobs=-1, return_as="generator")(
        delayed(draw_photos)(start, 1000) for start in range(1, count + 1, 1000)
    )
    rates = np.geomspace(0.005, 0.3, 14)
    carried = np.random.default_rng(0).random((count, 14)) < rates
    with zipfile.ZipFile(path, "w") as archive:
        number = 0
        for photos in chunks:
            for data in photos:
                number += 1
                archive.writestr(f"images/im{number}.jpg", data)
        for label in range(14):
            lines = "".join(f"{row + 1}\n" for row in np.flatnonzero(carried[:, label]))
            archive.writestr(f"annotations/label{label}.txt", lines)


def main() -> None:
    """Print the peak memory of each stage and of its largest worker process, in MiB."""
    where = sys.argv[1] if len(sys.argv) > 1 else None
    print(f"{'photos':>8}  {'stage':<16} {'peak MiB':>9} {'worker MiB':>12} {'seconds':>8}")
    with tempfile.TemporaryDirectory(dir=where) as folder:
        for count in COUNTS:
            write_zip(Path(folder) / "raw.zip", count)
            params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
            params["data"]["raw"] = "raw.zip"
            (Path(folder) / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
            for stage in STAGES:
                done = subprocess.run(
                    [sys.executable, "-c", MEASURE.format(stage=stage)],
                    cwd=folder,
                    env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                own, child, seconds = done.stdout.split()[-3:]
                print(f"{count:>8}  {stage:<16} {own:>9} {child:>12} {seconds:>8}", flush=True)
            size = (Path(folder) / "data/manifest.csv").stat().st_size / 2**20
            print(f"{'':>8}  manifest.csv {size:.1f} MiB")


if __name__ == "__main__":
    main()
