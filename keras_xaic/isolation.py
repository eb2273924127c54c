"""Runs a function of the package in a child process, with limits: what is native and fed with user data can die there alone.

A crash of the child is one clear error in the parent. Arguments travel as pickle (they are ours); the result comes back as JSON
and .npy only, since a file that took over the child must not reach the parent.

A worker process is started at the first call and kept. It imports what takes long (TensorFlow: seconds) once, and forks a child
per call before any of it has run. It is a program of its own, never a copy of the user's: scripts need no main guard. Only
of the command line, which is ours, it is a copy (`copy_worker`). It dies with the process that started it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import gc
import importlib
import json
import os
import pathlib
import pickle
import resource
import signal
import subprocess
import sys
import threading
import traceback
from typing import Any, NoReturn, Optional, Union

import numpy as np

from keras_xaic.errors import ExportError, XaicError
from keras_xaic.files import machine_error, machine_fault
from keras_xaic.temporary import temporary_directory

TIMEOUT = 600.0
"""Seconds."""
_PR_SET_PDEATHSIG = 1
_MACHINE = 64
"""A child that the machine let down ends with this plus the number of the error."""
_PROGRAM = """
import sys
parent, preload, sys.path[:] = int(sys.argv[1]), sys.argv[2], sys.argv[3:]  # not what lies in the directory it is started in
from keras_xaic.isolation import work
work(parent, preload)
"""


class ChildDied(ExportError):
    """The child ended without a result: a crash, the time limit, or want of memory."""

    exit_code = 4


def run_isolated(
    function: str,
    *arguments: Any,
    timeout: float = TIMEOUT,
    memory: Optional[int] = None,
    what: str = "",
    preload: str = "",
) -> dict[str, Any]:
    """Calls a function of this package in a child process and returns its result.

    Args:
        function: ``module:name``, importable in the child; it returns a dict of arrays, bytes and JSON values.
        arguments: Its arguments; they must pickle.
        timeout: Seconds.
        memory: Most bytes of address space that the child may take beyond what it starts with; None for no limit.
        what: What it does, for messages, e.g. ``TensorFlow's converter``.
        preload: Module that the worker imports once, ahead of all calls that name it.

    Raises:
        ChildDied: If it crashed, hung or ran out of memory; `what` and the signal are named.
        XaicError: The one that the function raised.
    """
    what = what or function
    with temporary_directory() as scratch:
        (scratch / "job.pickle").write_bytes(pickle.dumps((function, arguments, memory)))
        answer = _worker(preload).run(str(scratch), timeout)
        if "failed" in answer:
            raise ChildDied(f"{what} could not be started: {answer['failed']}")
        if _MACHINE < answer["code"] < 2 * _MACHINE:
            number = answer["code"] - _MACHINE
            fault = OSError(number, os.strerror(number), str(scratch.parent))
            raise machine_error(fault) or fault
        if answer["code"] == -signal.SIGALRM:
            raise ChildDied(f"{what} did not end within {timeout:g} s")
        if not (scratch / "result.json").is_file():
            said = scratch / "stderr.txt"
            words = said.read_text(encoding="utf-8", errors="replace") if said.is_file() else ""
            raise ChildDied(f"{what} crashed: {_death(answer['code'])}{_last_line(words)}")
        result = json.loads((scratch / "result.json").read_text(encoding="utf-8"))
        if "error" in result:
            kind = getattr(sys.modules[XaicError.__module__], result["error"], XaicError)
            raise kind(*result["parts"])
        arrays = {key: np.load(scratch / file, allow_pickle=False) for key, file in result["arrays"].items()}
        contents = {key: (scratch / file).read_bytes() for key, file in result["bytes"].items()}
        return {**result["values"], **arrays, **contents}


def _death(code: int) -> str:
    if code >= 0:
        return f"it ended with code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"; its last words: {lines[-1][:300]!r}" if lines else ""


def copy_worker(preload: str) -> None:
    """Makes the worker of `preload` a copy of this process, which has imported it: TensorFlow is not imported twice.

    For the command line alone, between imports and work. Nothing happens where TensorFlow has computed already.
    """
    context = getattr(sys.modules.get("tensorflow.python.eager.context"), "_context", None)
    if sys.platform != "linux" or (context is not None and getattr(context, "_initialized", True)):
        return
    importlib.import_module(preload)
    worker = _worker(preload)
    if worker.process is None:
        with contextlib.suppress(OSError):  # a program of its own will say it
            worker.process = _Copy(preload)


class _Copy:
    """A worker that is a copy of this process, with what of `subprocess.Popen` is used here."""

    def __init__(self, preload: str) -> None:
        (jobs, stdin), (stdout, answers) = os.pipe(), os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                for number, descriptor in enumerate((jobs, answers, os.open(os.devnull, os.O_WRONLY))):
                    os.dup2(descriptor, number)
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # locks, say
                os.setsid()
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_DFL)
                work(parent, preload)
            finally:
                os._exit(0)  # nothing of the parent's is to be finished here
        os.close(jobs)
        os.close(answers)
        self.stdin, self.stdout = os.fdopen(stdin, "w", encoding="utf-8"), os.fdopen(stdout, encoding="utf-8")
        self._ended = False

    def poll(self) -> Optional[int]:
        """Returns 0 if the process has ended."""
        self._ended = self._ended or os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return 0 if self._ended else None

    def kill(self) -> None:
        """Ends it."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Waits until it has ended."""
        if not self._ended:
            os.waitpid(self.pid, 0)
            self._ended = True


class _Worker:
    """The parent's end of a worker process; it runs one call at a time."""

    def __init__(self, preload: str) -> None:
        self._preload = preload
        self._busy = threading.Lock()
        self.process: Union[subprocess.Popen[str], _Copy, None] = None

    def run(self, scratch: str, timeout: float) -> dict[str, Any]:
        """Has the worker do the job in directory `scratch`; starts the worker where there is none, or none any more."""
        job = json.dumps({"scratch": scratch, "timeout": timeout, "directory": os.getcwd(), "environment": dict(os.environ)})
        with self._busy:
            for _ in range(2):
                process = self._living()
                assert process.stdin is not None
                assert process.stdout is not None
                done = False
                try:
                    process.stdin.write(job + "\n")
                    process.stdin.flush()
                    told = process.stdout.readline()
                    done = bool(told)
                    if done:
                        return dict(json.loads(told))
                except BrokenPipeError:
                    pass
                finally:
                    if not done:  # interrupted or dead: the next call starts another one
                        self.close()
            return {"failed": "its process was ended twice"}

    def close(self) -> None:
        """Ends the worker, and the call that it is at."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # what was left in the buffer of a broken pipe
                        pipe.close()

    def _living(self) -> Union[subprocess.Popen[str], _Copy]:
        if self.process is not None and self.process.poll() is not None:
            self.close()
        if self.process is None:
            started: list[Any] = []
            ready = threading.Event()

            def start() -> None:
                try:
                    started.append(self._start())
                except BaseException as error:
                    started.append(error)
                ready.set()
                if isinstance(started[0], subprocess.Popen):
                    started[0].wait()

            # The system ends a worker together with the *thread* that started it: this one stays as long as the worker does.
            threading.Thread(target=start, name="xaic worker", daemon=True).start()
            ready.wait()
            if isinstance(started[0], BaseException):
                raise started[0]
            self.process = started[0]
        assert self.process is not None
        return self.process

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(os.getpid()), self._preload, *(p or os.getcwd() for p in sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt from the keyboard is for the parent
            text=True,
            encoding="utf-8",
        )


_workers: dict[tuple[int, str], _Worker] = {}
_starting = threading.Lock()


def _worker(preload: str) -> _Worker:
    """Returns this process' worker: one that was forked holds its parent's, which it must leave alone."""
    with _starting:
        return _workers.setdefault((os.getpid(), preload), _Worker(preload))


@atexit.register
def _close() -> None:
    for (owner, _), worker in _workers.items():
        if owner == os.getpid():
            worker.close()


def die_with(parent: int) -> None:
    """Has the system end this process together with `parent`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def work(parent: int, preload: str) -> None:
    """Reads jobs, one a line, until the parent closes the pipe; forks a child for each. In the worker."""
    die_with(parent)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where the parent ignores it, nobody would learn how a child ended,
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # and what it blocks would not end one that hangs
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    failed = ""
    try:
        if preload:
            importlib.import_module(preload)
            gc.freeze()  # children would look for garbage among what they share with this process, and copy it by that
    except Exception as error:
        failed = f"{type(error).__name__}: {error}"
    jobs = os.fdopen(os.dup(0), "r", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for line in jobs:
        job = json.loads(line)
        answer: dict[str, Any] = {"failed": failed}
        if not failed:
            worker, child = os.getpid(), os.fork()
            if child == 0:
                os.close(channel.fileno())
                os.close(jobs.fileno())
                _in_child(worker, job)
            status = os.waitpid(child, 0)[1]
            answer = {"code": -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)}
        channel.write(json.dumps(answer) + "\n")
        channel.flush()


def _in_child(worker: int, job: dict[str, Any]) -> NoReturn:
    code = 1
    try:
        die_with(worker)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, job["timeout"])  # ends it even where native code hangs
        scratch = pathlib.Path(job["scratch"])
        os.dup2(os.open(scratch / "stderr.txt", os.O_WRONLY | os.O_CREAT, 0o600), 2)
        os.chdir(job["directory"])
        os.environ.clear()
        os.environ.update(job["environment"])
        _serve(scratch)
        code = 0
    except BaseException as error:
        if machine_fault(error) is not None:  # on a full disk nothing but a number can be told
            number = error.errno if isinstance(error, OSError) else None
            code = _MACHINE + (number if number is not None and number < _MACHINE else errno.ENOSPC)
        with contextlib.suppress(OSError):
            traceback.print_exc()
    finally:
        try:
            sys.stderr.flush()
        finally:
            os._exit(code)  # nothing of the worker's is to be finished here


def _serve(scratch: pathlib.Path) -> None:
    """Runs the job that lies in `scratch`; in the child."""
    function, arguments, memory = pickle.loads((scratch / "job.pickle").read_bytes())
    module, name = function.split(":")
    action = getattr(importlib.import_module(module), name)
    if memory is not None:
        with open("/proc/self/statm", encoding="ascii") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))
    try:
        made = action(*arguments)
    except XaicError as error:
        answer: dict[str, Any] = {"error": type(error).__name__, "parts": [error.found, error.expected, error.fix]}
    except MemoryError:
        answer = {"error": "ModelError", "parts": [f"{name} ran out of memory", "", "Allow more memory, or check the file"]}
    else:
        answer = {"arrays": {}, "bytes": {}, "values": {}}
        for number, (key, value) in enumerate(made.items()):
            if isinstance(value, bytes):
                answer["bytes"][key] = f"{number}.bin"
                (scratch / f"{number}.bin").write_bytes(value)
            elif isinstance(value, np.ndarray):
                answer["arrays"][key] = f"{number}.npy"
                np.save(scratch / f"{number}.npy", value)
            else:
                answer["values"][key] = value
    (scratch / "result.part").write_text(json.dumps(answer), encoding="utf-8")
    os.replace(scratch / "result.part", scratch / "result.json")
