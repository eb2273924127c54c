"""Whose a directory is: our mark, and the rule that only what carries the mark is replaced or deleted.

A command that writes a directory OUT holds a lock file beside it, ``.OUT.xaic-lock``, from the first moment to the last: a
second one is refused at once. Finished steps lie in ``OUT.partial``. The result takes its name in one step, which also swaps it
with what `overwrite` lets it replace. Whatever the moment a process is killed at, OUT is the old or the new one, and the same
command finishes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import pathlib
import re
import stat
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Optional

from keras_xaic.errors import ExportError, MachineError, XaicWarning
from keras_xaic.files import PathLike, file_sha256, machine_error, write_atomic
from keras_xaic.locks import BY, held, read_ours
from keras_xaic.temporary import sweep, temporary_directory

MARK = ".xaic"
"""File in every directory of ours; says what it is."""
SIGNS = {
    "report.html": '<meta name="generator" content="keras-xaic">',
    "UNVERIFIED.txt": "Do not use this bundle as it is.",
}
"""What other commands may add to a bundle -> what ours have near their beginning."""
_HALF = re.compile(r"\.(\.xaic|report\.html|UNVERIFIED\.txt)\.[a-z0-9_]{8}\.part")
"""The same, half-written."""
MOST_NAME = 255 - len("..xaic-tmp-12345678")
"""Bytes of a directory's name: what lies beside it while it is written has a longer one."""
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux


@dataclass(frozen=True)
class Mark:
    """What a directory of ours says about itself.

    Attributes:
        kind: ``work``, ``bundle``, ``explanation``, ``search`` or ``project``.
        job: Digest of what was asked for; empty if that does not matter.
        finished: False from the moment a result has its name to the moment its command has cleaned up.
        files: Names of its files; others are not ours.
        digests: Of a project, which is there to be edited, the digests of these files.
    """

    kind: str
    job: str = ""
    finished: bool = True
    files: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()

    @classmethod
    def read(cls, directory: pathlib.Path) -> Optional[Mark]:
        """Returns the mark of a directory, None if it is not ours."""
        content = read_ours(directory / MARK)
        try:
            lists = {name: tuple((content or {}).get(name, ())) for name in ("files", "digests")}
            found = None if content is None else cls(**{**content, **lists})
        except TypeError:
            return None
        return found if found is not None and found._is_sound() else None

    def _is_sound(self) -> bool:
        texts = all(isinstance(one, str) for one in (self.kind, self.job, *self.files, *self.digests))
        return texts and bool(self.kind) and isinstance(self.finished, bool)

    def write(self, directory: pathlib.Path) -> None:
        """Marks a directory as ours."""
        write_atomic(directory / MARK, json.dumps({"by": BY, **asdict(self)}) + "\n")


class Output:
    """A directory that this process alone is writing (see `output`).

    Attributes:
        shown: The name as the user gave it.
        target: Where it really is, with symbolic links followed.
        work: ``OUT.partial``: finished steps, of `start`.
    """

    def __init__(self, shown: pathlib.Path, target: pathlib.Path, kind: str, overwrite: bool) -> None:
        self.shown, self.target, self.kind, self.overwrite = shown, target, kind, overwrite
        self.work = partial(target)
        self.job = ""

    def start(self, job: str) -> bool:
        """Makes `work` ready: as an interrupted command of the same job left it, else empty.

        Returns:
            Whether that command had finished its result, so that only cleaning up was left, which is done now.
        """
        self.job, before = job, Mark.read(self.target)
        if before is not None and not before.finished:
            if before.job == job:
                self._finish(before.files)
                return True
            if not self.overwrite:
                raise _full(self.shown)
        kept = Mark.read(self.work)
        if kept is not None and kept.job != job:
            if any(one.name != MARK for one in self.work.iterdir()):
                held_steps = f"{self.shown}.partial held steps of an interrupted command with other options, data or versions"
                warnings.warn(f"{held_steps}: they are removed, and nothing is continued.", XaicWarning, stacklevel=2)
            self._remove_work()
        if not self.work.exists():
            with temporary_directory(self.target.parent, self.target.name) as scratch:
                (scratch / "new").mkdir()
                Mark("work", job).write(scratch / "new")
                (scratch / "new").rename(self.work)
        return False

    @contextlib.contextmanager
    def fresh(self) -> Iterator[pathlib.Path]:
        """Yields an empty directory for the result; it is published when the block ends well and vanishes otherwise."""
        with temporary_directory(self.target.parent, self.target.name) as scratch:
            (scratch / "new").mkdir()
            yield scratch / "new"
            self.publish(scratch / "new")

    def publish(self, source: pathlib.Path, keep_work: bool = False) -> None:
        """Gives a finished directory its name, and cleans up.

        Args:
            source: The directory; on the same file system.
            keep_work: Whether the finished steps stay: something went wrong, and the result is there to be looked at.

        Raises:
            ExportError: If something of the user's lies there that did not when the command began.
        """
        try:
            check_directory(self.shown, self.kind, overwrite=self.overwrite)
        except ExportError as error:
            move = "Move it away, and run the same command again"
            raise ExportError(f"{error.found} (since this command began)", error.expected, move) from None
        files = tuple(sorted(_files(source)))
        digests = tuple(file_sha256(source / name) for name in files) if self.kind == "project" else ()
        Mark(self.kind, self.job, not self.job or keep_work, files, digests).write(source)
        _keep_permissions(source, self.target)
        replace_directory(source, self.target)
        if not keep_work:
            self._finish(files)

    def _finish(self, files: tuple[str, ...]) -> None:
        self._remove_work()
        if self.job:
            Mark(self.kind, self.job, True, files).write(self.target)

    def _remove_work(self) -> None:
        if Mark.read(self.work) is not None:
            with temporary_directory(self.target.parent, self.target.name) as scratch:
                self.work.rename(scratch / "old")


@contextlib.contextmanager
def output(out: PathLike, kind: str, *, overwrite: bool = False, inputs: Iterable[Any] = ()) -> Iterator[Output]:
    """Holds the directory `out` for the length of the block; nothing in it is touched before `Output.publish`.

    Args:
        out: The directory; it may not exist, or be empty, or with `overwrite` be one of ours of the same kind.
        kind: What it will be (see `Mark`).
        overwrite: Whether one that is there may be replaced.
        inputs: What the command reads; paths among them must not lie inside `out`.

    Raises:
        ExportError: If `out` may not be written, or another process is writing it.
        MachineError: If it cannot be written.
    """
    shown = pathlib.Path(out)
    inputs = list(inputs)
    target = check_directory(shown, kind, overwrite=overwrite, inputs=inputs)
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise machine_error(error, target.parent) or error from None
    try:
        with held(_lock_of(target), shown):
            sweep(target.parent)
            _restore(target)
            check_directory(shown, kind, overwrite=overwrite, inputs=inputs)  # another process may have been faster
            yield Output(shown, target, kind, overwrite)
    finally:
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()  # only if nothing was written


def partial(target: pathlib.Path) -> pathlib.Path:
    """Returns where the finished steps of a directory lie."""
    return target.with_name(f"{target.name}.partial")


def _lock_of(target: pathlib.Path) -> pathlib.Path:
    return target.with_name(f".{target.name}.xaic-lock")


def remove_work(target: pathlib.Path) -> None:
    """Removes the finished steps of a directory, and the lock of the process that died at them, unless one writes it now."""
    with contextlib.suppress(ExportError), held(_lock_of(target), target):
        Output(target, target, "", False)._remove_work()


def check_file(out: PathLike, what: str, is_ours: bool, overwrite: bool, inputs: Iterable[Any] = ()) -> pathlib.Path:
    """Returns `out` if a file may be written there; called before any work.

    Args:
        out: The file.
        what: What it will be, ``a plan`` say.
        is_ours: Whether what is there, if anything, is one, too.
        overwrite: Whether it may be replaced then.
        inputs: What the command reads.

    Raises:
        ExportError: If it may not be written.
        MachineError: If it cannot be written.
    """
    shown, target = pathlib.Path(out), pathlib.Path(os.path.realpath(out))
    if shown.is_symlink() and not shown.exists():
        raise ExportError(f"output {shown} is a link to {os.readlink(shown)}, which does not exist", "", "Choose another {out}")
    if target.is_dir():
        raise ExportError(f"output {shown} is a directory", "a file", "Choose another {out}")
    for given in _paths(inputs):
        if os.path.realpath(given) == str(target):
            raise ExportError(f"output {shown} is the input {given}", "a file of its own", "Choose another {out}")
    if shown.exists() and not (is_ours and target.is_file()):  # /dev/stdout leads to what has no name
        raise ExportError(f"output {shown} exists and is not {what}", "a new name", "Choose another {out}")
    if target.exists() and not overwrite:
        raise ExportError(f"output {shown} exists", "a new name", "Choose another {out}; add {overwrite=True} to replace it")
    _check_writable(target.parent, shown)
    return target


def check_replaceable(path: PathLike) -> None:
    """Makes sure that a file of `SIGNS` may be replaced or removed: there is none, or one that we wrote.

    Raises:
        ExportError: If it is not ours.
    """
    if not _is_signed(pathlib.Path(path)):
        raise ExportError(f"{path} is there and xaic did not write it, but needs that name", "", "Rename or move it")


def _is_signed(place: pathlib.Path) -> bool:
    if not os.path.exists(place):
        return True
    if not place.is_file():  # a pipe would be waited for
        return False
    with open(place, "rb") as file:
        return SIGNS[place.name].encode() in file.read(1000)


def check_directory(out: PathLike, kind: str, *, overwrite: bool = False, inputs: Iterable[Any] = ()) -> pathlib.Path:
    """Returns where `out` really is if it may be written (see `output`)."""
    another, shown = "Choose another {out}", pathlib.Path(out)
    size = len(os.fsencode(os.path.basename(os.path.realpath(shown))))
    if size > MOST_NAME:
        found = f"the name of output {shown} has {size} bytes"
        raise ExportError(found, f"at most {MOST_NAME}: files beside it have longer ones", another)
    if shown.is_symlink() and not shown.exists():
        raise ExportError(f"output {shown} is a link to {os.readlink(shown)}, which does not exist", "a directory", another)
    if shown.exists() and not shown.is_dir():
        raise ExportError(f"output {shown} is a file", "a directory, or a name that does not exist yet", another)
    target = check_inputs(shown, inputs)
    work = partial(target)
    if target.is_dir() and (os.path.ismount(target) or not target.name):
        raise ExportError(f"output {shown} is a mount point", "a directory in it, e.g. " + str(shown / "small"), another)
    if kind != "search" and target.is_dir() and _is_around_us(target):
        raise ExportError(f"output {shown} is or holds the directory that this runs in, which would vanish", "", another)
    if target.is_dir() and any(target.iterdir()):
        _check_replaceable(target, shown, kind, overwrite)
    if os.path.lexists(work) and (work.is_symlink() or (Mark.read(work) or Mark("")).kind != "work"):
        found = f"{shown}.partial is there and xaic did not write it, but needs that name"
        raise ExportError(found, "", f"Rename or move it, or {another[0].lower()}{another[1:]}")
    _check_writable(target.parent, shown)
    return target


def _is_around_us(target: pathlib.Path) -> bool:
    """Returns whether the working directory lies in `target`: a shell there would stay in the old one, which is gone."""
    here = pathlib.Path(os.path.realpath(os.curdir))
    return target == here or target in here.parents


def _check_replaceable(target: pathlib.Path, shown: pathlib.Path, kind: str, overwrite: bool) -> None:
    """Refuses to replace a directory with something in it that is not all ours, and of the same kind."""
    another, mark = "Choose another {out}", Mark.read(target)
    if not overwrite and (mark is None or mark.finished or mark.kind != kind):
        raise _full(shown)
    if mark is None:
        raise ExportError(
            f"output directory {shown} is not empty and not {_a(kind)} of ours, so it is never replaced",
            f"{_a(kind)} that xaic wrote",
            f"{another}, or empty it yourself",
        )
    if mark.kind != kind:
        raise ExportError(f"output directory {shown} holds {_a(mark.kind)}, not {_a(kind)}", "", another)
    foreign = sorted(name for name in set(_files(target)) - set(mark.files) if not _may_be_ours(target, name))
    if foreign:
        raise ExportError(
            f"output directory {shown} holds {foreign[0]}, which xaic did not write", "", f"{another}, or move it away"
        )
    for name, digest in zip(mark.files, mark.digests):
        if os.path.lexists(target / name) and _digest_of(target / name) != digest:
            found = f"output directory {shown} holds {name}, which was changed since xaic wrote it"
            raise ExportError(found, "", f"{another}, or move it away")


def _digest_of(path: pathlib.Path) -> str:
    """Returns the digest of what may have taken a file's place; empty for what cannot be read as one."""
    try:
        return file_sha256(path) if path.is_file() else ""
    except OSError:
        return ""


def _may_be_ours(directory: pathlib.Path, name: str) -> bool:
    """Whether a file that a mark does not list is the mark, or what another command added to a bundle."""
    return name == MARK or _HALF.fullmatch(name) is not None or (name in SIGNS and _is_signed(directory / name))


def check_continued(out: PathLike, kind: str, inputs: Iterable[Any] = ()) -> pathlib.Path:
    """Returns where `out` really is if a command may begin there, or continue what one of the same kind has begun.

    Raises:
        ExportError: If something else is there, or an input.
        MachineError: If it cannot be written.
    """
    mark = Mark.read(pathlib.Path(out))
    if mark is None or mark.kind != kind:
        return check_directory(out, kind, inputs=inputs)
    return check_inputs(pathlib.Path(out), inputs)


def begin(target: pathlib.Path, mark: Mark) -> None:
    """Marks an empty directory, or makes it, so that at every moment it is empty or marked."""
    with temporary_directory(target.parent, target.name) as scratch:
        mark.write(scratch)
        target.mkdir(exist_ok=True)
        (scratch / MARK).rename(target / MARK)


def check_inputs(shown: pathlib.Path, inputs: Iterable[Any]) -> pathlib.Path:
    """Returns where `shown` really is if no input lies there.

    Raises:
        ExportError: If one does.
    """
    target = pathlib.Path(os.path.realpath(shown))
    for given in _paths(inputs):
        real = pathlib.Path(os.path.realpath(given))
        for place in (target, partial(target)):
            if real == place or place in real.parents:
                found = f"the input {given} lies in {shown if place == target else f'{shown}.partial'}, which is written"
                raise ExportError(found, "inputs elsewhere", "Choose another {out}")
        if real in target.parents and real.is_dir():
            raise ExportError(f"output {shown} lies in the input {given}", "a directory elsewhere", "Choose another {out}")
    return target


def _check_writable(parent: pathlib.Path, shown: pathlib.Path) -> None:
    existing = next(p for p in [parent, *parent.parents] if os.path.lexists(p))
    if not existing.is_dir():
        raise ExportError(f"{existing} is not a directory, so {shown} cannot be written", "", "Choose another {out}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise MachineError(f"{existing}: no permission to write", "a directory that can be written", "Choose another {out}")


def _full(shown: pathlib.Path) -> ExportError:
    return ExportError(f"output directory {shown} is not empty", "", "Choose another {out}; add {overwrite=True} to replace it")


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _paths(inputs: Iterable[Any]) -> Iterator[PathLike]:
    return (given for given in inputs if isinstance(given, (str, os.PathLike)))


def _files(directory: pathlib.Path) -> Iterator[str]:
    """Yields the names of all files below `directory`, caches of Python aside."""
    for place, folders, names in os.walk(directory):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in [*names, *links]:
            yield pathlib.Path(place, name).relative_to(directory).as_posix()


def _keep_permissions(source: pathlib.Path, target: pathlib.Path) -> None:
    """Lets those into a directory whom the one lets in that it replaces: what is private stays so, what a group shares, too."""
    with contextlib.suppress(OSError):
        before = target.stat()
        with contextlib.suppress(OSError):  # of a group that this user is not in
            os.chown(source, -1, before.st_gid)
        source.chmod(stat.S_IMODE(before.st_mode) | stat.S_IRWXU)


def replace_directory(source: pathlib.Path, target: pathlib.Path) -> None:
    """Moves `source` to `target` in one step; what was there is in the place of `source` then, or gone."""
    if not target.exists() or not any(target.iterdir()):
        source.rename(target)
        return
    if _exchange(source, target):
        return
    aside = _aside(target)
    target.rename(aside)  # where the system cannot swap two names; `_restore` knows what a kill leaves here
    source.rename(target)
    aside.rename(source)


def _aside(target: pathlib.Path) -> pathlib.Path:
    return target.with_name(f".{target.name}.xaic-aside")


def _restore(target: pathlib.Path) -> None:
    """Puts back, or away, what a process that was killed inside `replace_directory` had moved aside."""
    aside = _aside(target)
    if Mark.read(aside) is None:
        return
    if not target.exists():
        aside.rename(target)
        return
    with temporary_directory(target.parent, target.name) as scratch:
        aside.rename(scratch / "old")


def _exchange(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Swaps two names in one step; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    here = -100  # AT_FDCWD
    if rename(here, os.fsencode(one), here, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))
