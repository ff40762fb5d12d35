"""`phototag serve` over HTTP: bodies, errors, token, metrics, log, reload and ends."""

import hashlib
import io
import json
import os
import re
import signal
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from typer.testing import CliRunner

from phototag.base.errors import InputError
from phototag.cli import typer_app
from phototag.server.log import read_log
from phototag.serving.limits import MAX_BYTES, MAX_PIXELS, MAX_REQUEST_BYTES, MAX_ROWS
from phototag.serving.tagger import load_tagger, tag_photos
from phototag.tracking.store import Store, connect
from tests.models import make_model, register
from tests.servers import free_port, run_server
from tests.serving.test_pyfunc import BLUE, NOISE, RED, base64_of, bomb, in_cell, palette_png

TOKEN = "a-secret:token"
ENTRY = "from phototag.cli import app; app()"
JSON, FORM, RAW = "application/json", "multipart/form-data; boundary=xyz", "image/png"


@dataclass
class Served:
    """A running server with its folder."""

    url: str
    folder: Path
    process: psutil.Process

    def post(
        self,
        body: bytes | None,
        kind: str | None = RAW,
        path: str = "/predict",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Return the status and the JSON of a response to a request with the token."""
        request = urllib.request.Request(self.url + path, body, headers or {})
        request.add_header("Authorization", request.headers.get("Authorization", f"Bearer {TOKEN}"))
        if body is not None:
            request.add_header("Content-Type", kind or "")
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def labels(self, photo: bytes) -> tuple[str, list[str]]:
        """Return the version that labelled a photo, and the labels."""
        status, answer = self.post(photo)
        assert status == 200, answer
        return answer["model"]["version"], answer["predictions"][0]["labels"]


def command(port: int, *options: str) -> list[str]:
    return [sys.executable, "-c", ENTRY, "serve", "--port", str(port), *options]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an MLflow store in which version 1 of three is the champion."""
    folder = tmp_path_factory.mktemp("served")
    photos = np.random.default_rng(1).integers(0, 256, (40, 16, 16, 3), np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        models = [make_model(folder / f"known{n}", known=n, photos=photos) for n in (3, 2, 1)]
        register(connect(), *models)
    return folder


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"DVC_ROOT": str(folder), "MLFLOW_TRACKING_URI": ""}


@pytest.fixture(scope="module")
def served(project: Path) -> Iterator[Served]:
    """A server with a token, a log and a root folder."""
    port = free_port()
    (project / "token").write_text(f"{TOKEN}\n")
    options = ("--token-file", str(project / "token"), "--log-predictions", str(project / "kept"))
    url = f"http://127.0.0.1:{port}"
    arguments = command(port, *options)
    with run_server(arguments, f"{url}/ready", project, environment(project)):
        (process,) = [p for p in psutil.Process().children() if p.cmdline() == arguments]
        yield Served(url, project, process)


def form(*photos: bytes, tail: bytes = b"--xyz--\r\n") -> bytes:
    head = b'--xyz\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n'
    return b"".join(head + photo + b"\r\n" for photo in photos) + tail


def inputs(*photos: bytes) -> bytes:
    return json.dumps({"inputs": [base64_of(photo) for photo in photos]}).encode()


@pytest.mark.slow
def test_all_forms_of_a_body_give_the_predictions_of_the_model(served: Served) -> None:
    files = [served.folder / "known3" / name for name in ("model.safetensors", "thresholds.json")]
    expected = tag_photos(load_tagger(files[0], files[1]), [BLUE, NOISE])
    found = [
        served.post(form(BLUE, NOISE), FORM),
        served.post(inputs(BLUE, NOISE), JSON),
        served.post(inputs(BLUE, NOISE), f"{JSON}; charset=utf-8", "/invocations"),
    ]
    for status, answer in found:
        assert status == 200
        assert answer == found[0][1]
    single = [served.post(photo, kind)[1] for photo, kind in ((BLUE, RAW), (NOISE, "image/jpeg"))]
    assert [answer["predictions"][0] for answer in single] == found[0][1]["predictions"]
    assert found[0][1]["model"] == {"name": served.folder.name, "version": "1"}
    for tags, prediction in zip(expected, found[0][1]["predictions"], strict=True):
        assert (prediction["labels"], prediction["error"]) == (tags.labels, None)
        assert prediction["scores"] == pytest.approx(tags.scores, abs=1e-5)
        assert prediction["familiarity"] == pytest.approx(tags.familiarity, abs=0.5)
    # A photo that cannot be read does not affect the others.
    good, bad = served.post(form(BLUE, b"no photo"), FORM)[1]["predictions"]
    assert (good["labels"], bad["labels"]) == (["blue"], [])
    assert "not an image" in bad["error"]


BAD: dict[str, tuple[Callable[[], bytes], str | None, int, str]] = {
    "no photo": (lambda: b"no photo", RAW, 400, "not an image"),
    "nothing": (lambda: b"", RAW, 400, "zero bytes"),
    "half a photo": (lambda: NOISE[: len(NOISE) // 2], RAW, 400, "truncated"),
    "a bomb": (lambda: bomb(20_000), RAW, 400, "over the pixel limit"),
    "too many pixels": (lambda: bomb(int(MAX_PIXELS**0.5) + 1), RAW, 400, "over the pixel limit"),
    "a large file": (lambda: bytes(MAX_BYTES + 1), RAW, 413, "larger than 32 MiB"),
    "another type": (lambda: b"a: 1", "application/yaml", 415, "application/yaml"),
    "a form of a page": (lambda: b"a=1", "application/x-www-form-urlencoded", 415, "send a photo"),
    "an empty type": (lambda: BLUE, "", 415, "missing"),
    "a form without boundary": (lambda: form(BLUE), "multipart/form-data", 400, "form"),
    "a form with another boundary": (
        lambda: form(BLUE),
        "multipart/form-data; boundary=abc",
        400,
        "form",
    ),
    "a form that ends early": (lambda: form(BLUE, tail=b"")[:-20], FORM, 400, "photo"),
    "an empty form": (lambda: b"--xyz--\r\n", FORM, 400, "no row contains a photo"),
    "a form with text": (
        lambda: b'--xyz\r\nContent-Disposition: form-data; name="p"\r\n\r\nx\r\n--xyz--\r\n',
        FORM,
        400,
        "send each photo as a file",
    ),
    "a form with too many photos": (lambda: form(*[RED] * (MAX_ROWS + 1)), FORM, 400, "Too many"),
    "a large form": (lambda: form(bytes(MAX_REQUEST_BYTES + 2**20)), FORM, 413, "65 MiB"),
    "half of JSON": (lambda: inputs(BLUE)[:-5], JSON, 400, "JSON"),
    "JSON nested too deeply": (lambda: b"[" * 100_000, JSON, 400, "deep nesting"),
    "a long number": (lambda: in_cell(b"1" * 5000), JSON, 400, "long numbers"),
    "no UTF-8": (lambda: in_cell(b'"\xff"'), JSON, 400, "JSON"),
    "half a character": (lambda: in_cell(b'"\\ud800"'), JSON, 400, "not base64"),
    "JSON without photos": (lambda: b"{}", JSON, 400, 'send {"inputs": ['),
    "JSON that is a list": (lambda: b"[1]", JSON, 400, 'send {"inputs": ['),
    "two formats": (lambda: b'{"inputs": [], "instances": []}', JSON, 400, "has 2 of the keys"),
    "inputs of a wrong type": (lambda: b'{"inputs": 5}', JSON, 400, "no column `image`"),
    "another column": (
        lambda: b'{"dataframe_split": {"columns": ["a"], "data": [["x"]]}}',
        JSON,
        400,
        "no column `image`",
    ),
    "short rows": (
        lambda: b'{"dataframe_split": {"columns": ["b", "image"], "data": [["x"]]}}',
        JSON,
        400,
        "no column `image`",
    ),
    "no base64": (lambda: in_cell(b'"%%%"'), JSON, 400, "not base64"),
    "numbers": (lambda: b'{"inputs": [1, null]}', JSON, 400, "neither base64 nor bytes"),
    "lists in lists": (lambda: in_cell(b"[" * 900 + b"]" * 900), JSON, 400, "neither base64"),
    "a file of the server": (
        lambda: in_cell(b'"file:/etc/passwd"'),
        JSON,
        400,
        "does not read files",
    ),
    "too many photos": (lambda: inputs(*[RED] * (MAX_ROWS + 1)), JSON, 400, "at most 256 photos"),
    "photos that are too large": (
        lambda: inputs(*[bytes(MAX_BYTES - 1)] * 2 + [b"abc"]),
        JSON,
        400,
        "more than 64 MiB",
    ),
    "large JSON": (lambda: inputs(bytes(MAX_REQUEST_BYTES * 3 // 2)), JSON, 413, "96 MiB"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_bad_body_gets_one_sentence_and_the_server_continues(served: Served, case: str) -> None:
    make, kind, expected, reason = BAD[case]
    status, answer = served.post(make(), kind)
    assert (status, list(answer)) == (expected, ["error_code", "message"])
    assert reason in answer["message"]
    assert len(answer["message"]) <= 500
    assert not re.search(r"Traceback|File \"|\.py\b", answer["message"])
    assert served.labels(BLUE)[1] == ["blue"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/", None, 404, "ENDPOINT_NOT_FOUND"),
        ("/nothing", b"x", 404, "ENDPOINT_NOT_FOUND"),
        ("/predict", None, 405, "METHOD_NOT_ALLOWED"),
        ("/metrics", b"x", 405, "METHOD_NOT_ALLOWED"),
    ],
)
def test_unknown_paths_have_errors_in_the_same_style(
    served: Served, path: str, body: bytes | None, status: int, code: str
) -> None:
    found, answer = served.post(body, path=path)
    assert (found, answer["error_code"], list(answer)) == (status, code, ["error_code", "message"])


@pytest.mark.slow
def test_token_is_required_and_not_visible(served: Served) -> None:
    for value in (
        "",
        "Bearer",
        f"Bearer {TOKEN}x",
        f"Basic {TOKEN}",
        "Bearer é",
        f"Bearer {TOKEN[:-1]}",
    ):
        for path, body in (("/predict", BLUE), ("/invocations", BLUE), ("/metrics", None)):
            status, answer = served.post(body, path=path, headers={"Authorization": value})
            assert (status, answer["error_code"]) == (401, "UNAUTHENTICATED")
    for path in ("/health", "/ready", "/openapi.json"):
        assert served.post(None, path=path, headers={"Authorization": ""})[0] == 200
    assert TOKEN not in " ".join(served.process.cmdline())


@pytest.mark.slow
def test_ask_sends_the_token(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(BLUE)
    arguments = ["ask", served.url, str(tmp_path / "a.png")]
    shown = CliRunner().invoke(typer_app, arguments)
    assert "send Authorization: Bearer TOKEN" in str(shown.exception)
    monkeypatch.setenv("PHOTOTAG_TOKEN", TOKEN)
    assert "blue 1.00" in CliRunner().invoke(typer_app, arguments).output


def scrape(served: Served) -> dict[str, float]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(f"{served.url}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        lines = response.read().decode().splitlines()
    return {k: float(v) for k, v in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


@pytest.mark.slow
def test_metrics_count_requests_photos_and_labels(served: Served) -> None:
    before = scrape(served)
    served.post(form(BLUE, BLUE, b"x"), FORM)
    served.post(b"x")
    after = scrape(served)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown('phototag_request_seconds_count{status="200"}') == 1
    assert grown('phototag_request_seconds_count{status="400"}') == 1
    assert grown('phototag_photos_total{outcome="ok"}') == 2
    assert grown('phototag_photos_total{outcome="error"}') == 1
    assert grown('phototag_labels_total{label="blue"}') == 2
    assert after["phototag_requests_in_flight"] == 0
    assert after[f'phototag_model_info{{name="{served.folder.name}",version="1"}}'] == 1
    assert after["process_resident_memory_bytes"] > 0


@pytest.mark.slow
def test_log_has_the_served_photos_and_nothing_of_their_pixels_or_exif(served: Served) -> None:
    drawn = np.random.default_rng(7).integers(0, 256, (40, 40, 3), np.uint8)
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x010E] = "taken at a secret place"
    Image.fromarray(drawn).save(file, "JPEG", exif=exif)
    photo = file.getvalue()
    (prediction,) = served.post(photo, "image/jpeg")[1]["predictions"]
    last = list(read_log(served.folder / "kept"))[-1]
    assert last.sha256 == hashlib.sha256(photo).hexdigest()
    assert (last.labels, last.familiarity) == (prediction["labels"], prediction["familiarity"])
    assert last.scores == pytest.approx(prediction["scores"], abs=1e-6)
    assert last.features is not None
    assert last.features.shape == (3,)
    written = [path for path in (served.folder / "kept").rglob("*") if path.is_file()]
    written += [path for path in served.folder.iterdir() if path.is_file()]
    for path in written:
        assert b"a secret place" not in path.read_bytes()
        assert photo[200:240] not in path.read_bytes()
    opened = [file.path for file in served.process.open_files()]
    assert not [path for path in opened if path.startswith("/tmp/tmp")]


@pytest.mark.slow
def test_docs_page_and_schema_describe_the_routes(served: Served) -> None:
    with urllib.request.urlopen(f"{served.url}/docs", timeout=60) as page:
        assert b"/openapi.json" in page.read()
    schema = served.post(None, path="/openapi.json")[1]
    assert set(schema["paths"]) == {"/predict", "/invocations", "/health", "/ready", "/metrics"}
    operation = schema["paths"]["/predict"]["post"]
    assert {JSON, "multipart/form-data", "image/*"} <= set(operation["requestBody"]["content"])
    assert set(operation["responses"]) >= {"200", "400", "401", "413", "415", "503"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_16_hostile_clients_use_at_most_700_mib_and_give_them_back(served: Served) -> None:
    status = Path(f"/proc/{served.process.pid}/status")
    noise = np.random.default_rng(0).bytes(20 * 2**20)
    bodies = [
        (inputs(noise, noise), JSON),
        (form(noise, noise, noise), FORM),
        (noise, RAW),
        (palette_png(int(MAX_PIXELS**0.5)), RAW),
    ]
    before = served.process.memory_info().rss
    Path(f"/proc/{served.process.pid}/clear_refs").write_text("5")  # resets the peak
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda n: served.post(*bodies[n % 4])[0], range(16)))
    assert answers == [400, 400, 400, 200] * 4
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) * 1024
    assert peak - before < 700 * 2**20
    assert served.process.memory_info().rss - before < 150 * 2**20


@pytest.mark.slow
def test_reload_under_load_loses_no_request(
    served: Served, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 1 knows three labels and version 2 knows two, so labels name the version."""
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    store = connect()
    found: list[tuple[str, list[str]]] = []
    stopped = threading.Event()

    def ask() -> None:
        while not stopped.is_set():
            found.append(served.labels(RED))

    with ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(ask) for _ in range(8)]
        for number in ("2", "1"):
            store.client.set_registered_model_alias(store.name, "champion", number)
            try:
                while served.post(None, path="/ready")[1]["version"] != number:
                    pass
            except BaseException:
                stopped.set()
                raise
        stopped.set()
        for each in asked:
            each.result()
    versions = [version for version, _ in found]
    assert set(versions) == {"1", "2"}
    assert all(labels == (["red"] if version == "1" else []) for version, labels in found)


@pytest.mark.slow
def test_sigterm_completes_requests_and_a_killed_server_starts_again(
    project: Path, port: int, tmp_path: Path
) -> None:
    served = Served(f"http://127.0.0.1:{port}", project, psutil.Process())
    log = tmp_path / "kept"
    arguments = command(port, "--log-predictions", str(log), "--log-photos", "--keep-days", "3")
    ready = f"{served.url}/ready"
    # The server does not need a clone of the project.
    outside = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db",
        "PHOTOTAG_MODEL": f"models:/{project.name}@champion",
        "PHOTOTAG_TOKEN": TOKEN,
    }
    variables = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"} | outside
    with run_server(arguments, ready, tmp_path, variables):
        (process,) = [p for p in psutil.Process().children() if p.cmdline() == arguments]
        served.labels(BLUE)
        process.kill()
    assert len(list(read_log(log))) == 1
    with run_server(arguments, ready, tmp_path, variables):
        (process,) = [p for p in psutil.Process().children() if p.cmdline() == arguments]
        served.labels(RED)
        large = palette_png(int(MAX_PIXELS**0.5))
        with ThreadPoolExecutor(1) as client:
            answer = client.submit(served.post, inputs(*[large] * 4), JSON)
            while process.num_threads() and not in_flight(served):
                assert not answer.done()
            process.send_signal(signal.SIGTERM)
            status, found = answer.result()
        assert (status, len(found["predictions"])) == (200, 4)
        process.wait(60)
    assert len(list(read_log(log))) == 6
    photos = {path.name for path in (log / "photos").rglob("*") if path.is_file()}
    assert photos == {hashlib.sha256(photo).hexdigest() for photo in (BLUE, RED, large)}


def in_flight(served: Served) -> bool:
    return scrape(served)["phototag_requests_in_flight"] == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--log-photos"], "--log-photos requires a folder: add --log-predictions FOLDER"),
        (["--keep-days", "3"], "--keep-days requires a folder"),
        (["--token-file", "none"], "none cannot be read"),
        (["--token-file", "empty"], "empty is not a token"),
        (["--log-predictions", "empty"], "empty could not be written"),
        ([], "does not exist in the MLflow store: run `dvc repro`"),
        (["models:/x"], "is not the address of a registered model"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    store: Store,
    tmp_path: Path,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    shown = CliRunner().invoke(typer_app, ["serve", "--port", str(port), *options])
    assert isinstance(shown.exception, InputError)
    assert reason in str(shown.exception)
