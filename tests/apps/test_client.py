"""`phototag ask` with servers that do not answer as they should."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from phototag.apps import client
from phototag.base.errors import InputError
from phototag.cli import typer_app
from tests.servers import free_port

GOOD: dict[str, Any] = {"labels": ["cat"], "scores": {"cat": 0.75, "dog": 0.125}, "error": None}
BAD: dict[str, Any] = {"labels": [], "scores": {}, "error": "not an image: \x1b[31m"}


class Server:
    """HTTP server with canned answers; the number of rows of each request is recorded."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[int] = []
        self.status, self.body = 200, b""  # b"": a prediction for each row
        self.hang = threading.Event()
        self.hang.set()
        self.rows = [GOOD]
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                sent = json.loads(self.rfile.read(length))["dataframe_split"]["data"]
                outer.requests.append(len(sent))
                outer.hang.wait()
                rows = [outer.rows[number % len(outer.rows)] for number in range(len(sent) - 1)]
                body = outer.body or json.dumps({"predictions": [*rows, GOOD]}).encode()
                if outer.status:
                    self.send_response(outer.status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, and a current folder with the files a.jpg, b.jpg and c.jpg."""
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        Path(f"{name}.jpg").write_text(name)
    started = Server()
    yield started
    started.hang.set()
    started.server.shutdown()
    started.server.server_close()


def ask(*arguments: str) -> tuple[str, str]:
    """Return the output, and the message of an error."""
    shown = CliRunner().invoke(typer_app, ["ask", *arguments])
    assert isinstance(shown.exception, InputError) or not shown.exception, shown.exception
    problem = str(shown.exception or "")
    assert "\n" not in problem
    return shown.stdout, problem


def test_many_photos_are_sent_in_several_requests(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.rows = [GOOD, BAD]
    monkeypatch.setattr(client, "ROWS", 2)
    out, problem = ask(server.url + "/", "a.jpg", "b.jpg", "missing.jpg", "c.jpg", "missing.png")
    assert problem.startswith("paths that do not exist: 2, such as missing.jpg: ")
    assert [line[:28] for line in out.splitlines()] == [
        "a.jpg        cat 0.75",
        r"b.jpg        not an image: \x1b"[:28],
        "missing.jpg  unreadable: No ",
        "c.jpg        cat 0.75",
        "missing.png  unreadable: No ",
    ]
    assert server.requests == [1, 3, 2, 1]  # the first one asks for the labels
    server.requests.clear()
    monkeypatch.setattr(client, "ROWS", 100)
    monkeypatch.setattr(client, "NUM_BYTES", 2)
    monkeypatch.setattr(client, "MAX_BYTES", 1)
    Path("large.jpg").write_text("ab")
    out, problem = ask(f"{server.url}/invocations", "large.jpg", "a.jpg", "b.jpg", "c.jpg")
    assert problem == ""
    assert "larger than 32 MiB" in out
    assert server.requests == [1, 3, 2]


def test_only_unreadable_photos(server: Server) -> None:
    server.rows = [BAD]
    out, problem = ask(server.url, "-f", "csv", "a.jpg", "b.jpg")
    assert problem.startswith("none of these files could be read as a photo")
    assert out.startswith("file,labels,error,sha256,model_key,familiarity,cat,dog\n")
    assert len(out.splitlines()) == 3


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (404, b"", "status 404: pass the URL of a server that was started with `phototag serve"),
        (405, b"", "status 405: pass the URL of a server that was started with `phototag serve"),
        (400, b'{"error_code": "X", "message": "photos of\\nmore"}', "status 400: photos of more"),
        (500, b"<html>" * 500, "status 500: Internal Server Error"),
        (503, b"[]", "status 503: Service Unavailable"),
        (200, b"<html>", "this server does not serve a phototag model"),
        (200, b'{"predictions": [0.5]}', "this server does not serve a phototag model"),
        (200, b"[" * 10**5, "this server does not serve a phototag model"),
        (
            200,
            b'{"predictions": [{"labels": ["a"], "scores": {"b": 1}, "error": null}]}',
            "this server does not serve a phototag model",
        ),
        (500, b'{"message": null}', "status 500: Internal Server Error"),
        (200, b'{"predictions": []}', "this server does not serve a phototag model"),
        (0, b"", "no server answers ("),
    ],
)
def test_answers_that_are_no_predictions(
    server: Server, status: int, body: bytes, reason: str
) -> None:
    server.status, server.body = status, body
    out, problem = ask(server.url, "a.jpg")
    assert (out, len(server.requests)) == ("", 1)
    assert problem.startswith(f"{server.url}/invocations: ")
    assert reason in problem


def test_server_that_hangs_or_is_down(server: Server) -> None:
    server.hang.clear()
    _, problem = ask(server.url, "a.jpg", "--timeout", "0.05")
    assert "no answer in 0.05 seconds: pass a longer time with --timeout" in problem
    url = f"http://127.0.0.1:{free_port()}"
    assert "Connection refused): start one with" in ask(url, "a.jpg")[1]
    assert "no server answers (" in ask("http://a.invalid", "a.jpg")[1]


def test_server_that_starts_is_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    started: list[Server] = []

    def start(*_: object) -> None:
        started.append(Server(port))

    monkeypatch.setattr("urllib3.util.Retry.sleep", start)
    out, problem = ask(f"http://127.0.0.1:{port}", "a.jpg", "--wait", "60")
    started[0].server.shutdown()
    started[0].server.server_close()
    assert (out, problem, len(started)) == ("a.jpg  cat 0.75\n", "", 1)


@pytest.mark.parametrize(
    "url", ["a.jpg", "127.0.0.1:5001", "ftp://a", "http://", "http://a:x", "http://a b"]
)
def test_invalid_url(server: Server, url: str) -> None:
    assert ask(url, "a.jpg")[1].endswith("is not a URL: pass one such as http://127.0.0.1:5001")
