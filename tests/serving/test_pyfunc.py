"""`mlflow models serve` on the registered model, over HTTP."""

import base64
import io
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from phototag.registry import versions
from phototag.serving.pyfunc import MAX_BYTES, PhotoTagger
from phototag.serving.tagger import load_tagger, tag_photos
from phototag.tracking.runs import create_run
from phototag.tracking.store import connect, embedded_uri
from tests.models import LABELS, make_model
from tests.servers import free_port, wait_for


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


BLUE = encode(Image.new("RGB", (40, 30), (220, 0, 0)))
NOISE = encode(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)), "JPEG"
)


def bomb(side: int) -> bytes:
    """A valid PNG of side x side black pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    header = pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (side * (side + 1)), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


class Model:
    """The registered model's code, called in this process."""

    def __init__(self, folder: Path) -> None:
        self.tagger = PhotoTagger()
        self.tagger.tagger = load_tagger(*make_model(folder))

    def __call__(self, **columns: list[Any]) -> list[dict[str, Any]]:
        return self.tagger.predict(None, pd.DataFrame(columns))


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path / "model")


def test_base64_bytes_and_paths_are_alike(model: Model, tmp_path: Path) -> None:
    (tmp_path / "blue.png").write_bytes(BLUE)
    expected = {"labels": ["blue"], "error": None}
    answers = [
        *model(image=[base64_of(BLUE)]),
        *model(image=[BLUE]),
        *model(path=[str(tmp_path / "blue.png")]),
        *model(image=[None], path=[str(tmp_path / "blue.png")]),
    ]
    assert [{key: answer[key] for key in expected} for answer in answers] == [expected] * 4
    assert all(list(answer["scores"]) == LABELS for answer in answers)


def test_a_bad_row_gets_an_error_and_fails_nothing(model: Model) -> None:
    rows = ["%%%", base64_of(b"x"), base64_of(BLUE[:60]), 5, "A" * (MAX_BYTES * 4 // 3 + 4)]
    good, *bad = model(image=[BLUE, *rows])
    assert good["error"] is None
    reasons = ("not base64", "not an image", "", "neither base64 nor bytes", "larger than 64 MiB")
    for answer, reason in zip(bad, reasons, strict=True):
        assert (answer["labels"], answer["scores"]) == ([], {})
        assert reason in answer["error"]


def test_no_readable_row_and_no_column_are_the_callers_mistake(model: Model) -> None:
    with pytest.raises(MlflowException, match="row 1: not an image") as caught:
        model(image=["%%%", base64_of(b"x")])
    assert caught.value.get_http_status_code() == 400
    with pytest.raises(MlflowException, match="column `image`"):
        model(photo=[BLUE])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a served champion, and the folder of its model file."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        store = connect()
        run_id = create_run(store, "key", {}, {}, "")
        tags = {"model_digest": "d", "test_fingerprint": "f"}
        version = versions.register_model(store, run_id, *make_model(folder / "model"), tags, "")
        versions.promote(store, version, "")
        yield from serve(folder, embedded_uri())


def serve(folder: Path, uri: str) -> Iterator[tuple[str, Path]]:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/phototag@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with (folder / "log").open("w") as log:
        # In a folder of its own: the model must bring its code along.
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server)
        yield f"http://127.0.0.1:{port}/invocations", folder
    finally:
        server.terminate()
        server.wait()


def post(address: str, body: bytes) -> tuple[int, Any]:
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def body_of(*images: bytes) -> bytes:
    rows = [[base64_of(image)] for image in images]
    return json.dumps({"dataframe_split": {"columns": ["image"], "data": rows}}).encode()


@pytest.mark.slow
def test_server_answers_as_promised(served: tuple[str, Path]) -> None:
    address, folder = served
    status, answer = post(address, body_of(BLUE, NOISE, b"no photo"))
    assert status == 200
    assert list(answer) == ["predictions"]
    blue, noise, bad = answer["predictions"]
    assert (blue["labels"], blue["error"]) == (["blue"], None)
    tagger = load_tagger(folder / "model/model.safetensors", folder / "model/thresholds.json")
    (expected,) = tag_photos(tagger, [NOISE])
    assert noise["scores"] == pytest.approx(expected.scores, abs=1e-5)
    assert (bad["labels"], bad["scores"]) == ([], {})
    assert "not an image" in bad["error"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("corrupt image", "truncated"),
        ("decompression bomb", "over the pixel limit"),
        ("200 MB body", "larger than 64 MiB"),
        ("nonsense JSON", "JSON"),
        ("another column", "image"),
    ],
)
def test_server_refuses_with_a_reason_and_lives_on(
    served: tuple[str, Path], case: str, reason: str
) -> None:
    bodies: dict[str, Callable[[], bytes]] = {
        "corrupt image": lambda: body_of(NOISE[: len(NOISE) // 2]),
        "decompression bomb": lambda: body_of(bomb(20_000)),
        "200 MB body": lambda: body_of(b"\0" * 150_000_000),
        "nonsense JSON": lambda: b'{"dataframe_split": {"columns": ["image"], "da',
        "another column": lambda: b'{"dataframe_split": {"columns": ["photo"], "data": [["x"]]}}',
    }
    status, answer = post(served[0], bodies[case]())
    assert 400 <= status < 500
    assert reason in answer
    assert post(served[0], body_of(BLUE))[1]["predictions"][0]["labels"] == ["blue"]
