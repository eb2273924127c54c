"""Signals that interrupt a command, and whether one came."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Optional

INTERRUPTED = threading.Event()
"""Set from the moment a command was interrupted: native code that is being imported then turns the interruption into an error
of its own."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP interrupt as Ctrl-C does, so that what is temporary is cleaned up.

    Processes that a command starts can be waited for, also where whoever started it ignores how children end.
    """

    def interrupt(number: int, frame: Optional[FrameType]) -> None:
        INTERRUPTED.set()
        raise KeyboardInterrupt

    before = {}
    INTERRUPTED.clear()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, interrupt)
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
