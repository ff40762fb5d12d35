"""Trials: the train stage with the settings that a study suggests. `phototag tune` starts it."""

import logging
import signal
import sys
from pathlib import Path
from threading import Thread

from phototag.search.storage import Plan
from phototag.search.trials import run_trials

from . import run, train


def main() -> None:
    """Run trials of the plan whose file is the first argument, until the study is finished."""
    logging.getLogger("dvc").setLevel(logging.WARNING)  # else it logs each update of dvc.lock
    # Ctrl-C reaches the parent too, which then ends this process and leaves its trial resumable.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=end_with_parent, daemon=True).start()
    plan = Plan.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    run_trials(plan, train.train_network)


def end_with_parent() -> None:
    """End this process when its parent ends, because its standard input closes then."""
    sys.stdin.read()
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    run(main)
