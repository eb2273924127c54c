"""What other packages say: C++ code on standard streams, Python code in warnings."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from keras_xaic.errors import XaicWarning

_streams = threading.RLock()
"""Held while a stream of the process is somewhere else: of two threads the later would put back what it found there."""


def _after_fork() -> None:
    global _streams
    _streams = threading.RLock()  # a thread that is not here may have held it


os.register_at_fork(after_in_child=_after_fork)


class Said:
    """What was said while standard error was captured.

    Attributes:
        text: Filled in when the capture ends.
    """

    text = ""


@contextlib.contextmanager
def captured_stderr() -> Iterator[Said]:
    """Sends file descriptor 2 of this process to a file for the length of the block, and mutes Python warnings."""
    said = Said()
    with _streams, tempfile.TemporaryFile() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said.text = file.read().decode(errors="replace")


@contextlib.contextmanager
def muted_stdout() -> Iterator[None]:
    """Drops what C++ code prints on standard output within the block: that is for results alone."""
    with _streams:
        try:
            sys.stdout.flush()
            kept = os.dup(1)
        except (AttributeError, OSError, ValueError):  # there is none, or it is closed
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


@contextlib.contextmanager
def warnings_are_told() -> Iterator[None]:
    """Has warnings of other packages told where the user makes errors of all (``-W error``): they are not the user's to mend.

    Ours stay errors.
    """
    if not any(action == "error" for action, *_ in warnings.filters):
        yield
        return
    with warnings.catch_warnings():
        found, before = [], list[Any](warnings.filters)
        for action, message, category, *place in before:
            if action != "error":
                found.append((action, message, category, *place))
                continue
            if issubclass(XaicWarning, category) or issubclass(category, XaicWarning):
                found.append(("error", message, XaicWarning, *place))
            found.append(("default", message, category, *place))
        warnings.filters[:] = found  # type: ignore[index]
        yield
