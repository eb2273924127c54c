"""Keras as it is when nobody has changed it, for the length of a public call; afterwards it is as the user had it."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, Callable, TypeVar, cast

from keras_xaic._keras import keras, tf
from keras_xaic.errors import MachineError, PlanError
from keras_xaic.generators import generators_kept
from keras_xaic.silence import warnings_are_told

_inside = contextvars.ContextVar("inside", default=False)
_turn = threading.RLock()
Function = TypeVar("Function", bound=Callable[..., Any])


_forked = False
"""Whether this process was forked from one in which TensorFlow had begun to work: its threads are not here."""


def _after_fork() -> None:
    global _forked, _turn
    _turn = threading.RLock()  # a thread that is not here may have held it
    context = sys.modules["tensorflow.python.eager.context"]
    _forked = _forked or bool(getattr(context.context_safe(), "_initialized", False))


os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def usual_keras() -> Iterator[None]:
    """Sets what is set for the whole process to the usual, and sets it back afterwards.

    That is: float32 as `floatx` and policy, functions compiled (not `tf.config.run_functions_eagerly`), TensorFlow's logger at
    errors, and warnings of other packages no errors. Random generators continue where they were (see `keras_xaic.generators`).
    Inside another such call nothing happens. Calls of several threads take turns: what one sets back, another would be working
    with.

    Raises:
        MachineError: In a fork of a process in which TensorFlow has worked, where it would wait for ever.
        PlanError: In the scope of a strategy of TensorFlow, in which all models would be made for its devices, and where eager
            execution is off.
    """
    if _forked:
        found = "this process was forked from one in which TensorFlow has worked: here it would wait for ever"
        raise MachineError(found, "", "start processes with multiprocessing.get_context('spawn')")
    if _inside.get():
        yield
        return
    with _turn:
        mark = _inside.set(True)
        try:
            with _usual():
                yield
        finally:
            _inside.reset(mark)


@contextlib.contextmanager
def _usual() -> Iterator[None]:
    if tf.distribute.has_strategy():
        found = "this is called in the scope of a tf.distribute strategy"
        raise PlanError(found, "a call outside of it; the model may have been made inside", "Training takes {strategy}")
    if not tf.executing_eagerly():
        found = "eager execution is off here: in a tf.function or tf.Graph, or by tf.compat.v1.disable_eager_execution()"
        raise PlanError(found, "a call where it is on", "Call this outside, or in a process of its own")
    logger = tf.get_logger()
    floatx, policy, eagerly = keras.backend.floatx(), keras.mixed_precision.global_policy(), tf.config.functions_run_eagerly()
    level = logger.level
    other = policy.name != floatx  # else it follows floatx
    try:
        if floatx != "float32":
            keras.backend.set_floatx("float32")
        if other:
            keras.mixed_precision.set_global_policy("float32")
        if eagerly:
            tf.config.run_functions_eagerly(False)
        logger.setLevel(logging.ERROR)
        with warnings_are_told(), generators_kept():
            yield
    finally:
        logger.setLevel(level)
        if eagerly:
            tf.config.run_functions_eagerly(True)
        if floatx != "float32":
            keras.backend.set_floatx(floatx)
        if other:
            keras.mixed_precision.set_global_policy(policy)


def in_usual_keras(function: Function) -> Function:
    """Makes a public function work in `usual_keras`."""

    @functools.wraps(function)
    def wrapped(*args: object, **options: object) -> Any:
        with usual_keras():
            return function(*args, **options)

    return cast(Function, wrapped)
