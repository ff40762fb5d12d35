"""Trials: the train stage, over and over, with what a study proposes; `phototag tune` starts it."""

import signal
import sys
from pathlib import Path
from threading import Thread

from phototag.search.journal import Plan
from phototag.search.trials import work

from . import run, train


def main() -> None:
    """Run the trials of the plan that is named, until there are no more."""
    Thread(target=end_with_parent, daemon=True).start()
    plan = Plan.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    work(plan, train.train_network)


def end_with_parent() -> None:
    """End when who started this is gone, also killed: its end of the pipe closes."""
    sys.stdin.read()
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    run(main)
