"""A `python` command that starts `-m stages.NAME` without the time for imports.

A server imports the libraries once and forks for each stage. The command is a client that passes
arguments, streams and signals on and exits with the exit code of the stage. This module contains
both; the client imports nothing but the standard library.
"""

import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

MODULES = (
    "filelock",
    "jinja2",
    "joblib.externals.loky",
    "matplotlib.pyplot",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "pydantic",
    "safetensors.torch",
    "scipy.optimize",
    "sklearn.metrics",
    "torch._dynamo",
    "tqdm",
)
PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
SCRIPT = """#!/bin/sh
case "$*" in
"-m stages."* | "-u -m stages."*) exec "{python}" -I -S "{module}" ask "{address}" "$@" ;;
*) exec "{python}" "$@" ;;
esac
"""


@cache
def warm_python() -> Path:
    """Return the path of the command; all workers of pytest share one server."""
    import tempfile

    from filelock import FileLock

    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    # The folder name is short because a socket path has at most 107 bytes.
    folder = Path(tempfile.gettempdir(), f"phototag-{run[:16]}")
    folder.mkdir(exist_ok=True)
    script = folder / "python"
    with FileLock(folder / "lock"):
        if not script.exists():
            _servers.append(_start_server(folder / "socket"))
            script.write_text(
                SCRIPT.format(
                    python=sys.executable,
                    module=Path(__file__).resolve(),
                    address=folder / "socket",
                )
            )
            script.chmod(0o755)
    return script


_servers: list[subprocess.Popen[bytes]] = []  # the server ends when its pipe is closed


def _start_server(address: Path) -> subprocess.Popen[bytes]:
    """Start the server; it ends together with this process."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", str(address)],
        env=environment,
        stdin=subprocess.PIPE,  # end of file means that this process has ended
        stdout=subprocess.PIPE,
    )
    assert server.stdout
    assert server.stdout.read(5) == b"ready"
    return server


def ask(address: str, arguments: list[str]) -> None:
    """Run a stage in a fork of the server, as if it were this process."""
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(address)
        except OSError:  # the worker that started the server has ended
            os.execv(sys.executable, [sys.executable, *arguments])
        request = json.dumps([arguments, str(Path.cwd()), dict(os.environ)]).encode()
        socket.send_fds(server, [struct.pack("!I", len(request))], [0, 1, 2])
        server.sendall(request)
        for number in PASSED_ON:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda number, _: server.sendall(bytes([number])))
        (code,) = struct.unpack("!i", server.recv(4))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def serve(address: str) -> None:
    """Import the libraries, then fork for each client; return in the process that runs a stage."""
    import gc
    import importlib

    del sys.path[0]  # the folder of this module
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()  # frozen objects stay in memory pages that all forks share
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.write(1, b"ready")
    while listener.fileno() in select.select([listener.fileno(), 0], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer(connection)
            return
        connection.close()
    shutil.rmtree(Path(address).parent)
    sys.exit()


def answer(connection: socket.socket) -> None:
    """Fork again: one process becomes the stage, the other sends its exit code to the client."""
    header, streams, _, _ = socket.recv_fds(connection, 4, 3)
    (left,) = struct.unpack("!I", header)
    request = b""
    while left > len(request):
        request += connection.recv(left - len(request))
    stage = os.fork()
    if stage == 0:
        connection.close()
        become(streams, *json.loads(request))
        return
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(stage)
    while ended not in select.select([connection.fileno(), ended], [], [])[0]:
        numbers = connection.recv(1)
        os.kill(stage, numbers[0] if numbers else signal.SIGKILL)
        if not numbers:
            os._exit(1)
    _, status = os.waitpid(stage, 0)
    connection.sendall(struct.pack("!i", os.waitstatus_to_exitcode(status)))
    os._exit(0)


def become(
    streams: list[int], arguments: list[str], folder: str, environment: dict[str, str]
) -> None:
    """Take over the streams, arguments, folder and environment of the client."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = arguments[arguments.index("-m") + 1 :]
    named = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [folder, *filter(None, named)]


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        ask(sys.argv[2], sys.argv[3:])
    else:
        serve(sys.argv[2])
        # runpy is imported here so that the stage ends like a separate process.
        import runpy

        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
