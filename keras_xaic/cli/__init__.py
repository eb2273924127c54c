"""The command `xaic`: thin, every command is one public function of the package."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Optional

__all__ = ["main"]


def main() -> None:
    """Entry point of the command `xaic`."""
    try:
        with _interruptible():
            from keras_xaic.cli.app import app

            app(prog_name="xaic", standalone_mode=True)
    except KeyboardInterrupt:  # before a command is at work, which says more
        sys.stderr.write("xaic: interrupted.\n")
        sys.exit(130)
    except SystemExit as error:
        sys.exit(130 if error.code == 1 else error.code)  # 1: older releases of typer, interrupted while they read the options


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
