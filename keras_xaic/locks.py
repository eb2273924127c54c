"""Who is at work on what: files that a living process holds and has signed."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterator
from typing import Any, Optional

from keras_xaic.errors import ExportError
from keras_xaic.files import hold, machine_error

BY = "keras-xaic"
"""What our small JSON files say they are by."""


@contextlib.contextmanager
def held(path: pathlib.Path, shown: pathlib.Path) -> Iterator[None]:
    """Holds the lock file `path`; it is removed when the block ends, whatever way."""
    try:
        handle = _lock(path, shown)
    except OSError as error:
        raise machine_error(error, path) or error from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _lock(path: pathlib.Path, shown: pathlib.Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            mine, holder = hold(handle), read_holder(path)
            if mine is None:
                mine = holder is None
            if os.fstat(handle).st_size and holder is None:
                raise ExportError(f"{path} is not a lock of ours", "", "Rename it, or choose another {out}")
            if not mine and (holder is None or not is_gone(holder)):
                told = "" if holder is None else f" {holder['pid']} on {holder['host']} since {holder['since']}"
                raise ExportError(
                    f"{shown} is being written by another process:{told or ' it has only just begun'}",
                    "one process at a time",
                    "Wait for it, or choose another {out}",
                )
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(path)):  # else its holder has just removed it
                    sign(handle)
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def sign(handle: int) -> None:
    """Writes who this process is into a file that it holds."""
    os.ftruncate(handle, 0)
    facts = {"pid": os.getpid(), "start": _started(os.getpid()), "host": socket.gethostname()}
    os.pwrite(handle, json.dumps({"by": BY, **facts, "since": time.strftime("%Y-%m-%d %H:%M:%S")}).encode(), 0)


def read_holder(path: pathlib.Path) -> Optional[dict[str, Any]]:
    """Returns what a process signed a file with (see `sign`); None if it is missing or not ours."""
    content = read_ours(path) or {}
    return content if isinstance(content.get("pid"), int) and {"host", "since"} <= content.keys() else None


def is_gone(holder: dict[str, Any]) -> bool:
    """Returns whether the process that signed is known to be dead: it ran on this machine and does no more."""
    if holder.get("host") != socket.gethostname():
        return False
    start = _started(int(holder["pid"]))
    return start is None or (holder.get("start") is not None and start != holder["start"])


def _started(pid: int) -> Optional[int]:
    """Returns when a process began, in ticks since the machine did: a number that no other process of its id has."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[19])


def read_ours(path: pathlib.Path) -> Optional[dict[str, Any]]:
    """Returns the content of a small JSON file of ours; None if it is missing or not ours."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > 10_000_000:
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.pop("by", None) == BY else None
