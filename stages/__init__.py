"""The pipeline's stages, one short script each: `python -m stages.NAME` from the root."""

import gc
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

# A queued or --temp experiment runs in a copy of the repository. This checkout's library must come
# before the one the environment installed, or the experiment would run other code than it records.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))


def run(main: Callable[[], None]) -> None:
    """Check params.yaml, then run a stage; print an input error as one line without a traceback."""
    from phototag.base.errors import InputError

    try:
        # A check changes no output, so it is imported in a way that makes it no dependency.
        import_module("phototag.schema.checks").check_params()
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    # Without this the interpreter searches all of torch for garbage at exit, for 1.5 s per stage.
    gc.freeze()
