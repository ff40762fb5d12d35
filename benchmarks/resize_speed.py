"""Compare the speed of the resize stage, on one and on two cores, with a plain Pillow loop.

Run `python -m benchmarks.resize_speed [PHOTOS.zip]`. All variants read the same JPEG files from a
zip and alternate five times; the table shows medians. Unlike the loop, the resize stage also
verifies and hashes each photo, handles EXIF and ICC data, and packs the array. Decoding at reduced
size saves less time if a photo has many bits per pixel, because its entropy-coded data are always
decoded in full. The photos are noise with the spectrum of natural images. If PHOTOS.zip is passed,
its photos that are 500 pixels wide are measured too, at their original size and enlarged.
"""

import io
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.synthetic import draw_noise, encode_jpeg
from phototag.verification.packing import prepare_photos, write_images

SIZE = 128
COUNTS = {128: 2048, 500: 1024, 2048: 256}  # width -> number of photos
DISTINCT = 16
REPEATS = 5


def pillow_loop(path: Path, names: list[str]) -> np.ndarray:
    """Open, convert, resize and crop each photo, like most tutorials do."""
    done = []
    with zipfile.ZipFile(path) as archive:
        for name in names:
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            scale = SIZE / min(image.size)
            width, height = round(image.width * scale), round(image.height * scale)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
            left, top = (width - SIZE) // 2, (height - SIZE) // 2
            done.append(np.asarray(image.crop((left, top, left + SIZE, top + SIZE))))
    return np.stack(done)


def ours(path: Path, names: list[str], n_jobs: int) -> None:
    """Verify, resize and pack the photos like the resize stage, but write no reports."""
    photos = prepare_photos(path, names, SIZE, n_jobs=n_jobs)
    decided = write_images(path.with_name("images.npy"), photos, SIZE)
    assert all(photo.decision != "rejected" for photo in decided)


def alternate(*sides: Callable[[], object]) -> list[float]:
    """Run all functions alternately, and return the median duration of each in seconds."""
    seconds: list[list[float]] = [[] for _ in sides]
    for repeat in range(REPEATS + 1):
        for side, run in enumerate(sides):
            start = time.perf_counter()
            run()
            if repeat:  # the first round is a warm-up
                seconds[side].append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def make_photos(real: Path | None) -> Iterator[tuple[str, int, list[bytes]]]:
    """Yield the name of each kind of photos, their width in pixels, and JPEG files."""
    for width, height in ((128, 128), (500, 375), (2048, 1536)):
        for quality in (75, 90):
            images = [draw_noise(width, height, seed) for seed in range(DISTINCT)]
            yield f"noise, quality {quality}", width, [encode_jpeg(i, quality) for i in images]
    if real:
        with zipfile.ZipFile(real) as archive:
            names = [name for name in archive.namelist() if name.endswith(".jpg")]
            data = [archive.read(name) for name in names]
        data = [d for d in data if d[:2] == b"\xff\xd8" and Image.open(io.BytesIO(d)).width == 500]
        yield "real photos", 500, data
        images = [Image.open(io.BytesIO(d)).convert("RGB") for d in data[:DISTINCT]]
        large = [image.resize((2048, 2048 * image.height // 500)) for image in images]
        yield "real photos, enlarged", 2048, [encode_jpeg(image) for image in large]


def main() -> None:
    """Print one row of speeds and ratios per kind of photos."""
    real = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    print(
        f"{'photos':<24}{'width':>6}{'bits/pixel':>12}{'Pillow loop':>13}{'1 core':>9}"
        f"{'2 cores':>9}{'1 core/loop':>13}{'2 cores/1':>11}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for kind, width, data in make_photos(real):
            names = [f"im{number}.jpg" for number in range(1, COUNTS[width] + 1)]
            path = Path(folder) / f"{kind} {width}.zip"
            with zipfile.ZipFile(path, "w") as archive:
                for index, name in enumerate(names):
                    archive.writestr(name, data[index % len(data)])
            loop, one, two = alternate(
                partial(pillow_loop, path, names),
                partial(ours, path, names, 1),
                partial(ours, path, names, 2),
            )
            sizes = [Image.open(io.BytesIO(d)).size for d in data]
            bits = 8 * sum(map(len, data)) / sum(w * h for w, h in sizes)
            rates = [f"{len(names) / seconds:.0f}/s" for seconds in (loop, one, two)]
            print(
                f"{kind:<24}{width:>6}{bits:>12.1f}{rates[0]:>13}{rates[1]:>9}{rates[2]:>9}"
                f"{loop / one:>13.2f}{one / two:>11.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
