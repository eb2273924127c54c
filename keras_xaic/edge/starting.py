"""How children of interpreters start: on Linux as forks of one process that has loaded numpy, elsewhere as new processes."""

from __future__ import annotations

import array
import atexit
import contextlib
import errno
import os
import pathlib
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import IO, Optional, Union

from keras_xaic.edge.child.host import ENDED, FAILED, STARTED

CHILD = pathlib.Path(__file__).with_name("child") / "__main__.py"
_AT_START = ("PYTHON", "LD_", "OMP_", "OPENBLAS_", "MALLOC_")
"""Beginnings of variables that Python and numpy read when they start; children read no others."""


def start_child(python: str, request: pathlib.Path, stderr: IO[bytes], env: Mapping[str, str]) -> Child:
    """Starts a child: a `ForkedChild`, or a `subprocess.Popen`.

    Args:
        python: Which Python.
        request: The job's file.
        stderr: Where it writes what it has to say; its progress is in the child's `stdout`.
        env: Its environment.

    Raises:
        OSError: If no process can be started.
    """
    if python == sys.executable and sys.platform == "linux" and _busy.acquire(blocking=False):
        child = None
        try:
            child = _fork(request, stderr, env)
        finally:
            if child is None:
                _busy.release()
        if child is not None:
            return child
    return subprocess.Popen(
        [python, str(CHILD), str(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=env,
        start_new_session=True,  # what it started is ended with it
    )


class ForkedChild:
    """A child that was forked, with what of `subprocess.Popen` is used here.

    Attributes:
        pid: Its process, which leads a session of its own.
        stdout: Where its progress comes from.
        returncode: How it ended, as `subprocess` tells it.
    """

    def __init__(self, server: _Server, pid: int, stdout: IO[bytes]) -> None:
        self.pid, self.stdout, self._server = pid, stdout, server
        self.returncode: Optional[int] = None

    def wait(self, timeout: Optional[float] = None) -> int:
        """Waits until it has ended.

        Raises:
            subprocess.TimeoutExpired: If it has not after `timeout` seconds.
        """
        if self.returncode is None:
            self.returncode = self._server.end_of_child(timeout)
            _busy.release()
        return self.returncode


Child = Union[ForkedChild, subprocess.Popen[bytes]]


class _Server:
    """The process that is forked, one child at a time."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = {name: value for name, value in env.items() if name.startswith(_AT_START)}
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(CHILD), "--serve", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=env,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # an interrupt from the keyboard is for the parent
            )

    def fork(self, request: pathlib.Path, stderr: IO[bytes]) -> ForkedChild:
        reading, writing = os.pipe()
        stdout = os.fdopen(reading, "rb")
        try:
            rights = array.array("i", [writing, stderr.fileno()]).tobytes()
            given = f"{os.getcwd()}\0{request}".encode()
            self.socket.sendmsg([given], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        finally:
            os.close(writing)
        told, number = self._answer()
        if told == FAILED:
            raise OSError(number, os.strerror(number))
        if told == ENDED:
            raise ConnectionResetError(errno.ECONNRESET, "the child ended before it began")
        return ForkedChild(self, number, stdout)

    def end_of_child(self, timeout: Optional[float]) -> int:
        self.socket.settimeout(timeout)
        try:
            return self._answer()[1]
        except socket.timeout:  # not TimeoutError before Python 3.10
            raise subprocess.TimeoutExpired("child", timeout or 0.0) from None
        except ConnectionError:  # most likely for want of memory, which ended the child, too
            return -9
        finally:
            self.socket.settimeout(None)

    def close(self) -> None:
        """Ends it, and the child that it waits for."""
        self.socket.close()
        self._process.kill()
        self._process.wait()

    def _answer(self) -> tuple[bytes, int]:
        told, _, number = self.socket.recv(100).partition(b" ")
        if told not in (STARTED, FAILED, ENDED):
            raise ConnectionResetError(errno.ECONNRESET, "the process that forks children has ended")
        return told, int(number)


_busy = threading.Lock()
_server: Optional[_Server] = None


def _fork(request: pathlib.Path, stderr: IO[bytes], env: Mapping[str, str]) -> Optional[ForkedChild]:
    """Forks a child; None where a new process has to be started. The caller holds `_busy`."""
    global _server
    wanted = {name: value for name, value in env.items() if name.startswith(_AT_START)}
    if _server is not None and _server.env != wanted:
        _close()
    child = None
    try:
        if _server is None:
            _server = _Server(env)
        child = _server.fork(request, stderr)
    except ConnectionError:
        pass
    finally:
        if child is None:  # interrupted or dead: the next one starts another server
            _close()
    return child


@atexit.register
def _close() -> None:
    global _server
    server, _server = _server, None
    if server is not None:
        server.close()


def _forget() -> None:
    """In a fork of this process: the server is its parent's, and must not outlive it because of the fork."""
    global _server, _busy
    if _server is not None:
        with contextlib.suppress(OSError):
            _server.socket.close()
    _server, _busy = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
