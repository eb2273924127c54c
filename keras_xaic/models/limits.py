"""Limits of what a model file may cost while Keras rebuilds it: time, memory, and weights that are not in the file."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import threading
import time
from collections.abc import Iterator
from typing import Any

from keras_xaic._keras import tf
from keras_xaic.errors import ModelError

SECONDS = 6.0
"""Processor time for a small file."""
SECONDS_PER_BYTE = 1 / 30e3
MEMORY = 550 * 1024**2
"""Bytes of memory for a small file."""
MEMORY_AT_ONCE = 2 * 1024**3
"""Bytes that native code may take before the watch, which looks every `_PAUSE` seconds, ends it."""
MEMORY_PER_BYTE = 8
UNSAVED = 4 * 1024**2
"""Values of variables that need not be in the file, such as the states of recurrent layers."""
_PAUSE, _AGAIN = 0.05, 1.0
"""Seconds between two looks, and until a block that has caught the first exception gets another."""


class _TooMuch(BaseException):
    """Raised in the thread that loads; no ``except Exception`` of Keras swallows it."""


@contextlib.contextmanager
def bounded(source: str, size: int) -> Iterator[None]:
    """Ends the block with an error once it has taken more processor time or memory than a file of this size can need.

    Args:
        source: The file, for the message.
        size: Its bytes.

    Raises:
        ModelError: If the block did not end in time.
    """
    thread = threading.get_ident()
    clock = time.pthread_getcpuclockid(thread)
    deadline = time.clock_gettime(clock) + SECONDS + size * SECONDS_PER_BYTE
    most = _held() + MEMORY + size * MEMORY_PER_BYTE
    over, ended, lock = threading.Event(), threading.Event(), threading.Lock()

    def watch() -> None:
        pause = _PAUSE
        while not over.wait(pause):
            with lock:
                if not over.is_set() and (time.clock_gettime(clock) > deadline or _held() > most):
                    ended.set()
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_TooMuch))
                    pause = _AGAIN

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        try:
            with _data_within(MEMORY_AT_ONCE + size * MEMORY_PER_BYTE):
                yield
        finally:
            while not over.is_set():
                with contextlib.suppress(_TooMuch), lock:
                    over.set()
            if ended.is_set():
                # What is on its way arrives here. To call it off would leave Python looking for it for ever: calls take up to
                # twice the time then, and with Python 3.11 whoever is profiled or debugged hangs at the next one.
                with contextlib.suppress(_TooMuch):
                    for _ in range(2):
                        pass
                raise _TooMuch
    except MemoryError:
        _keep_graphs()
        raise
    except _TooMuch:
        _keep_graphs()
        raise ModelError(
            f"{source} takes more time or memory to rebuild than a file of {size:,} B can need", "a model written by Keras"
        ) from None


@contextlib.contextmanager
def _data_within(more: int) -> Iterator[None]:
    """Keeps single allocations of native code, which no exception interrupts, from taking all memory of the machine."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with open("/proc/self/statm", encoding="ascii") as file:
        most = int(file.read().split()[5]) * resource.getpagesize() + more
    if before[0] != resource.RLIM_INFINITY:
        most = min(most, before[0])
    resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _keep_graphs() -> None:
    """Makes sure that no graph of TensorFlow that exists now is ever deleted.

    TensorFlow's native code is not made for a failing allocation: a graph may be left locked, and whoever deletes it - the
    garbage collector, at any later moment - would wait for that lock forever. Measured on TensorFlow 2.14.
    """
    for one in gc.get_objects():
        if issubclass(type(one), tf.Graph):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


def _held() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@contextlib.contextmanager
def weights_within(values: int, source: str) -> Iterator[None]:
    """Refuses to make more weights than a file holds, before any memory is taken for them.

    Args:
        values: Number of values in the file.
        source: The file, for the message.

    Raises:
        ModelError: If Keras asks for more.
    """
    asked = 0

    def create(next_creator: Any, **options: object) -> Any:
        nonlocal asked
        shape = options.get("shape")
        if shape is None:
            shape = getattr(options.get("initial_value"), "shape", ())
        shape = tf.TensorShape(shape)
        asked += (shape.num_elements() or 0) if shape.rank is not None else 0
        if asked > values + UNSAVED:
            raise ModelError(
                f"{source}: its layers claim {asked:,} weights or more, the file holds {values:,}",
                "the weights of every layer",
                "Copy the file again, or save the model again",
            )
        return next_creator(**options)

    with tf.variable_creator_scope(create):
        yield
