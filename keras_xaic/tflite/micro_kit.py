"""The part of a bundle for TensorFlow Lite Micro: the file, the same as C source, and how to call it."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from typing import Optional

from keras_xaic.errors import ExportError
from keras_xaic.files import write_atomic
from keras_xaic.tflite.flatbuffer import ModelT, load, operators

Names = tuple[Sequence[str], Sequence[str]]
"""Of inputs and of outputs."""
DECODE = "TFLM_DECODE"
"""Custom operator that unpacks weights when they are needed."""
_CUSTOM_CALLS = {DECODE: "AddDecode"}
_IRREGULAR = {
    "BATCH_MATMUL": "AddBatchMatMul",
    "CUMSUM": "AddCumSum",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}
_HEADER = """\
// Written by keras-xaic. {size} bytes.
#ifndef XAIC_MODEL_DATA_H_
#define XAIC_MODEL_DATA_H_

extern const unsigned char g_model_data[];
extern const unsigned int g_model_data_size;
{ports}
#endif  // XAIC_MODEL_DATA_H_
"""
_SOURCE = """\
// Written by keras-xaic. {size} bytes.
#include "model_data.h"

alignas(16) const unsigned char g_model_data[] = {{
{rows}
}};
const unsigned int g_model_data_size = {size};
"""
_README = """\
# The model for TensorFlow Lite Micro

`model.tflite` has {size:,} bytes of flash; `model_data.h` and `model_data.cc` hold the same bytes as C++ source.
{arena}

```cpp
#include "model_data.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

alignas(16) static uint8_t arena[{arena_size}];

tflite::MicroMutableOpResolver<{count}> resolver;
{calls}
tflite::MicroInterpreter interpreter(tflite::GetModel(g_model_data), resolver, arena, sizeof(arena));
interpreter.AllocateTensors();
```

| tensor | shape | type | scale | zero point |
|---|---|---|---|---|
{tensors}

A real value is `(code - zero point) * scale`.
{decode}{state}"""
_DECODE_NOTE = """
Weights of some layers are compressed and unpacked by the DECODE operator each time they are needed: the arena holds the
unpacked weights of one layer at a time. It needs a TensorFlow Lite Micro that has `AddDecode`.
"""
_STATE_NOTE = """
The model keeps a state between calls, as recurrent layers do. Call `interpreter.Reset()` before every new sequence, or its
outputs depend on the sequences before.
"""
_TYPES = {0: "float32", 7: "int16", 9: "int8", 3: "uint8", 2: "int32"}


def write_micro(
    directory: pathlib.Path,
    content: bytes,
    arena_bytes: Optional[int] = None,
    names: Optional[Names] = None,
    model: Optional[ModelT] = None,
) -> None:
    """Writes ``model.tflite``, ``model_data.h``, ``model_data.cc`` and ``README.md``.

    Args:
        directory: Where to; made if it does not exist.
        content: A .tflite file that TensorFlow Lite Micro runs.
        arena_bytes: RAM that the interpreter was measured to need; the README says how to find out where it is None.
        names: What the model's inputs and outputs are called, in the file's order; where there are several of either, the
            README and the header say which is which.
        model: The file, loaded; None loads it.

    Raises:
        ExportError: If the file has an operator that TensorFlow Lite Micro cannot be asked for.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name, made in micro_files(content, model or load(content), arena_bytes, names).items():
        write_atomic(directory / name, made)


def micro_files(
    content: bytes, model: ModelT, arena_bytes: Optional[int] = None, names: Optional[Names] = None
) -> dict[str, bytes]:
    """Returns what `write_micro` writes, by name."""
    return {
        "model.tflite": content,
        "model_data.h": _HEADER.format(size=len(content), ports=_port_numbers(names)).encode(),
        "model_data.cc": c_source(content).encode(),
        "README.md": micro_readme(len(content), model, arena_bytes, names).encode(),
    }


def c_source(content: bytes) -> str:
    """Returns C++ source that defines the bytes as `g_model_data`, aligned to 16, and their number."""
    rows = (", ".join(f"0x{byte:02x}" for byte in content[start : start + 16]) for start in range(0, len(content), 16))
    return _SOURCE.format(size=len(content), rows="\n".join(f"    {row}," for row in rows))


def _port_numbers(names: Optional[Names]) -> str:
    """Returns C constants with the numbers of inputs and outputs; empty where there is one of each.

    >>> print(_port_numbers((("image", "table"), ("digit",))).strip())
    // interpreter.input(XAIC_INPUT_...) and interpreter.output(XAIC_OUTPUT_...)
    enum { XAIC_INPUT_IMAGE = 0, XAIC_INPUT_TABLE = 1 };
    enum { XAIC_OUTPUT_DIGIT = 0 };
    """
    if names is None or max(map(len, names)) < 2:
        return ""
    lines = ["", "// interpreter.input(XAIC_INPUT_...) and interpreter.output(XAIC_OUTPUT_...)"]
    for role, given in zip(("INPUT", "OUTPUT"), names):
        listed = ", ".join(f"XAIC_{role}_{one} = {number}" for number, one in enumerate(_constants(given)))
        lines.append(f"enum {{ {listed} }};")
    return "\n".join([*lines, ""])


def _constants(names: Sequence[str]) -> list[str]:
    """Returns names as parts of C constants, each another one, and none that is a macro of the sources of `xaic project`.

    >>> _constants(("a-b", "a.b", "a_b_0", "0_size"))
    ['A_B_0_0', 'A_B_1', 'A_B_0', '0_SIZE_3']
    """
    plain = [re.sub(r"[^A-Z0-9]+", "_", name.upper()) for name in names]
    found: list[str] = []
    for number, one in enumerate(plain):
        if plain.count(one) > 1 or re.fullmatch(r"[0-9]+_SIZE", one):
            one += f"_{number}"
            while one in (*plain, *found):
                one += f"_{number}"
        found.append(one)
    return found


def micro_readme(size: int, file: ModelT, arena_bytes: Optional[int] = None, names: Optional[Names] = None) -> str:
    """Returns the README of a ``micro/`` directory (see `write_micro`) with a file of `size` bytes."""
    calls = resolver_calls(file)
    if arena_bytes is None:
        arena = "The arena has not been measured: run `xaic verify` with the interpreter `tflm`, or try sizes on the device."
    else:
        arena = f"It needs an arena of {arena_bytes:,} bytes of RAM (measured on a 64-bit host; 32-bit devices need less)."
    return _README.format(
        size=size,
        arena=arena,
        arena_size="64 * 1024" if arena_bytes is None else arena_bytes,
        count=len(calls),
        calls="\n".join(f"resolver.{call}();" for call in calls),
        tensors="\n".join(_tensor_rows(file, names)),
        decode=_DECODE_NOTE if "AddDecode" in calls else "",
        state=_STATE_NOTE if keeps_state(file) else "",
    )


def keeps_state(file: ModelT) -> bool:
    """Returns whether a call of the file depends on the calls before it, until the interpreter is told to forget them."""
    return any(tensor.isVariable for graph in file.subgraphs for tensor in graph.tensors)


def resolver_calls(file: ModelT) -> list[str]:
    """Returns the calls on `MicroMutableOpResolver` that a file needs, e.g. ``AddConv2D``, in alphabetic order.

    Raises:
        ExportError: If it has a custom operator that is not part of TensorFlow Lite Micro.
    """
    return sorted({resolver_call(operator.kind) for graph in range(len(file.subgraphs)) for operator in operators(file, graph)})


def resolver_call(kind: str) -> str:
    """Returns the call that registers an operator kind, ``CONV_2D`` say (see `resolver_calls`)."""
    if kind.startswith("CUSTOM:"):
        custom = kind.split(":", 1)[1]
        if custom not in _CUSTOM_CALLS:
            raise ExportError(f"the model has the custom operator {custom!r}", "operators of TensorFlow Lite Micro")
        return _CUSTOM_CALLS[custom]
    if kind in _IRREGULAR:
        return _IRREGULAR[kind]
    words = [word if re.fullmatch(r"\dD", word) else word.capitalize() for word in kind.split("_")]
    return "Add" + "".join(words)


def _tensor_rows(file: ModelT, names: Optional[Names]) -> list[str]:
    graph = file.subgraphs[0]
    rows = []
    several = max(len(graph.inputs), len(graph.outputs)) > 1
    for role, indices, called in zip(("input", "output"), (graph.inputs, graph.outputs), names or ((), ())):
        for number, index in enumerate(indices):
            name = f" `{called[number]}`" if several and number < len(called) else ""
            tensor = graph.tensors[index]
            record = tensor.quantization
            quantized = record is not None and record.scale is not None and record.zeroPoint is not None
            scale = f"{record.scale[0]:.9g} | {record.zeroPoint[0]}" if quantized else "- | -"
            shape = " x ".join(str(n) for n in tensor.shape) if tensor.shape is not None else "one value"
            rows.append(f"| {role} {number}{name} | {shape} | {_TYPES.get(tensor.type, tensor.type)} | {scale} |")
    return rows
