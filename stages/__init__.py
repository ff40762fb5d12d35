"""The pipeline's stages, one short script each: `python -m stages.NAME` from the root."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path

# A queued or --temp experiment runs in a copy of the repository. This checkout's library must come
# before the one the environment installed, or the experiment would run other code than it records.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))


def run(main: Callable[[], None]) -> None:
    """Run a stage; what is wrong with the user's input is told in one line, without a traceback."""
    from phototag.base.errors import InputError

    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    # At its end the interpreter would look through all of torch for garbage: 1.5 s a stage.
    gc.freeze()
