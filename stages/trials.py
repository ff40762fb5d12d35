"""Run the trials of a study, in a process that `phototag tune` starts."""

import logging
import signal
import sys
from pathlib import Path
from threading import Thread

from phototag.search.storage import Plan
from phototag.search.trials import run_trials

from . import run, train


def main() -> None:
    """Read the plan file passed as first argument; run trials until the study is finished."""
    logging.getLogger("dvc").setLevel(logging.WARNING)  # hides messages about dvc.lock
    Thread(target=end_with_parent, daemon=True).start()
    plan = Plan.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    run_trials(plan, train.train_network)


def end_with_parent() -> None:
    """End this process when standard input is closed, which happens when the parent ends."""
    sys.stdin.read()
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    run(main)
