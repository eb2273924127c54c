"""Trials in several processes of this machine, or on the nodes of a Ray cluster."""

from __future__ import annotations

import concurrent.futures
import contextvars
import multiprocessing
import os
import signal
import sys
from multiprocessing import connection
from typing import Any, Callable

from keras_xaic.cluster import joined, received, sendable
from keras_xaic.errors import EdgeError, PlanError, XaicError
from keras_xaic.files import machine_error
from keras_xaic.isolation import die_with
from keras_xaic.objectives import SearchOptions
from keras_xaic.pipeline.inputs import travelling
from keras_xaic.searching.trial import SHARED, Setting, Tried, receive, run_sent

NOT_BEGUN = 1
"""Exit code of a worker that ended before its work began: all that fails later is told."""
PAUSE = 2.0
"""Seconds after which the first process looks how many trials its workers have finished."""


def work_side_by_side(work: Callable[[], None], workers: int, tell: Callable[[], None]) -> None:
    """Runs trials in several processes; now and then tells how far they are.

    Raises:
        PlanError: If what they need cannot be sent to them, or this process may not have any.
        XaicError: What the first of them that failed said.
    """
    if multiprocessing.current_process().daemon:
        found = f"{workers} workers in a process of a pool, or another daemon of multiprocessing, which may start none"
        raise PlanError(found, "one worker there", "Leave out {workers}, or use concurrent.futures.ProcessPoolExecutor")
    sent = sendable(work)
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    said = context.SimpleQueue()
    processes = [context.Process(target=_told, args=(sent, said, os.getpid()), daemon=True) for _ in range(workers)]
    try:
        for process in processes:
            process.start()
        running = {process.sentinel for process in processes}
        while running:  # not `is_alive`, which stays true for ever where the user has SIGCHLD ignored
            running -= set(connection.wait(running, PAUSE))
            tell()
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.terminate() if process.is_alive() else None
    if not said.empty():
        raise said.get()
    broken = [process.exitcode for process in processes if process.exitcode]
    if NOT_BEGUN in broken:
        found = "workers cannot begin: they import this script, which fails there, or begins a search of its own"
        raise PlanError(found, "the call of search below `if __name__ == '__main__':`", "Move it there, or leave out {workers}")
    if broken:
        raise EdgeError(f"a worker of the search crashed (code {broken[0]})", "", "Run the same command again: it continues")


def work_on_cluster(work: Callable[..., None], wanted: SearchOptions, setting: Setting, tell: Callable[[], None]) -> None:
    """Runs trials on a Ray cluster, a thread here for each that runs at the same time; now and then tells how far they are.

    Raises:
        XaicError: What the first of them that failed said.
    """
    with joined(str(wanted.cluster), travelling(setting.model, setting.data, setting.run.options)) as nodes:
        sent = nodes.packed(setting)

        def run(setting: Setting, number: int, *asked: Any) -> Tried:
            tried: Tried
            tried, bundle, shared = nodes.call(f"{run_sent.__module__}:{run_sent.__name__}", sent, number, *asked)
            for address, content in shared.items():
                nodes.add(f"{SHARED}/{address}", address, content)
            receive(setting, number, bundle)
            return tried

        with concurrent.futures.ThreadPoolExecutor(wanted.workers) as pool:
            belonging = [contextvars.copy_context() for _ in range(wanted.workers)]  # to this call, see `usual_keras`
            running = [pool.submit(one.run, work, run=run) for one in belonging]
            try:
                while concurrent.futures.wait(running, PAUSE, concurrent.futures.FIRST_EXCEPTION).not_done:
                    tell()
                    if any(one.done() and one.exception() is not None for one in running):
                        break
            finally:
                nodes.close()
            for one in running:
                one.result()


def check_no_worker() -> None:
    """Ends a worker quietly that has not begun yet, and imports a script that searches by itself."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(NOT_BEGUN)


def _told(sent: bytes, said: Any, parent: int) -> None:
    """Does the work of one process, whose errors go to the first one."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    try:
        received(sent)()
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        said.put(error if isinstance(error, XaicError) else machine_error(error) or XaicError(words))
