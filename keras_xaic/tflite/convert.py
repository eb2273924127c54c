"""Keras to .tflite through TensorFlow's own converter: the twins that everything else is written from."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional, Union

import numpy as np

from keras_xaic._keras import Layer, Model, Tensor, keras, tf
from keras_xaic.data import Array, Parts, Samples, arrays_of
from keras_xaic.errors import DataError, ExportError, ModelError
from keras_xaic.isolation import ChildDied, run_isolated
from keras_xaic.models.front import Front, needed_fronts
from keras_xaic.models.operations import Operations
from keras_xaic.models.rebuilding import drawn_open, drawn_twice
from keras_xaic.silence import captured_stderr
from keras_xaic.temporary import temporary_directory
from keras_xaic.tflite.converter import Graph, Precision, Wish, freeze, one_by_one, plain_words
from keras_xaic.tflite.flatbuffer import ModelT, Operator, load, name_of, operators, pack
from keras_xaic.tflite.fronts import write_front
from keras_xaic.tflite.in_float import compute_in_float
from keras_xaic.tflite.mask_values import with_near_masks
from keras_xaic.tflite.one_hot import as_one_hot
from keras_xaic.tflite.pairing import weight_operators
from keras_xaic.tflite.repeating import as_joined
from keras_xaic.tflite.scales import cut_results, settle_scales
from keras_xaic.tflite.signature import name_stably, restore_order
from keras_xaic.tflite.unrolling import MOST_STEPS, has_loop, looping, without_loops

Calibration = Union[Array, Sequence[np.ndarray], Samples]
CONVERTER = "keras_xaic.tflite.converter"
"""The module that converts, in a child process."""
TIMEOUT = 3600.0
"""Seconds that one conversion may take."""
KEPT, KEPT_BYTES = 16, 50_000_000
"""How many files of the converter are kept, and how many bytes of them: a bundle is made of few, several times each."""
_kept: dict[bytes, bytes] = {}
_FLOATING = Wish("float32")
_NODE = re.compile(r"\s*Node number (\d+) \((\w+)\) failed to ")


def float_twin(model: Model) -> bytes:
    """Returns the model as float32 .tflite with a batch of 1.

    Args:
        model: Functional or sequential `keras.Model`. Rebuilding the same model gives the same bytes.

    Raises:
        ExportError: If TFLite has no operator for a part of the model; the message names it.
    """
    return pack(converted(model, Wish("float32")))


def int8_twin(model: Model, calibration: Calibration) -> bytes:
    """Returns the model as .tflite with int8 weights and activations, quantized after training by TFLite's own rules.

    Args:
        model: See `float_twin`.
        calibration: Inputs that set the activation ranges: (N, ...) in the model's own dtype and range, or one such array
            per input of the model, in the order of ``model.inputs``.

    Raises:
        DataError: If the calibration data does not fit the model.
        ExportError: See `float_twin`.
    """
    return pack(converted(model, Wish("int8"), calibration))


def calibration_arrays(model: Model, calibration: Calibration) -> list[np.ndarray]:
    """Returns the calibration data as one array per input of the model.

    Raises:
        DataError: If number, shape or length of the arrays do not fit.
    """
    if isinstance(calibration, (Samples, Parts)):
        given: Any = calibration.feeds() if isinstance(calibration, Samples) else arrays_of(calibration)
    else:
        several = isinstance(calibration, (list, tuple)) and len(calibration) > 0 and hasattr(calibration[0], "ndim")
        given = list(calibration) if several else [calibration]
    arrays = [np.asarray(array) for array in given]
    if len(arrays) != len(model.inputs):
        raise DataError(f"{len(arrays)} calibration arrays", f"{len(model.inputs)}, one for each input of the model")
    for number, (array, tensor) in enumerate(zip(arrays, model.inputs)):
        expected = tuple(tensor.shape[1:])
        if array.ndim != len(expected) + 1 or any(e is not None and e != n for e, n in zip(expected, array.shape[1:])):
            raise DataError(f"calibration data for input {number} has shape {array.shape}", f"(N, {str(expected)[1:]}")
        if len(array) == 0 or len(array) != len(arrays[0]):
            raise DataError(f"{len(array)} calibration samples for input {number}", "at least one, equally many for each input")
    return [np.asarray(array, tensor.dtype.as_numpy_dtype) for array, tensor in zip(arrays, model.inputs)]


def converted(model: Model, wish: Wish, calibration: Optional[Calibration] = None) -> ModelT:
    """Returns the loaded file that TensorFlow's converter makes of a model (see `traced`)."""
    with traced(model, wish.precision, calibration) as source:
        return source.converted(wish)


_STEPWISE = ("int16", "float16")
"""An LSTM is written step by step: TFLite's operator takes no such activations, the converter dies of such weights of it."""


@contextlib.contextmanager
def traced(model: Model, precision: Precision, calibration: Optional[Calibration] = None) -> Iterator[Source]:
    """Yields a model as the converter takes it: traced once, for files of one precision and their float32 twin.

    Args:
        model: See `float_twin`.
        precision: What the files compute with; see `_STEPWISE`.
        calibration: See `int8_twin`; for integer activations. Inputs that they would make too coarse get a float32 front
            (see `models.front`).

    Raises:
        DataError: If the calibration data does not fit the model.
        ModelError: If an input has a free dimension.
    """
    arrays = [] if calibration is None else calibration_arrays(model, calibration)
    with temporary_directory() as directory:
        yield Source(model, arrays, precision in _STEPWISE, str(directory))


class Source:
    """A traced model; made by `traced`."""

    def __init__(self, model: Model, arrays: list[np.ndarray], every: bool, directory: str) -> None:
        self.model = model
        self.operations = Operations(model)
        self.fronts = needed_fronts(self.operations, arrays)
        inputs = zip(self.operations.inputs, arrays)
        self.arrays = [self.fronts[key](array) if key in self.fronts else array for key, array in inputs]
        self.graph = _traced(model, self.operations, self.fronts, directory, every)
        if arrays and self.graph.directory is None:
            self.graph = with_near_masks(self.graph, list(one_by_one(self.arrays)))
        self._contents: dict[Wish, bytes] = {}

    @functools.cached_property
    def floating(self) -> ModelT:
        """The float32 twin; whoever changes it is the last who reads it."""
        return self.converted(_FLOATING)

    def converted(self, wish: Wish, with_twin: bool = False) -> ModelT:
        """Returns the loaded file that TensorFlow's converter makes, in a child process, which it may take with it.

        Args:
            wish: What the file computes with.
            with_twin: Whether the float32 twin will be read, too: the same process makes it.

        Raises:
            ExportError: If TFLite has no operator for a part of the model, or calibration data leaves values without a range;
                the message names the layer.
        """
        name = self.model.name
        try:
            content = self._contents.pop(wish, None)
            if content is None:
                wishes = [wish, _FLOATING] if with_twin and "floating" not in vars(self) else [wish]
                content, *rest = _made(self.graph, wishes, self.arrays)
                self._contents.update(zip(wishes[1:], rest))
        except ChildDied as death:
            names = looping(self.operations)
            if not names:
                raise
            raise ChildDied(
                f"{death.found}; of all layers it is known to crash on loops: {names}",
                f"sequences of a fixed length of at most {MOST_STEPS} steps, and layers that keep no state",
                "Shorten the sequence; choose float32 activations: {activations=float32}; "
                "choose float32 activations: {precision=weight-only}",
            ) from death
        except ExportError as error:
            names = looping(self.operations) if wish.precision == "int16" else ""
            if names:
                raise ExportError(
                    f"model {name!r} cannot be converted with int16 activations: {error.found}; it has loops: {names}",
                    f"sequences of a fixed length of at most {MOST_STEPS} steps, and layers that keep no state",
                    "Choose int8 or float32 activations: {activations=int8}",
                ) from error
            raise ExportError(
                f"model {name!r} cannot be converted to TFLite: {with_layers(self._at_node(error.found), self.operations)}",
                "operators that TFLite has",
                "Replace the layer that uses it",
            ) from error
        file = load(content)
        restore_order(file)
        compute_in_float(file)
        cut = cut_results(file)
        if cut:
            raise ExportError(
                f"layer {self._layer_of(cut[0])!r} chooses between values of which int16 files cut some off",
                "int8 or float32 activations",
                "Choose them: {activations=int8}",
            )
        twin = (lambda: weight_operators(self.floating)) if wish.precision == "int16" else None
        dead = settle_scales(file, twin)
        if dead:
            raise ExportError(
                f"layer {self._layer_of(dead[0])!r} gives 0, or nearly so, for all calibration data: "
                f"{wish.precision} activations have no step there",
                "calibration data for which it gives something",
                "Give more or other calibration data, remove the layer, or choose other activations",
            )
        for number, key in enumerate(self.operations.inputs):
            if key in self.fronts:
                front = self.fronts[key]
                last = [one.name for one in self.operations].index(front.operations[-1])
                write_front(file, number, front.center, front.gain, f"op{last:04d}")
        name_stably(file)
        return file

    def _at_node(self, text: str) -> str:
        """Returns what an interpreter says while ranges are measured, with the operation in place of a number."""
        return with_operation(text, self.floating) if _NODE.search(text) else text

    def _layer_of(self, operator: Operator) -> str:
        return layer_name(name_of(operator.output()), [operation.layer.name for operation in self.operations])


def with_operation(text: str, file: ModelT) -> str:
    """Returns what an interpreter says of a node of a file, with the operation that it belongs to in place of its number."""
    found = _NODE.search(text)
    if found is None:
        return plain_words(text)
    alike = [one for one in operators(file) if one.kind == found.group(2)]
    chosen = [one for one in alike if one.index == int(found.group(1))] or alike
    place = re.search(r"op\d{4}", name_of(chosen[0].output())) if chosen else None
    return plain_words(text[: found.start()]) + ("" if place is None else f" in {place.group()}")


def with_layers(text: str, operations: Operations) -> str:
    """Returns a message with layers in place of the names that operations have while they are converted."""

    def layer(found: re.Match[str]) -> str:
        one = list(operations)[int(found.group(1))].layer
        return f"layer {one.name!r} ({type(one).__name__})"

    return re.sub(r"op(\d{4})", layer, text)


def _made(graph: Graph, wishes: Sequence[Wish], arrays: list[np.ndarray]) -> list[bytes]:
    """Returns the converter's files, made by one process; those of the same graph and data are not made again."""
    digest = hashlib.sha256(repr((graph.inputs, graph.outputs, graph.directory)).encode() + graph.content)
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    keys = [digest.digest() + repr(wish).encode() for wish in wishes]
    # What lies in a directory may change.
    made = {} if graph.directory is not None else {key: _kept.pop(key) for key in keys if key in _kept}
    missing = [number for number, key in enumerate(keys) if key not in made]
    if missing:
        found = run_isolated(
            f"{CONVERTER}:convert",
            graph,
            [wishes[number] for number in missing],
            arrays,
            timeout=TIMEOUT,
            what="TensorFlow's converter",
            preload=CONVERTER,
        )
        made.update({keys[number]: bytes(found[str(place)]) for place, number in enumerate(missing)})
    if graph.directory is None:
        _kept.update(made)
        while len(_kept) > 1 and (len(_kept) > KEPT or sum(map(len, _kept.values())) > KEPT_BYTES):
            del _kept[next(iter(_kept))]
    return [made[key] for key in keys]


def _traced(model: Model, operations: Operations, fronts: Mapping[str, Front], directory: str, every: bool) -> Graph:
    """Traces the model with a batch of 1 under names that do not depend on what else was built in this process.

    Fronts are left out: what comes out of them is the input.
    """
    instead = {one.name: as_one_hot(one.layer) or as_joined(one.layer) for one in operations if one.inputs}
    functions = {name: instead[name] or function for name, function in without_loops(operations, every).items()}
    starts = [fronts[key].key if key in fronts else key for key in operations.inputs]
    left_out = {name for front in fronts.values() for name in front.operations}

    def run(*inputs: Tensor) -> list[Tensor]:
        tensors = dict(zip(starts, inputs))
        for number, operation in enumerate(operations):
            if operation.name in left_out:
                continue
            with tf.name_scope(f"op{number:04d}"):  # the converter orders operators by name
                tensors.update(zip(operation.outputs, operation.call(tensors, functions.get(operation.name))))
        return [tensors[key] for key in operations.outputs]

    specification = []
    for number, tensor in enumerate(model.inputs):
        shape = tuple(tensor.shape[1:])
        if any(n is None for n in shape):
            raise ModelError(f"input {number} of the model has free dimensions {shape}", "a fixed shape", "Rebuild it with one")
        specification.append(tf.TensorSpec((1, *shape), tensor.dtype, name=f"input_{number}"))
    made = [layer for layer in functions.values() if isinstance(layer, Layer)]
    with drawn_twice(made), drawn_open([*made, *(one.layer for one in operations)]):
        function = tf.function(run, autograph=False).get_concrete_function(*specification)
    if any(has_loop(function) for function in functions.values()):
        owner = keras.Model(model.inputs, model.outputs)
        owner.unrolled = made  # what is saved must know its weights
        with captured_stderr():
            tf.saved_model.save(owner, directory, function, tf.saved_model.SaveOptions(save_debug_info=True))
        return Graph(inputs=tuple(one.name for one in specification), directory=directory)
    return freeze(function)


def layer_name(tensor: str, names: Sequence[str]) -> str:
    """Returns the layer that a tensor belongs to, of `names` in the order of the operations."""
    found = re.search(r"op(\d{4})", tensor)
    return names[int(found.group(1))] if found else names[-1]  # what gives a model's output is named after that
