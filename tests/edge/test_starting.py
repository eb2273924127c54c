"""Children are forked from one process that has loaded numpy; whatever happens to that one, the next job runs."""

from __future__ import annotations

import errno
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from keras_xaic.edge import starting
from keras_xaic.edge.child.host import FAILED
from keras_xaic.edge.installed import judge
from keras_xaic.edge.process import Limits, run_child
from keras_xaic.errors import MachineError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children are forked on Linux only")


def ask(directory, number=0):
    """Asks an interpreter for its version, and returns that."""
    directory = directory / str(number)
    directory.mkdir(exist_ok=True)
    return run_child({"interpreter": judge(), "mode": "version", "model": "m.tflite"}, directory, Limits())[0]["version"]


def server():
    """Returns the process that forks."""
    return starting._server._process.pid


@pytest.fixture
def version(tmp_path):
    """Returns what the interpreter says of itself; a server is there then."""
    return ask(tmp_path)


def test_one_process_is_forked_for_all_jobs(version, tmp_path):
    before = server()
    assert ask(tmp_path) == version
    assert server() == before


def test_how_children_end_is_known_where_the_user_ignores_it(tmp_path):
    starting._close()
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert [bool(ask(tmp_path)), bool(ask(tmp_path))] == [True] * 2
        first = server()
        assert bool(ask(tmp_path))
        assert server() == first
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_server_that_was_killed_is_replaced(version, tmp_path):
    before = server()
    os.kill(before, signal.SIGKILL)
    assert [ask(tmp_path), ask(tmp_path)] == [version] * 2  # the first one was to be forked, and starts anew
    assert server() != before


def test_a_server_that_dies_with_a_child_is_an_ended_child(version, tmp_path, monkeypatch):
    given = starting._Server._answer

    def dying(self):
        answer = given(self)
        os.kill(self._process.pid, signal.SIGKILL)
        return answer

    monkeypatch.setattr(starting._Server, "_answer", dying)
    with open(os.devnull, "wb") as nowhere:
        child = starting.start_child(sys.executable, tmp_path / "none.json", nowhere, dict(os.environ))
    monkeypatch.undo()
    assert child.wait(20) in (-9, 1)
    child.stdout.close()
    assert ask(tmp_path) == version


def test_an_interrupt_while_a_child_is_started_leaves_nothing_behind(version, tmp_path, monkeypatch):
    before = server()

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(starting._Server, "_answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path)
    monkeypatch.undo()
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
    assert ask(tmp_path) == version


def test_jobs_at_the_same_time_do_not_wait_for_each_other(version, tmp_path):
    assert starting._busy.acquire(blocking=False)
    try:
        assert ask(tmp_path) == version
    finally:
        starting._busy.release()
    found: list[str] = []
    threads = [threading.Thread(target=lambda number=number: found.append(ask(tmp_path, number))) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [version] * 3


def test_what_python_reads_at_its_start_needs_another_server(version, tmp_path, monkeypatch):
    before = server()
    monkeypatch.setenv("HOME", str(tmp_path))
    ask(tmp_path)
    assert server() == before
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ask(tmp_path)
    assert server() != before


def test_want_of_processes_is_the_machines_fault(version, tmp_path, monkeypatch):
    monkeypatch.setattr(starting._Server, "_answer", lambda self: (FAILED, errno.EAGAIN))
    with pytest.raises(MachineError, match="no process can be started"):
        ask(tmp_path)


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 9)", "sys.exit()", "os.fork() or time.sleep(60)"])
def test_the_server_ends_with_the_process_that_started_it(tmp_path, end):
    """A fork of that process, which lives on, keeps it as little."""
    code = (
        "import os, pathlib, sys, time; from tests.edge.test_starting import ask, server; "
        f"ask(pathlib.Path(sys.argv[1])); print(server(), flush=True); {end}"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, start_new_session=True) as job:
        started = int(job.stdout.readline())
        try:
            end_by = time.monotonic() + 20
            while pathlib.Path(f"/proc/{started}").exists() and time.monotonic() < end_by:
                time.sleep(0.05)
            assert not pathlib.Path(f"/proc/{started}").exists()
        finally:
            os.killpg(job.pid, signal.SIGKILL)
