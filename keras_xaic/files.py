"""How files are written: atomically; and what is said when the machine does not let them.

Nothing else in the package opens a final name for writing: content goes to a temporary name in the same directory, reaches the
disk, and takes its name in one step. Whose a directory is, is the subject of `keras_xaic.ownership`. What lies in a temporary
directory of ours (see `keras_xaic.temporary`) has no final name: children and those who start them write there as they like.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import glob
import hashlib
import itertools
import os
import pathlib
import re
import resource
import stat
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, BinaryIO, Callable, Optional, TypeVar, Union, cast

import numpy as np

from keras_xaic.errors import MachineError, XaicError

PathLike = Union[str, "os.PathLike[str]"]
Function = TypeVar("Function", bound=Callable[..., Any])

_FULL = "Free some space, and run the same command again: it continues"
_ALLOWED = "Change its permissions, or choose another place"
_SAID = {
    errno.ENOSPC: ("the disk is full", _FULL),
    errno.EDQUOT: ("the disk quota is used up", _FULL),
    errno.EFBIG: ("the file is larger than this system allows", "Allow larger files (ulimit -f)"),
    errno.EROFS: ("the file system is read-only", "Choose a place that can be written"),
    errno.EACCES: ("no permission", _ALLOWED),
    errno.EPERM: ("no permission", _ALLOWED),
    errno.ENOENT: ("no such file or directory", "Make the directory first, or choose another place"),
    errno.ENOTDIR: ("a part of the path is not a directory", "Choose another place"),
    errno.ENAMETOOLONG: ("the name is too long", "Choose a shorter one"),
    errno.EMFILE: ("too many open files", "Allow more (ulimit -n)"),
    errno.ENOMEM: ("out of memory", "Close other programs, or use fewer samples or smaller batches"),
}
_SURELY = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENOMEM)
"""What no content of a file leads to."""
_UNREADABLE = (*_SURELY, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
"""Nor of one that is read as it is, by its own name."""
_WORDS = {
    "no space left on device": errno.ENOSPC,
    "errno = 28,": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "disk quota exceeded": errno.EDQUOT,
    "read-only file system": errno.EROFS,
    "file too large": errno.EFBIG,
    "requested and": errno.ENOSPC,  # numpy, where it cannot write everything: "9 requested and 0 written"
}


@contextlib.contextmanager
def writing(path: PathLike) -> Iterator[BinaryIO]:
    """Yields a binary file that takes the name `path` when the block ends well, and vanishes otherwise.

    A symbolic link stays one: what it points to is replaced. What a process that was killed left half-written is removed.

    Raises:
        MachineError: If the disk is full, there is no permission, no such directory and so on.

    Example:
        >>> import tempfile
        >>> target = pathlib.Path(tempfile.mkdtemp()) / "values.bin"
        >>> with writing(target) as file:
        ...     _ = file.write(b"whole")
        >>> target.read_bytes()
        b'whole'
    """
    path = pathlib.Path(os.path.realpath(path))
    name = ""
    try:
        if path.exists() and not path.is_file():
            raise MachineError(f"{path} cannot be replaced: it is not a plain file", "a name for a file")
        remove_abandoned(path)
        handle, name = _held_file(path)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), _mode_of(path))  # mkstemp hides it from others
            os.replace(name, path)
    except BaseException as error:
        if name:
            with contextlib.suppress(OSError):
                os.unlink(name)
        said = machine_error(error, path)
        if said is None:
            raise
        raise said from error


def _mode_of(path: pathlib.Path) -> int:
    """Returns who may read and write a file: as before, and for a new one as the user's mask says."""
    with contextlib.suppress(OSError):
        return stat.S_IMODE(path.stat().st_mode) & 0o777
    with contextlib.suppress(OSError, StopIteration):  # os.umask() tells it only while it changes it, for all threads
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return 0o666 & ~int(next(line.split()[1] for line in lines if line.startswith("Umask:")), 8)
    return 0o644


def expanded(path: PathLike) -> pathlib.Path:
    """Returns a path with ``~`` expanded, as a shell does: where there is no such user, ``~name`` is the name of a file."""
    return pathlib.Path(os.path.expanduser(path))


def a_place(path: PathLike) -> pathlib.Path:
    """Returns where a user wants a file: ``~`` expanded, and the directory made if it is missing.

    Raises:
        MachineError: If it cannot be made.
    """
    where = expanded(path)
    with telling():
        where.parent.mkdir(parents=True, exist_ok=True)
    return where


def readable(name: PathLike) -> str:
    """Returns a name with another character for each byte that is no UTF-8: files may be called so, texts cannot hold it."""
    return os.fspath(name).encode(errors="surrogateescape").decode(errors="replace")


def not_there(path: PathLike, suffixes: Collection[str] = ()) -> str:
    """Returns what to say of a path without a file: what it is else, or that it does not exist and which one beside it does.

    Args:
        path: As it was given.
        suffixes: Of files that would do as well as those with its own suffix.

    Raises:
        MachineError: If that cannot be seen: no permission for its directory, say.

    Example:
        >>> import tempfile
        >>> place = pathlib.Path(tempfile.mkdtemp())
        >>> (place / "net.keras").touch()
        >>> not_there(place / "net.h5", (".h5", ".keras")).replace(str(place), "models")
        'models/net.h5 does not exist (models/net.keras does)'
    """
    where = pathlib.Path(path)
    try:
        os.stat(where)
        return f"{path} is not a file"
    except ValueError:  # no name of a file
        return f"{path!r} does not exist"
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise machine_error(error) or error from None
    names: list[str] = []
    with contextlib.suppress(OSError), os.scandir(where.parent) as entries:
        names = sorted(entry.name for entry in itertools.islice(entries, 10_000))
    alike = [name for name in names if pathlib.Path(name).suffix.lower() in {where.suffix.lower(), *suffixes}]
    meant = [name for name in alike if pathlib.Path(name).stem == where.stem] or get_close_matches(where.name, alike, 1, 0.75)
    return f"{path} does not exist" + (f" ({where.with_name(meant[0])} does)" if meant else "")


def write_atomic(path: PathLike, content: Union[str, bytes]) -> None:
    """Writes a file that is either whole or not there."""
    with writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def file_sha256(path: PathLike) -> str:
    """Returns the SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def save_arrays(path: PathLike, arrays: Mapping[str, np.ndarray], compressed: bool = True) -> None:
    """Writes an .npz without pickles that is either whole or not there; the name is taken as it is."""
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    # Not by np.savez, which leaves the archive open where the disk is full: it would complain whenever it is thrown away.
    with writing(path) as file, zipfile.ZipFile(file, "w", method) as archive:
        for key, value in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(value), allow_pickle=False)


def save_array(path: PathLike, array: np.ndarray) -> None:
    """Writes an .npy that is either whole or not there."""
    with writing(path) as file:
        np.save(file, array, allow_pickle=False)


def _held_file(path: pathlib.Path) -> tuple[int, str]:
    """Opens a temporary sibling of `path` that is locked as long as this process lives and has it open."""
    while True:
        handle, name = tempfile.mkstemp(prefix=_beside(path), suffix=".part", dir=path.parent)
        hold(handle, wait=True)
        if os.path.exists(name):  # else it looked abandoned to another process before it was locked
            return handle, name
        os.close(handle)


def _beside(path: pathlib.Path) -> str:
    """Returns how the names of half-written siblings of `path` begin; they may be no longer than 255 bytes either."""
    whole = os.fsencode(path.name)
    return f".{path.name if len(whole) <= 200 else whole[:200].decode(errors='ignore')}."


def remove_abandoned(path: pathlib.Path) -> None:
    """Removes half-written siblings of `path` (see `writing`) that no living process holds."""
    for name in glob.glob(f"{glob.escape(f'{path.parent}/{_beside(path)}')}????????.part"):
        with contextlib.suppress(OSError), open(name, "rb") as file:
            if hold(file.fileno()):
                os.unlink(name)


def hold(handle: int, wait: bool = False) -> Optional[bool]:
    """Locks an open file until it is closed or the process dies; False if another one holds it, None if there are no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None  # not every file system has them
    return True


def machine_error(error: BaseException, path: Optional[PathLike] = None) -> Optional[MachineError]:
    """Returns what to say about an error that is the machine's; None if it is another one, or is said already."""
    if not isinstance(error, Exception) or isinstance(error, XaicError):
        return None
    kinds, words = {kind.__name__ for kind in type(error).__mro__}, _one_line(error)
    number = next((number for said, number in _WORDS.items() if said in str(error).lower()), None)
    if isinstance(error, TimeoutError) and error.errno is None:
        return None  # not of the system: what ends a user's own clock raises it
    if isinstance(error, OSError):
        number = error.errno or number
        if number == errno.ENOENT and _is_nowhere():
            return MachineError("the directory that this runs in does not exist any more", "", "Change to another directory")
        if "usable temporary directory" in str(error):
            none = resource.getrlimit(resource.RLIMIT_FSIZE)[0] == 0
            advice = _SAID[errno.EFBIG][1] if none else "Name one with TMPDIR"
            return MachineError("no directory for temporary files can be written", "", advice)
        where = error.filename or path
        found, fix = _SAID.get(number or 0, ((error.strerror or words).lower(), ""))
        return MachineError(f"{os.fspath(where)}: {found}" if isinstance(where, (str, os.PathLike)) else found, "", fix)
    if number is not None:  # libraries that wrap what the system said
        found, fix = _SAID[number]
        return MachineError(f"{os.fspath(path)}: {found}" if path is not None else found, "", fix)
    if isinstance(error, MemoryError) or "ResourceExhaustedError" in kinds:
        found, fix = _SAID[errno.ENOMEM]
        return MachineError(f"{found} ({words})" if words else found, "", fix)
    if kinds & {"SQLAlchemyError", "StorageInternalError"}:
        return MachineError(
            f"the database cannot be used ({words})", "a storage URL such as sqlite:///study.db", "Check {storage}"
        )
    return None


def _is_nowhere() -> bool:
    """Returns whether the working directory was removed."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def machine_fault(error: Optional[BaseException]) -> Optional[MachineError]:
    """Returns what to say where a library fails on a file because of the machine; None where the file may be at fault, too.

    What others raised in between is looked through.
    """
    while error is not None:
        if isinstance(error, MachineError):
            return error
        number = error.errno if isinstance(error, OSError) else None
        if number in _SURELY or any(said in str(error).lower() for said in _WORDS):
            return machine_error(error)
        error = error.__cause__ or error.__context__
    return None


def unreadable(error: BaseException) -> Optional[MachineError]:
    """Returns what to say where a file cannot be read because of the machine; None where what it holds may be at fault, too."""
    return machine_error(error) if isinstance(error, OSError) and error.errno in _UNREADABLE else None


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """Turns errors of the machine inside the block into `MachineError`."""
    try:
        yield
    except Exception as error:
        said = machine_error(error)
        if said is None:
            raise
        raise said from error


def tells_machine_errors(function: Function) -> Function:
    """Makes a public function raise `MachineError` where the machine is at fault."""

    @functools.wraps(function)
    def told(*arguments: object, **options: object) -> Any:
        with telling():
            return function(*arguments, **options)

    return cast(Function, told)


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"//[^@/\s]*@", "//", lines[0])[:200] if lines else ""  # no password of a URL
