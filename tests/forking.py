"""Children of edge interpreters for tests: forked from one process that has loaded Python and numpy, not started anew.

What is asked of them, and how they work, die and answer is the same. That they start, too, is what
`tests/edge/test_running.py` and its neighbours show.
"""

from __future__ import annotations

import array
import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, Optional

from keras_xaic.edge import process

_SERVER = """
import array, importlib, json, os, socket, sys
import importlib.metadata, numpy.random
sys.path.insert(0, sys.argv[1])
jobs = importlib.import_module("child.jobs")
del sys.path[0]
asked = socket.socket(fileno=int(sys.argv[2]))
while True:
    given, rights, _, _ = asked.recvmsg(1 << 16, socket.CMSG_SPACE(8))
    if not given:
        break
    descriptors = array.array("i", rights[0][2])
    child = os.fork()
    if child == 0:
        asked.close()
        os.setsid()
        os.dup2(descriptors[0], 1)
        os.dup2(descriptors[1], 2)
        os.closerange(3, 100)
        request, place = json.loads(given)
        os.chdir(place)
        try:
            jobs.start(request)
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(1)
    for descriptor in descriptors:
        os.close(descriptor)
    asked.send(b"%d" % child)
    asked.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


class _Mould:
    """The process that is forked; one call at a time."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env, self.owner, self.busy = env, os.getpid(), False
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-c", _SERVER, str(process.CHILD.parent.parent), str(theirs.fileno())]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=env, pass_fds=[theirs.fileno()]
        )
        theirs.close()

    def close(self) -> None:
        self.socket.close()
        self.process.wait()


class _Child:
    """What `keras_xaic.edge.process` uses of `subprocess.Popen`."""

    def __init__(self, mould: _Mould, request: str, stderr: Any) -> None:
        reading, writing = os.pipe()
        self.stdout, self.returncode, self._mould = os.fdopen(reading, "rb"), None, mould
        rights = array.array("i", [writing, stderr.fileno()])
        mould.socket.sendmsg(
            [json.dumps([request, os.getcwd()]).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights.tobytes())]
        )
        os.close(writing)
        mould.busy = True
        self.pid = int(mould.socket.recv(100))

    def wait(self, timeout: Optional[float] = None) -> int:
        if self.returncode is None:
            self._mould.socket.settimeout(timeout)
            try:
                self.returncode = int(self._mould.socket.recv(100))
            except socket.timeout:  # not TimeoutError before Python 3.10
                raise subprocess.TimeoutExpired("child", timeout or 0) from None
            finally:
                self._mould.socket.settimeout(None)
            self._mould.busy = False
        return self.returncode


_moulds: list[_Mould] = []


def _start(command: Any, **options: Any) -> Any:
    """Stands for `subprocess.Popen`."""
    env = options["env"]
    if command[:2] != [sys.executable, str(process.CHILD)]:
        return subprocess.Popen(command, **options)
    kept = {name: value for name, value in env.items() if name not in ("PYTEST_CURRENT_TEST", "TMPDIR")}
    if not _moulds or _moulds[0].env != kept or _moulds[0].owner != os.getpid():
        if _moulds and _moulds[0].owner == os.getpid() and not _moulds[0].busy:
            _moulds[0].close()
        _moulds[:] = [_Mould(kept)]
    if _moulds[0].busy:
        return subprocess.Popen(command, **options)
    return _Child(_moulds[0], command[2], options["stderr"])


def fork_children(yes: bool) -> None:
    """Has children of interpreters forked, or started anew as users have them."""
    same = {name: getattr(subprocess, name) for name in ("DEVNULL", "PIPE", "TimeoutExpired")}
    process.subprocess = SimpleNamespace(**same, Popen=_start) if yes else subprocess  # type: ignore[assignment]
