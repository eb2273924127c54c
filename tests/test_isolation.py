"""A function in a child process: what it returns, how it dies, and what its death leaves of the parent."""

from __future__ import annotations

import errno
import os
import pathlib
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types

import numpy as np
import pytest

from keras_xaic import isolation
from keras_xaic.errors import DataError, MachineError
from keras_xaic.isolation import ChildDied, run_isolated

HERE = f"{__name__}:"


def answer(number, array):
    return {"number": number + 1, "array": array * 2, "bytes": b"\x00\xff"}


def refuse():
    raise DataError("found", "expected", "fix")


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def abort():
    os.write(2, b"one line\ndouble free or corruption\n")
    os.abort()


def stumble():
    raise ValueError("a fault of ours")


def spin():
    while True:
        pass


def take(size):
    return {"length": len(bytearray(size))}


def place():
    return {"directory": os.getcwd(), "setting": os.environ.get("XAIC_TEST"), "process": os.getpid(), "worker": os.getppid()}


def is_gone(process: int) -> bool:
    for _ in range(100):
        try:
            state = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_results_and_errors_come_back():
    made = run_isolated(HERE + "answer", 1, np.arange(3))
    assert made["number"] == 2
    assert made["bytes"] == b"\x00\xff"
    np.testing.assert_array_equal(made["array"], [0, 2, 4])
    with pytest.raises(DataError, match=r"found. Expected expected. Fix\."):
        run_isolated(HERE + "refuse")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("crash", "the machine crashed: it was ended by SIGSEGV"),
        ("abort", "SIGABRT; its last words: 'double free or corruption'"),
        ("stumble", "ended with code 1; its last words: 'ValueError: a fault of ours'"),
    ],
)
def test_a_death_is_one_line_and_the_next_call_works(function, words):
    with pytest.raises(ChildDied, match=words) as caught:
        run_isolated(HERE + function, what="the machine")
    assert "\n" not in str(caught.value)
    assert run_isolated(HERE + "answer", 1, np.ones(1))["number"] == 2


def test_a_call_that_hangs_ends_at_its_time_limit():
    start = time.monotonic()
    with pytest.raises(ChildDied, match=r"spin did not end within 0\.5 s"):
        run_isolated(HERE + "spin", timeout=0.5)
    assert time.monotonic() - start < 10


def test_signals_that_the_parent_ignores_or_blocks_keep_no_call_from_its_end():
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:  # a worker of its own, which begins with these
        assert run_isolated(HERE + "answer", 1, np.ones(1), preload="json")["number"] == 2
        with pytest.raises(ChildDied, match="crashed: it was ended by SIGSEGV"):
            run_isolated(HERE + "crash", preload="json")
        with pytest.raises(ChildDied, match=r"spin did not end within 0\.5 s"):
            run_isolated(HERE + "spin", preload="json", timeout=0.5)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGCHLD, before)


def test_a_call_that_takes_too_much_memory_is_refused():
    assert run_isolated(HERE + "take", 1_000_000, memory=100_000_000)["length"] == 1_000_000
    with pytest.raises(Exception, match="take ran out of memory"):
        run_isolated(HERE + "take", 1_000_000_000, memory=100_000_000)


def test_the_call_sees_where_the_parent_is_now(tmp_path, monkeypatch):
    first = run_isolated(HERE + "place")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XAIC_TEST", "yes")
    then = run_isolated(HERE + "place")
    assert then["directory"] == str(tmp_path)
    assert then["setting"] == "yes"
    assert then["process"] != first["process"]
    assert then["worker"] == first["worker"]


def test_a_killed_worker_is_started_again():
    worker = run_isolated(HERE + "place")["worker"]
    os.kill(worker, signal.SIGKILL)
    assert is_gone(worker)
    assert run_isolated(HERE + "place")["worker"] != worker


def test_threads_may_call_and_end():
    found = []

    def call():
        found.append(run_isolated(HERE + "place")["worker"])

    for _ in range(2):  # the second starts after the first, which may have started the worker, has ended
        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


SCRIPT = """
    import sys, time
    sys.path.insert(0, {root!r})
    from keras_xaic.isolation import run_isolated
    print("run", flush=True)                                     # a script without a main guard runs once
    print(run_isolated("tests.test_isolation:place")["worker"], flush=True)
    {then}
"""


def _script(tmp_path, then: str) -> list[str]:
    (tmp_path / "json.py").write_text("raise RuntimeError('the file of this name in the user\\'s directory')\n")
    path = tmp_path / "elsewhere" / "script.py"
    path.parent.mkdir()
    path.write_text(textwrap.dedent(SCRIPT.format(root=str(pathlib.Path(__file__).parents[1]), then=then)))
    return [sys.executable, str(path)]


def test_a_script_without_main_guard_runs_once_and_leaves_nothing(tmp_path):
    done = subprocess.run(_script(tmp_path, ""), cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.split()[:1] == ["run"]
    assert len(done.stdout.split()) == 2
    assert is_gone(int(done.stdout.split()[1]))


def test_worker_and_call_die_with_a_parent_that_is_killed(tmp_path):
    then = "run_isolated('tests.test_isolation:spin')"
    process = subprocess.Popen(_script(tmp_path, then), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "run\n"
    worker = int(process.stdout.readline())
    children = pathlib.Path(f"/proc/{worker}/task/{worker}/children")
    for _ in range(100):
        if children.read_text():
            break
        time.sleep(0.05)
    call = int(children.read_text().split()[0])
    process.kill()
    process.wait()
    assert is_gone(worker)
    assert is_gone(call)


@pytest.mark.parametrize("function", ["full_disk", "large_result"])
def test_a_full_disk_in_the_child_is_the_machines_fault(function):
    with pytest.raises(MachineError, match=r"the disk is full|larger than this system allows") as caught:
        run_isolated(HERE + function)
    assert caught.value.exit_code == 5


def full_disk():
    raise ValueError("wrapped") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")


def large_result():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    return {"values": np.zeros(10_000)}


COPY = """
import os, sys
from keras_xaic import isolation
sys.mark = "of the parent"
isolation.copy_worker("json")
call = lambda name, *given: isolation.run_isolated(f"tests.test_isolation:{name}", *given, preload="json")
first = call("marked")
assert first["mark"] == sys.mark and first["descriptors"] < 12, first
try:
    call("crash")
except isolation.ChildDied as error:
    assert "SIGSEGV" in str(error)
else:
    raise AssertionError
assert call("marked")["worker"] == first["worker"] != os.getpid()
os.kill(first["worker"], 9)
assert call("marked")["mark"] is None, "a worker that died is a new program"
isolation._close()
isolation._workers.clear()
isolation.copy_worker("json")
print(call("marked")["worker"], flush=True)  # what follows flushes nothing
os._exit(0)
"""


def marked():
    return {
        "mark": getattr(sys, "mark", None),
        "worker": os.getppid(),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def test_a_worker_that_is_a_copy_works_like_one_that_is_none():
    done = subprocess.run([sys.executable, "-c", COPY], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert is_gone(int(done.stdout))


def test_no_copy_is_made_where_tensorflow_has_computed(monkeypatch):
    monkeypatch.setattr(isolation, "_workers", {})
    for context in (types.SimpleNamespace(_initialized=True), object()):
        monkeypatch.setitem(sys.modules, "tensorflow.python.eager.context", types.SimpleNamespace(_context=context))
        isolation.copy_worker("json")
    assert not isolation._workers
