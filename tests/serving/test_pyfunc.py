"""The registered model in this process, behind MLflow's request parser, and over HTTP."""

import base64
import gc
import io
import json
import os
import re
import sys
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, scoring_server
from PIL import Image
from typer.testing import CliRunner

from phototag.apps.predictions import model_key
from phototag.base.errors import InputError
from phototag.cli import typer_app
from phototag.decoding import photos
from phototag.serving import pool, pyfunc
from phototag.serving.limits import MAX_BYTES, MAX_MESSAGE, MAX_PIXELS, MAX_ROWS
from phototag.serving.pyfunc import SIGNATURE
from phototag.serving.requests import NO_FILE, ROOT
from phototag.serving.tagger import load_tagger, tag_photos
from phototag.tracking.store import connect
from tests.decoding.corpus import chunk, encode, png, tile_tiff
from tests.models import LABELS, make_model, register
from tests.servers import free_port, run_server


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


BLUE = encode(Image.new("RGB", (40, 30), (220, 0, 0)), "PNG")
# The bytes after the PNG are ignored by decoders; they give base64 with "+", "/" and "=".
BLUE += bytes(-len(BLUE) % 3) + b"\xfb\xef\xbe\0"
NOISE = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)))


def bomb(side: int) -> bytes:
    """Return a valid PNG of side x side black pixels in a few kilobytes."""
    return png(side, side, 8, 0, zlib.compress(b"\0" * (side * (side + 1)), 9))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a saved MLflow model."""
    folder = tmp_path_factory.mktemp("saved")
    files = dict(zip(("model", "thresholds"), map(str, make_model(folder / "files")), strict=True))
    entry = str(Path(pyfunc.__file__).with_name("entry.py"))
    mlflow.pyfunc.save_model(
        str(folder / "model"),
        python_model=entry,
        artifacts=files,
        pip_requirements=[],
        signature=SIGNATURE,
    )
    return folder / "model"


def load(folder: Path) -> Callable[..., list[dict[str, Any]]]:
    """Return the model as a function of the data frame's columns."""
    model = mlflow.pyfunc.load_model(str(folder))

    def predict(**columns: list[Any]) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = model.predict(pd.DataFrame(columns))
        return answer

    return predict


@pytest.fixture(scope="module")
def model(folder: Path) -> Callable[..., list[dict[str, Any]]]:
    return load(folder)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> PyFuncModel:
    return mlflow.pyfunc.load_model(str(folder))


@pytest.fixture(scope="module")
def scored(loaded: PyFuncModel) -> Callable[[Any], list[dict[str, Any]]]:
    """Function that returns the predictions of MLflow's scoring server for a JSON request."""

    def ask(body: Any) -> list[dict[str, Any]]:
        schema = loaded.metadata.get_input_schema()
        answer = scoring_server.invocations(json.dumps(body), "application/json", loaded, schema)
        found: list[dict[str, Any]] = json.loads(answer.response)["predictions"]
        return found

    return ask


def labels_of(answers: list[dict[str, Any]]) -> list[list[str]]:
    return [answer["labels"] for answer in answers]


PLAIN = base64_of(BLUE)
WAYS = {
    "plain": PLAIN,
    "76 a line": base64.encodebytes(BLUE).decode(),
    "CRLF": "\r\n".join(PLAIN[i : i + 64] for i in range(0, len(PLAIN), 64)),
    "spaces around": f"  {PLAIN}\t\n",
    "no padding": PLAIN.rstrip("="),
    "URL-safe": base64.urlsafe_b64encode(BLUE).decode(),
    "URL-safe, no padding": base64.urlsafe_b64encode(BLUE).decode().rstrip("="),
    "data URL": f"data:image/png;base64,{PLAIN}",
    "data URL in capitals": f"DATA:image/PNG;name=a.png;BASE64,{PLAIN}",
    "data URL without a type": f"data:;base64,{PLAIN}",
}
# The cases need the characters in which the two base64 alphabets differ, and padding.
assert set("+/=") <= set(PLAIN)


@pytest.mark.parametrize("way", WAYS)
def test_photo_is_read_in_every_encoding(
    scored: Callable[[Any], list[dict[str, Any]]], way: str
) -> None:
    split = {"columns": ["image"], "data": [[WAYS[way]], [base64_of(NOISE)]]}
    blue, noise = scored({"dataframe_split": split})
    assert (blue["labels"], blue["error"], noise["error"]) == (["blue"], None, None)
    assert list(blue["scores"]) == LABELS


RED = encode(Image.new("RGB", (30, 30), (0, 0, 220)), "PNG")
BODIES: dict[str, Callable[[list[str]], Any]] = {
    "split": lambda p: {"dataframe_split": {"columns": ["image"], "data": [[x] for x in p]}},
    "records": lambda p: {"dataframe_records": [{"image": x} for x in p]},
    "one list in a row": lambda p: {"dataframe_records": [{"image": p}]},
    "inputs by column": lambda p: {"inputs": {"image": p}},
    "inputs, nested": lambda p: {"inputs": {"image": [[x] for x in p]}},
    "inputs by row": lambda p: {"inputs": [{"image": x} for x in p]},
    "inputs, bare": lambda p: {"inputs": p},
    "instances by row": lambda p: {"instances": [{"image": x} for x in p]},
    "instances by column": lambda p: {"instances": {"image": p}},
    "instances, bare": lambda p: {"instances": p},
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("photos", [[BLUE], [BLUE, RED], [BLUE, RED, BLUE]])
def test_photos_are_read_from_every_request_format(
    scored: Callable[[Any], list[dict[str, Any]]], body: str, photos: list[bytes]
) -> None:
    expected = [["blue"] if photo == BLUE else ["red"] for photo in photos]
    assert labels_of(scored(BODIES[body]([base64_of(photo) for photo in photos]))) == expected


def in_cell(value: bytes) -> bytes:
    return b'{"dataframe_split": {"columns": ["image"], "data": [[' + value + b"]]}}"


HOSTILE: dict[str, bytes | tuple[bytes, str | None]] = {
    "lists in lists": in_cell(b"[" * 900 + b"]" * 900),
    "objects in objects": in_cell(b'{"a":' * 900 + b"1" + b"}" * 900),
    "lists in inputs": b'{"inputs":' + b"[" * 900 + b"]" * 900 + b"}",
    "deeper than Python's limit": b"[" * 100_000,
    "a long number": in_cell(b"1" * 5000),
    "no finite number": in_cell(b"1e999"),
    "NaN": in_cell(b"NaN"),
    "no UTF-8": in_cell(b'"\xff"'),
    "half a character": in_cell(b'"\\ud800"'),
    "a key given twice": b'{"inputs": ["a"], "inputs": 5}',
    "nothing": b"",
    "CSV": (b"image\nx\n", "text/csv"),
    "another format": (b"x", "application/vnd.apache.parquet"),
    "no content type": (in_cell(b'"x"'), None),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_response_to_a_hostile_request_has_status_400_and_no_stack_trace(
    loaded: PyFuncModel, case: str
) -> None:
    body = HOSTILE[case]
    data, kind = body if isinstance(body, tuple) else (body, "application/json")
    with pytest.raises(MlflowException) as caught:
        scoring_server.invocations(data, kind, loaded, loaded.metadata.get_input_schema())
    assert caught.value.get_http_status_code() == 400
    response = json.loads(caught.value.serialize_as_json())
    assert "stack_trace" not in response
    assert len(response["message"]) <= MAX_MESSAGE
    assert not re.search("Traceback|Failed to predict", response["message"])


def test_invalid_row_gets_an_error_and_does_not_affect_others(
    model: Callable[..., list[dict[str, Any]]],
) -> None:
    bad: dict[Any, str] = {
        "%%%": "not base64",
        "AAAAA": "not base64",
        "data:image/png,abc": "not base64",
        "data:": "not base64",
        ("b64",): "tuple is neither base64 nor bytes",
        base64_of(b"x"): "not an image",
        base64_of(BLUE[:60]): "",
        5: "is neither base64 nor bytes",
        None: "is neither base64 nor bytes",
        "A" * (MAX_BYTES * 3 // 2 + 1): "larger than 32 MiB",
        bytes(MAX_BYTES + 1): "larger than 32 MiB",
        bomb(5001): "over the pixel limit",
    }
    good, *answers = model(image=[BLUE, *bad])
    assert good["error"] is None
    for answer, reason in zip(answers, bad.values(), strict=True):
        assert (answer["labels"], answer["scores"]) == ([], {})
        assert reason in answer["error"]


def test_error_of_a_decoder_is_the_error_of_its_row(
    model: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(photos, "_decode_square", fail)
    with pytest.raises(MlflowException, match="row 0: unreadable: MemoryError; row 1"):
        model(image=[BLUE, RED])


def test_request_without_readable_photos_or_over_the_limits_is_refused(
    model: Callable[..., list[dict[str, Any]]],
) -> None:
    for columns, reason in (
        ({"image": ["%%%", base64_of(b"x")]}, "row 1: not an image"),
        ({"photo": [BLUE]}, "missing inputs \\['image'\\]"),
        ({"image": [None]}, "row 0: a value of type NoneType is neither base64 nor bytes"),
        ({"image": []}, "no row contains a photo"),
        ({"image": [BLUE] * (MAX_ROWS + 1)}, "257 photos: send at most 256 photos"),
        ({"image": [[BLUE] * (MAX_ROWS + 1)]}, "257 photos: send at most 256 photos"),
        ({"image": [bytes(MAX_BYTES)] * 3}, "more than 64 MiB in total"),
    ):
        with pytest.raises(MlflowException, match=reason) as caught:
            model(**columns)
        assert caught.value.get_http_status_code() == 400


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Folder `root` with a photo and links of all kinds, next to files that must not be read."""
    root = tmp_path / "root"
    (root / "album").mkdir(parents=True)
    (root / "album/a b.png").write_bytes(BLUE)
    (tmp_path / "secret.png").write_bytes(RED)
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2/secret.png").write_bytes(RED)
    (root / "inside.png").symlink_to(root / "album/a b.png")
    (root / "outside.png").symlink_to(tmp_path / "secret.png")
    (root / "outside").symlink_to(tmp_path)
    (root / "circle.png").symlink_to(root / "circle.png")
    with zipfile.ZipFile(root / "photos.zip", "w") as archive:
        archive.writestr("a.png", RED)
    os.mkfifo(root / "pipe.png")
    return root


def test_server_reads_no_files_without_a_root(
    folder: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ROOT, raising=False)
    closed = load(folder)
    there = str(shelf / "inside.png")
    answers = closed(image=[BLUE, f"file:{there}", f"file:{there}x"])[1:]
    assert answers[0] == answers[1]
    assert answers[0]["error"].startswith("this server does not read files")
    # Other columns are ignored.
    assert labels_of(closed(image=[BLUE], path=[there])) == [["blue"]]
    assert labels_of(closed(image=[BLUE, None], path=[there, there])) == [["blue"], []]


def test_server_reads_files_of_its_root_only(
    folder: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT, str(shelf))
    opened = load(folder)
    monkeypatch.delenv(ROOT)  # it is read when the model is loaded
    names = ["album/a b.png", "album/a%20b.png", "./album/../inside.png", f"{shelf}/inside.png"]
    names += [(shelf / "album/a b.png").as_uri().removeprefix("file:"), "//localhost/inside.png"]
    found = opened(image=[f"file:{name}" for name in names[:-1]])
    assert labels_of(found) == [["blue"]] * 5
    secret = shelf.parent / "secret.png"
    refused = [str(secret), "../secret.png", "%2e%2e/secret.png", "outside.png", "none.png", ""]
    refused += ["outside/secret.png", "outside/none.png", "../root2/secret.png", "circle.png"]
    refused += ["../none.png", "/etc/passwd", "/dev/zero", "album", "pipe.png", "a\0b", "%00", "."]
    refused += ["photos.zip/a.png", "photos.zip/none.png", "x" * 5000, f"//host{secret}", "~"]
    answers = opened(image=[BLUE, *(f"file:{name}" for name in refused)])[1:]
    assert {answer["error"] for answer in answers} == {NO_FILE}


def test_root_that_is_not_a_folder_is_refused_at_load(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT, str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"PHOTOTAG_ROOT is .*none, which is not a folder"):
        load(folder)


def palette_png(side: int) -> bytes:
    """Return a PNG of a few kilobytes whose decoding takes 13 bytes per pixel."""
    file = io.BytesIO()
    Image.new("P", (side, side)).save(file, "PNG", transparency=b"\0" * 256)
    return file.getvalue()


def peak_of(clients: list[Callable[[], Any]]) -> int:
    """Return by how many bytes the peak memory grows while all clients run at once."""
    gc.collect()
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    with ThreadPoolExecutor(len(clients)) as threads:
        for done in [threads.submit(client) for client in clients]:
            done.result()
    status = Path("/proc/self/status").read_text()
    highest = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024
    return highest - int(before)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("metadata", [b"", chunk(b"iCCP", b"")])  # Pillow refuses empty profiles
def test_large_photos_of_16_clients_are_decoded_one_at_a_time(
    model: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, metadata: bytes
) -> None:
    monkeypatch.setattr(pool, "SMALL_PHOTOS", ThreadPoolExecutor(16))
    large = palette_png(1450)  # 2.1 million pixels, 26 MB
    large = large[:33] + metadata + large[33:]
    answers: list[Any] = []
    peak = peak_of([lambda: answers.append(model(image=[large]))] * 16)
    assert [answer[0]["error"] for answer in answers] == [None] * 16
    assert peak < 120 * 2**20  # 16 at a time would take 400 MiB


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_16_hostile_clients_use_at_most_600_mib(
    model: Callable[..., list[dict[str, Any]]],
) -> None:
    largest = int(MAX_PIXELS**0.5)
    photos = [BLUE, palette_png(largest), bomb(largest + 1), bomb(10_000), tile_tiff(40_000)]

    def ask() -> None:
        answers = model(image=photos)
        assert [answer["error"] for answer in answers[:2]] == [None, None]
        assert {answer["error"] for answer in answers[2:]} == {"over the pixel limit"}

    peak = peak_of([ask] * 16)
    assert peak < 600 * 2**20


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a served champion, and the folder of its model file."""
    folder, port = tmp_path_factory.mktemp("served"), free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        store = connect()
        register(store, make_model(folder / "model"))
    address = f"models:/{store.name}@champion"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", address]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    # The folder has no phototag package, so the model must ship its code.
    with run_server(command, f"http://127.0.0.1:{port}/ping", folder, environment):
        yield f"http://127.0.0.1:{port}/invocations", folder


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
def test_server_returns_labels_scores_and_errors(served: tuple[str, Path]) -> None:
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
def test_client_prints_what_predict_prints(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More photos, and more bytes, than the server accepts in one request."""
    address, folder = served
    monkeypatch.chdir(tmp_path)
    for number in range(MAX_ROWS + 2):
        Path(f"{number:03}.png").write_bytes(BLUE if number % 2 else NOISE)
    for number in range(3):  # bytes after the end of a photo are ignored
        Path(f"large {number}.png").write_bytes(BLUE + bytes(MAX_BYTES - len(BLUE)))
    Path("no photo.jpg").write_text("no photo")
    Path("none.png").symlink_to("nowhere")
    files = [folder / "model/model.safetensors", folder / "model/thresholds.json"]
    options = ["--model", str(files[0]), "--thresholds", str(files[1])]
    names = sorted(map(str, Path().iterdir()))
    expected, shown = (
        CliRunner().invoke(typer_app, [*command, *names, "-f", "csv"])
        for command in (["predict", *options], ["ask", address])
    )
    assert shown.exit_code == 0, shown.output
    assert shown.stderr == expected.stderr
    # The client does not know the files of the model.
    assert shown.stdout == expected.stdout.replace(model_key(files), "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("corrupt image", "truncated"),
        ("decompression bomb", "over the pixel limit"),
        ("200 MB body", "larger than 32 MiB"),
        ("nonsense JSON", "JSON"),
        ("another column", "image"),
        ("JSON nested too deeply", "the request cannot be read: send JSON"),
    ],
)
def test_server_refuses_invalid_requests_and_keeps_running(
    served: tuple[str, Path], case: str, reason: str
) -> None:
    bodies: dict[str, Callable[[], bytes]] = {
        "corrupt image": lambda: body_of(NOISE[: len(NOISE) // 2]),
        "decompression bomb": lambda: body_of(bomb(20_000)),
        "200 MB body": lambda: body_of(b"\0" * 150_000_000),
        "nonsense JSON": lambda: b'{"dataframe_split": {"columns": ["image"], "da',
        "another column": lambda: b'{"dataframe_split": {"columns": ["photo"], "data": [["x"]]}}',
        "JSON nested too deeply": lambda: b"[" * 10_000,
    }
    status, answer = post(served[0], bodies[case]())
    assert 400 <= status < 500
    assert reason in answer
    assert post(served[0], body_of(BLUE))[1]["predictions"][0]["labels"] == ["blue"]
