import signal
import subprocess
import sys

import psutil
import pytest

SCRIPT = """
import signal, subprocess, sys
from phototag.base.processes import end_children_on_exit
# Tests that run in the background ignore Ctrl-C, and under nohup they ignore SIGHUP.
signal.signal(int(sys.argv[1]), signal.SIG_DFL)
with end_children_on_exit():
    child = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], start_new_session=True)
    try:
        sys.stdin.readline()
        signal.raise_signal(int(sys.argv[1]))
    except BaseException:
        child.kill()  # as `subprocess.run` does
        raise
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_all_child_processes(number: signal.Signals) -> None:
    command = [sys.executable, "-c", SCRIPT, str(int(number))]
    parent = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert parent.stdout
    grandchild = psutil.Process(int(parent.stdout.readline()))
    parent.communicate(b"go\n", timeout=20)
    assert parent.returncode != 0
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE
