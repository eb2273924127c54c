"""Temporary directories that never stay: what a killed process leaves, the next one of ours removes."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Optional

from keras_xaic.files import PathLike, hold, machine_error, telling
from keras_xaic.locks import is_gone, read_holder, sign

_OWNER = ".owner"
_NAME = re.compile(r"(\..*\.)?xaic-tmp-[a-z0-9_]{8}", re.DOTALL)
_swept: set[str] = set()


@contextlib.contextmanager
def temporary_directory(parent: Optional[PathLike] = None, name: str = "") -> Iterator[pathlib.Path]:
    """Yields a directory that only this user can read, and removes it; if this process is killed, the next one of ours does.

    Args:
        parent: Where it is made; None for the system's place for temporary files.
        name: What it is for, if beside something else.

    Raises:
        MachineError: If it cannot be made.
    """
    with telling():
        place = tempfile.gettempdir() if parent is None else os.fspath(parent)
    if place not in _swept:
        sweep(place)
    prefix = f".{name}.xaic-tmp-" if name else "xaic-tmp-"
    handle = None
    while handle is None:
        try:
            made = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        except OSError as error:
            raise machine_error(error, place) or error from None
        with contextlib.suppress(FileNotFoundError):  # it looked abandoned to another process before it was held
            handle = _owned(made)
            hold(handle, wait=True)
            if not (made / _OWNER).exists():
                os.close(handle)
                handle = None
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock says enough
            sign(handle)
        yield made
    finally:
        _remove(made)
        os.close(handle)


def _owned(made: pathlib.Path) -> int:
    """Opens the file that says whose a new directory is; where that cannot be made (no inode is left), neither stays."""
    try:
        made.chmod(0o700)  # a mask may hide it from this user, too
        return os.open(made / _OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        with contextlib.suppress(OSError):
            made.rmdir()
        raise machine_error(error, made.parent) or error from None


def sweep(place: PathLike) -> None:
    """Removes the temporary directories in `place` whose processes are dead."""
    _swept.add(os.fspath(place))
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _sweep_one(pathlib.Path(entry.path))


def _sweep_one(made: pathlib.Path) -> None:
    if made.stat().st_uid != os.getuid():
        return
    if not os.path.lexists(made / _OWNER):
        made.rmdir()  # only if it is empty: killed before it was signed
        return
    handle = os.open(made / _OWNER, os.O_RDWR | os.O_NOFOLLOW)
    try:
        holder = read_holder(made / _OWNER)
        unsigned = holder is None and os.fstat(handle).st_size == 0
        mine = hold(handle)
        if (mine and (holder is not None or unsigned)) or (mine is None and holder is not None and is_gone(holder)):
            _remove(made)
    finally:
        os.close(handle)


def _remove(made: pathlib.Path) -> None:
    """Deletes a temporary directory; its signature goes last, so that a kill on the way leaves it recognisable."""
    with contextlib.suppress(OSError):
        for path in list(made.iterdir()):
            if path.name != _OWNER:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink()
        (made / _OWNER).unlink(missing_ok=True)
        made.rmdir()
