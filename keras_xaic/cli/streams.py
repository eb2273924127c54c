"""Standard output and standard error as they may be: closed, a pipe whose reader has enough, a full disk."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from keras_xaic.errors import MachineError
from keras_xaic.files import machine_error


def open_closed_streams() -> None:
    """Opens what is closed of standard input, output and error on nothing.

    The next file that is opened would get its number, and what native code prints would be written into that file. Standard
    output takes every character.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            _to_nothing(number)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        # In the locale C Python passes bytes of names on, and refuses other characters unless it writes UTF-8.
        refusing = ("strict",) if out.encoding.lower() == "utf-8" else ("strict", "surrogateescape")
        if out.errors in refusing:
            out.reconfigure(errors="backslashreplace")  # as standard error has it


class Stream(Console):
    """A console of rich; a reader that has enough (``| head -1``) does not end the work, whose exit code stays true."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints; what cannot be written is one line.

        Raises:
            MachineError: If the file that the stream goes to cannot be written.
        """
        with _told(self.stderr):
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        """Newer releases of rich come here and would end the program."""
        raise BrokenPipeError

    def write(self, text: str) -> None:
        """Writes as it is, with a newline: for programs.

        Raises:
            MachineError: As `print`.
        """
        with _told(self.stderr):
            self.file.write(text + "\n")
            self.file.flush()


def flush() -> None:
    """Writes what is left, before Python does so and reports on it in words of its own.

    Raises:
        MachineError: As `Stream.print`.
    """
    for stream in (sys.stdout, sys.stderr):
        with _told(stream is sys.stderr):
            stream.flush()


@contextlib.contextmanager
def _told(error_stream: bool) -> Iterator[None]:
    number, name = (2, "standard error") if error_stream else (1, "standard output")
    try:
        yield
    except BrokenPipeError:
        _to_nothing(number)
    except OSError as error:
        known = machine_error(error)
        if known is None:
            raise
        _to_nothing(number)
        raise MachineError(f"{name} cannot be written: {known.found}", "", "Send it elsewhere") from None


def _to_nothing(number: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)
