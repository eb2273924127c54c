"""The command `xaic`: thin, every command is one public function of the package."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Optional

__all__ = ["main"]


def main() -> None:
    """Entry point of the command `xaic`."""
    try:
        with _interruptible(), contextlib.ExitStack() as stack:
            from keras_xaic.cli.app import app

            _own_temporary_files(stack)
            app(prog_name="xaic", standalone_mode=True)
    except KeyboardInterrupt:  # before a command is at work, which says more
        sys.stderr.write("xaic: interrupted.\n")
        sys.exit(130)
    except SystemExit as error:
        sys.exit(130 if error.code == 1 else error.code)  # 1: older releases of typer, interrupted while they read the options


def _own_temporary_files(stack: contextlib.ExitStack) -> None:
    """Gives all temporary files, those of libraries too, a directory of ours; the next command removes what a kill left."""
    from keras_xaic.errors import MachineError
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


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP interrupt as Ctrl-C does, so that what is temporary is cleaned up."""

    def interrupt(number: int, frame: Optional[FrameType]) -> None:
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
