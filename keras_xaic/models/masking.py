"""Masks of positions (`mask_zero`, `Masking`) on their way through layers that are wrapped for training."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from keras_xaic._keras import Layer, Model, Tensor
from keras_xaic.data import Samples, arrays_of
from keras_xaic.metrics import IGNORED
from keras_xaic.models.ports import ports_of
from keras_xaic.output_tasks import AnyTask, Tasks

FAR = 9_999.0
"""Values of at least this size, -1e9 for example, are put by masks in place of what must not count."""
_MASK = "_keras_mask"
"""Where Keras hangs masks."""


def mask_of(tensor: Tensor) -> Any:
    """Returns the mask that Keras hung on a tensor, or None."""
    return getattr(tensor, _MASK, None)


def with_mask(tensor: Tensor, mask: Any) -> Tensor:
    """Returns the tensor, with a mask on it if there is one."""
    if mask is not None:
        setattr(tensor, _MASK, mask)
    return tensor


def passes_masks(wrapper: Layer) -> Layer:
    """Has a wrapper take masks, and pass them on, as the layer inside it does; returns the wrapper.

    Wrappers of the Model Optimization toolkit take any argument, by which Keras thinks that they want the mask. They hand it to
    their layer, most layers have no such argument, and none of the wrappers passes a mask on to what follows.
    """
    inside = wrapper.layer
    wrapper.supports_masking = inside.supports_masking
    wrapper._call_spec.expects_mask_arg = inside._call_spec.expects_mask_arg
    wrapper.compute_mask = inside.compute_mask
    return wrapper


def said_of_masks(model: Model, task: AnyTask, samples: Samples) -> Optional[str]:
    """Returns a warning where a mask hides positions of an output and no label says that some do not count; else None.

    Keras leaves such positions out of losses and metrics. Files have no masks, so that only labels can say which count.
    """
    if samples.y is None:
        return None
    tasks = task.tasks if isinstance(task, Tasks) else [task]
    for one, name, tensor, y in zip(tasks, ports_of(model).outputs, model.outputs, arrays_of(samples.y)):
        if mask_of(tensor) is not None and one.ignores and not np.any(np.asarray(y) == IGNORED):
            return (
                f"A mask (mask_zero, or a Masking layer) hides positions of output {name}, such as padding. Keras leaves them "
                f"out of losses and metrics; here all of them count. Label {IGNORED} says of a position that it does not."
            )
    return None
