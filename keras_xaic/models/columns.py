"""Columns of unlike units at the input of a model that does not normalize them.

One scale of 8 bits for a column of 0 to 300 and one of -1 to 1 leaves nothing of the second. Files of models that begin with a
`Normalization` compute it in float32 (see `keras_xaic.models.front`). Others get one here, where data show that it matters, and
the layers behind it take up the opposite: the model computes the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from keras_xaic._keras import Layer, Model, layers
from keras_xaic.data import Samples
from keras_xaic.models.folding import Affine
from keras_xaic.models.front import Front, extent, front_of
from keras_xaic.models.losses import carry_losses
from keras_xaic.models.operations import Operation, Operations
from keras_xaic.models.rebuilding import inputs_like, model_like
from keras_xaic.models.surgery import remove_channels

STEPS = 16.0
"""Codes of the scale that all columns share that a column spans at least where nothing need be looked into."""
MUCH, FINER = 0.02, 2.0
"""Share of their standard deviation that rounded inputs may change outputs by, and how many times less a front has to leave."""
LEVELS, BATCH = 255.0, 256
CODES = "With io of float32, the file scales each column before it rounds."
GRIDS = "Its weights are on grids: compress the original with these data, and the file scales each column before it rounds."
"""What to do where no layer may be added: the file takes codes, or the model is compressed already."""
_ADVICE = (
    "Clip rare large values, train with a Normalization layer at the input, which files compute in float32, or choose wider "
    "activations."
)
_CONVOLUTIONS, _RECURRENT = (layers.Conv1D, layers.Conv2D), (layers.LSTM, layers.GRU, layers.SimpleRNN)


@dataclass(frozen=True)
class Evened:
    """A model behind layers that give the columns of its inputs one size.

    Attributes:
        model: It, or the model that was given where none needs such a layer.
        said: What a report says of that.
        left: The same of inputs that need one and cannot have it: 8 bits ruin them.
    """

    model: Model
    said: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def evened(model: Model, samples: Samples, calibration: Samples, hindered: str = "") -> Evened:
    """Returns the model with a `Normalization` for every input whose columns one scale of 8 bits would ruin.

    Args:
        model: Any that `Operations` takes. It is not changed.
        samples: From which come the ranges of columns.
        calibration: Some of them, by which is judged whether it matters.
        hindered: What to do, where no layer may be added; it is only said then.
    """
    operations, feeds = Operations(model), calibration.feeds()
    fronts: dict[str, Front] = {}
    said, left = [], []
    for place, (key, tensor) in enumerate(zip(operations.inputs, model.inputs)):
        own = front_of(operations, key)
        if tensor.dtype.name != "float32" or len(tensor.shape) < 2 or not _are_unlike(feeds[place], own):
            continue
        before = _changed_by(operations, feeds, place, own)
        if not before > MUCH:
            continue
        found = f"Columns of the input {model.input_names[place]!r} are of unlike size, or far from 0: one scale of 8 bits for "
        found += f"all of them changes outputs by {before:.0%} of their standard deviation. "
        front = None if hindered else _front_for(operations, key, samples, place)
        if (
            front is not None
            and front.is_needed(feeds[place])
            and FINER * _changed_by(operations, feeds, place, front) < before
        ):
            fronts[key] = front
            said.append(f"{found}So the file takes float32 values there and scales each column before it rounds.")
        else:
            left.append(found + (hindered or _ADVICE))
    return Evened(_with_fronts(model, fronts) if fronts else model, tuple(said), tuple(left))


def _are_unlike(values: np.ndarray, front: Optional[Front]) -> bool:
    """Whether a column spans few codes of the scale that all share."""
    flat = _flat(values if front is None else front(values))
    spans = np.ptp(flat, axis=0)
    return bool(np.any((spans > 0) & (spans * LEVELS < STEPS * extent(flat))))


def _changed_by(operations: Operations, feeds: Sequence[np.ndarray], place: int, front: Optional[Front]) -> float:
    """Returns how much outputs change where an input is rounded to 8 bits behind a front, in their standard deviations."""
    values = feeds[place] if front is None else front(feeds[place])
    step = extent(values) / LEVELS
    rounded = (np.rint(values / step) * step).astype(np.float32)
    rounded = rounded if front is None else front.before(rounded)
    pairs = zip(_outputs(operations, feeds), _outputs(operations, [*feeds[:place], rounded, *feeds[place + 1 :]]))
    found = [np.mean(np.square(one - other)) / max(float(np.mean(one.var(axis=0))), 1e-24) for one, other in pairs]
    return float(np.sqrt(max(found)))


def _outputs(operations: Operations, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
    found: list[list[np.ndarray]] = [[] for _ in operations.outputs]
    for start in range(0, len(feeds[0]), BATCH):
        tensors = operations.start([one[start : start + BATCH] for one in feeds])
        for operation in operations:
            tensors.update(zip(operation.outputs, operation.call(tensors)))
        for values, key in zip(found, operations.outputs):
            values.append(np.asarray(tensors[key], np.float64))
    return [np.concatenate(one) for one in found]


def _front_for(operations: Operations, key: str, samples: Samples, place: int) -> Optional[Front]:
    """Returns what brings columns to 1 at most, around 0 where it may move; None where not all readers can take it up."""
    takers = [_taker(operations, reader) for reader in operations.consumers[key]]
    if None in takers or not takers or key in operations.outputs:
        return None
    low, high, mean = _measured(samples, place)
    center = mean if all(_takes_offset(one) for one in takers if one is not None) else np.zeros(len(low))
    reach = np.maximum(high - center, center - low)
    size, moves = np.max([_weights(one.layer, len(low)) for one in takers if one is not None], axis=0), low < high
    # A column that never changes may do so one day, but its weights must not be the largest.
    reach = np.where(moves, reach, np.minimum(reach.max(), (size * reach * moves).max() / np.maximum(size, 1e-12)))
    center, reach = center.astype(np.float32).astype(np.float64), np.maximum(reach, 1e-6)
    return Front(key, (), center, 1.0 / reach)


def _measured(samples: Samples, place: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the least, the largest and the mean value of every column of an input, float64."""
    found = []
    for start in range(0, len(samples), BATCH):
        flat = _flat(samples.feeds(slice(start, start + BATCH))[place]).astype(np.float64)
        found.append((flat.min(axis=0), flat.max(axis=0), flat.sum(axis=0), len(flat)))
    low, high, sums, counts = zip(*found)
    return np.min(low, axis=0), np.max(high, axis=0), np.sum(sums, axis=0) / sum(counts)


def _taker(operations: Operations, reader: Operation) -> Optional[Operation]:
    """Returns the layer that can take up factors of an input's columns, the reader or what is behind a `Flatten`; or None."""
    if type(reader.layer) is layers.Flatten and reader.layer.data_format == "channels_last":
        behind = operations.consumers[reader.outputs[0]]
        dense = len(behind) == 1 and type(behind[0].layer) is layers.Dense and reader.outputs[0] not in operations.outputs
        reader = behind[0] if dense else reader
    layer = reader.layer
    plain = type(layer) in _CONVOLUTIONS and layer.groups == 1 and layer.data_format == "channels_last"
    fits = type(layer) is layers.Dense or plain or (type(layer) in _RECURRENT and len(reader.inputs) == 1)
    bound = any(getattr(layer, f"{part}_constraint", None) is not None for part in ("kernel", "bias"))
    return reader if fits and not bound and sum(one.layer is layer for one in operations) == 1 else None


def _takes_offset(taker: Operation) -> bool:
    layer = taker.layer
    unpadded = type(layer) not in _CONVOLUTIONS or layer.padding == "valid" or all(size == 1 for size in layer.kernel_size)
    return bool(layer.use_bias and unpadded)


def _weights(layer: Layer, columns: int) -> np.ndarray:
    """Returns the largest weight of each column."""
    kernel = layer.get_weights()[0]
    return np.asarray(np.abs(kernel).reshape(-1, columns, kernel.shape[-1]).max(axis=(0, 2)))


def _with_fronts(model: Model, fronts: dict[str, Front]) -> Model:
    flat = remove_channels(model, {})
    operations, inputs = Operations(flat), inputs_like(flat)
    tensors, names = dict(zip(operations.inputs, inputs)), {layer.name for layer in flat.layers}
    for key, front in fronts.items():
        name = f"{tensors[key].name}_columns"
        while name in names:
            name += "_"
        names.add(name)
        tensors[key] = layers.Normalization(mean=front.center, variance=front.gain**-2.0, name=name)(tensors[key])
        for taker in (_taker(operations, reader) for reader in operations.consumers[key]):
            assert taker is not None
            _take_up(taker.layer, front)
    for operation in operations:
        tensors.update(zip(operation.outputs, operation.call(tensors)))
    made = model_like(model, inputs, [tensors[key] for key in operations.outputs])
    carry_losses(model, made)
    return made


def _take_up(layer: Layer, front: Front) -> None:
    kernel, *others = layer.get_weights()
    times = kernel.shape[-2] // len(front.gain)  # behind a Flatten, columns come again and again
    affine = Affine("", "", np.tile(1.0 / front.gain, times), np.tile(front.center, times))
    biases = others[-1:] if layer.use_bias else []
    first = [one.reshape(-1, kernel.shape[-1])[0] for one in biases]  # a GRU has two rows
    kernel, bias = affine.folded_into([kernel, *first], depthwise=False)
    for one in biases:
        one.reshape(-1, kernel.shape[-1])[0] = bias
    layer.set_weights([kernel, *others])


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])
