"""What C++ code says on standard streams, kept from the user's terminal and kept for error messages."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


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
    with tempfile.TemporaryFile() as file, warnings.catch_warnings():
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
