"""Scripts of the pipeline's stages; run `python -m stages.NAME` in the project's root."""

import gc
import inspect
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

# DVC runs a queued or `--temp` experiment in a copy of the repository. Put the copy's `src` first
# in the search path, so that the experiment runs the code in the copy, not the installed code.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from phototag.base.files import exit_on_input_error
from phototag.base.processes import end_with_ancestor, hold_lock


def run(main: Callable[[], None]) -> None:
    """Check params.yaml and run a stage. Wait while another process runs this stage."""
    # torchrun runs a stage in several processes, and on several machines that share a folder.
    # Each of these processes has its own lock.
    ranks = (os.environ.get(name) for name in ("PET_NODE_RANK", "LOCAL_RANK"))
    name = "-".join(filter(None, (Path(inspect.getfile(main)).stem, *ranks)))
    with exit_on_input_error():
        _check_params()
        with hold_lock(Path(".phototag/locks", name), "runs the same stage in this folder"):
            main()
    # Without `freeze`, the garbage collector scans all of torch at exit, which takes 1.5 s.
    gc.freeze()


def _check_params() -> None:
    # Import by name, so that dvc.yaml need not list this dependency: checks change no output.
    import_module("phototag.schema.checks").check_params()


# End the stage when DVC, or the phototag command that started DVC, ends. Otherwise, the outputs of
# the stage could replace those of the next `dvc repro`.
if "DVC_STAGE" in os.environ:
    end_with_ancestor("DVC_STAGE")
# While Python looks for the module in `python -m stages.NAME`, the first argument is "-m". Report
# invalid params now, because the module then imports PyTorch and MLflow, which takes seconds.
if sys.argv[0] == "-m":
    with exit_on_input_error():
        _check_params()
