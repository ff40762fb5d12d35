"""Scripts of the pipeline's stages; run `python -m stages.NAME` in the project's root."""

import gc
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path

# DVC runs a queued or `--temp` experiment in a copy of the repository. Put the copy's `src` first
# in the search path, so that the experiment runs the code in the copy, not the installed code.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))


def run(main: Callable[[], None]) -> None:
    """Check params.yaml and run a stage, of which each copy of the project runs one at a time."""
    from phototag.base.processes import hold_lock

    # Several machines can train in one folder: each has its own lock.
    name = f"{Path(inspect.getfile(main)).stem}-{os.environ.get('PET_NODE_RANK', 0)}"
    lock = hold_lock(Path(".phototag/locks", name), "runs the same stage in this folder")
    with _exit_on_input_error():
        _check_params()
        # If torchrun started this process, the process that started torchrun has the lock.
        with nullcontext() if "TORCHELASTIC_RUN_ID" in os.environ else lock:
            main()
    # Without `freeze`, the garbage collector scans all of torch at exit, which takes 1.5 s.
    gc.freeze()


@contextmanager
def _exit_on_input_error() -> Iterator[None]:
    """Print an input error as one line without a traceback, and exit."""
    from phototag.base.errors import InputError
    from phototag.base.files import report_failed_write

    try:
        with report_failed_write(Path.cwd()):
            yield
    except InputError as error:
        sys.exit(f"error: {error}")


def _check_params() -> None:
    # Import by name, so that dvc.yaml need not list this dependency: checks change no output.
    import_module("phototag.schema.checks").check_params()


def _end_with_dvc() -> None:
    """End this process when DVC, or the program that started DVC, ends.

    DVC would not use its outputs, and the outputs could replace those of the next `dvc repro`.
    """
    from phototag.base.processes import end_with_ancestor

    end_with_ancestor("DVC_STAGE")


if "DVC_STAGE" in os.environ:  # DVC started this process; the stage's imports take seconds
    _end_with_dvc()

# While Python looks for the module in `python -m stages.NAME`, the first argument is "-m". Report
# invalid params now, because the module then imports PyTorch and MLflow, which takes seconds.
if sys.argv[0] == "-m":
    with _exit_on_input_error():
        _check_params()
