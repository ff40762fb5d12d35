"""Scripts of the pipeline's stages; run `python -m stages.NAME` in the project's root."""

import gc
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

# DVC runs a queued or `--temp` experiment in a copy of the repository. Put the copy's `src` first
# in the search path, so that the experiment runs the code in the copy, not the installed code.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))


def run(main: Callable[[], None]) -> None:
    """Check params.yaml and run a stage; print an input error as one line without a traceback."""
    from phototag.base.errors import InputError

    try:
        # Import by name, so that dvc.yaml need not list this dependency: checks change no output.
        import_module("phototag.schema.checks").check_params()
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    # Without `freeze`, the garbage collector scans all of torch at exit, which takes 1.5 s.
    gc.freeze()
