"""One large model trained on several GPUs of a machine, by `tf.distribute.MirroredStrategy`.

Variables belong to the strategy in whose scope they are made. So only what is trained is made there: clones with masks and
grids, and their optimizers. The model itself, and what attributions look at, stay outside.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any, Callable, TypeVar, cast

from keras_xaic._keras import Model, tf
from keras_xaic.errors import MachineError

Function = TypeVar("Function", bound=Callable[..., Any])


def strategy_of(asked: Any) -> Any:
    """Returns the strategy that `Training.strategy` asks for; None trains on one device.

    Raises:
        MachineError: If this machine has nothing to mirror a model on.
    """
    return _on_all_devices() if isinstance(asked, str) else asked


def in_its_scope(function: Function) -> Function:
    """Has a function of a model work in the scope of the strategy that the model was made for."""

    @functools.wraps(function)
    def wrapped(model: Model, *args: object, **options: object) -> Any:
        strategy = model.distribute_strategy
        with contextlib.nullcontext() if strategy is tf.distribute.get_strategy() else strategy.scope():
            return function(model, *args, **options)

    return cast(Function, wrapped)


@functools.cache  # variables of two strategies do not mix
def _on_all_devices() -> Any:
    devices = tf.config.list_logical_devices("GPU")
    if not devices:
        devices = tf.config.list_logical_devices("CPU")
        if len(devices) < 2:
            found = "strategy is mirrored, and TensorFlow finds no GPU on this machine"
            raise MachineError(found, "GPUs to share batches among", "Leave out {strategy}, or see `nvidia-smi`")
    return tf.distribute.MirroredStrategy([one.name for one in devices])
