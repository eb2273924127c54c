"""This process: what it tells its parent, what it may use, and copies of it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Callable, Optional

START = "started"
"""First line of progress: Python and numpy work here."""

MACHINE = 64
"""Where not even the result can be written, the child ends with this plus the number of the error."""

STARTED, FAILED, ENDED = b"started", b"failed", b"ended"
"""What `serve` says begins with one of these; a number follows: the process, the error that kept it from starting, or how it
ended."""

PROGRESS = 1
"""File descriptor of progress."""


def tell(line: str) -> None:
    """Says how far the work is."""
    os.write(PROGRESS, f"{line}\n".encode())


def in_copy(action: Callable[[], bytes]) -> Optional[bytes]:
    """Returns what `action` gives in a copy of this process; None where it raises or dies. What it says is lost."""
    reading, writing = os.pipe()
    copy = os.fork()
    if copy == 0:
        try:
            os.close(reading)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            end_with_parent()
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(b"=" + action())
        finally:
            os._exit(0)  # whatever happened: the parent's code must not run twice
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        given = pipe.read()
    os.waitpid(copy, 0)
    return given[1:] if given else None


def usual_signals() -> None:
    """Sets signals back to what they are by default: children begin with those that their parent ignores or blocks."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else nobody learns how a child ended
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def end_with_parent() -> None:
    """Asks Linux to end this process when the one that started it ends, however that ends."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def limit_memory(limit: Optional[int]) -> None:
    """Allows `limit` bytes more than the process holds now (Python, numpy and the mapped inputs)."""
    if limit is None or not os.path.exists("/proc/self/statm"):
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = now + limit if hard == resource.RLIM_INFINITY else min(now + limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


def take_stdout() -> None:
    """Keeps stdout for progress: what an interpreter prints is its words, which go to stderr."""
    global PROGRESS
    PROGRESS = os.dup(1)
    os.dup2(2, 1)


def reset_peak() -> Optional[int]:
    """Starts a new high-water mark and returns the bytes held now; None where the system does not tell."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
        return _status("VmRSS")
    except (OSError, StopIteration):
        return None


def peak_since(before: Optional[int]) -> Optional[int]:
    """Returns by how much the high-water mark is above `before`."""
    return None if before is None else max(0, _status("VmHWM") - before)


def _status(key: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith(key)).split()[1]) * 1024
