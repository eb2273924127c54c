"""The command `xaic`: thin, every command is one public function of the package."""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import os
import sys
import tempfile
from typing import Optional

from keras_xaic.cli.interruptions import INTERRUPTED, interruptible
from keras_xaic.errors import MachineError

__all__ = ["main"]


def main() -> None:
    """Entry point of the command `xaic`."""
    gc.set_threshold(20_000, 20, 20)  # imports and graphs are many small objects: to look for garbage so often takes seconds
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells where it keeps fonts if no home can be written
    atexit.register(gc.freeze)  # at its end Python looks once more, twice over all that TensorFlow has: a second and more
    try:
        with interruptible(), contextlib.ExitStack() as stack:
            from keras_xaic.cli.streams import flush, open_closed_streams

            open_closed_streams()
            from keras_xaic.cli.app import app

            _own_temporary_files(stack)
            try:
                app(prog_name="xaic", standalone_mode=True)
            finally:
                flush()
    except SystemExit as error:
        # 1 comes from typer alone: interrupted while it reads the options, or nobody reads its help to the end.
        sys.exit(error.code if error.code != 1 else 130 if INTERRUPTED.is_set() else 0)
    except MachineError as error:
        sys.stderr.write(f"xaic: {error}\n")
        sys.exit(error.exit_code)
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt) and not INTERRUPTED.is_set():
            raise
        sys.stderr.write("xaic: interrupted.\n")  # before a command is at work, which says more
        sys.exit(130)
    finally:
        INTERRUPTED.clear()


def _own_temporary_files(stack: contextlib.ExitStack) -> None:
    """Gives all temporary files, those of libraries too, a directory of ours; the next command removes what a kill left."""
    from keras_xaic.temporary import temporary_directory

    # What is raised while something is thrown away (an archive on a full disk, say) is no news to a user.
    sys.unraisablehook = lambda _: None
    stack.callback(setattr, tempfile, "tempdir", tempfile.tempdir)
    stack.callback(_set_again, "TMPDIR", os.environ.get("TMPDIR"))
    with contextlib.suppress(MachineError):  # who needs temporary files will say it
        own = stack.enter_context(temporary_directory())
        tempfile.tempdir = os.environ["TMPDIR"] = str(own)  # what is started inherits it


def _set_again(name: str, value: Optional[str]) -> None:
    os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
