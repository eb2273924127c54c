"""Samples of an evaluation shared out among the nodes of a Ray cluster."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Callable, Optional, Union

import numpy as np

from keras_xaic.cluster import joined
from keras_xaic.data import arrays_of
from keras_xaic.edge.installed import interpreter_version
from keras_xaic.edge.running import EdgeResult, run_file
from keras_xaic.errors import EdgeError, MachineError
from keras_xaic.files import PathLike


def run_on_nodes(
    address: str,
    files: Mapping[str, PathLike],
    inputs: Any,
    first: Mapping[str, EdgeResult],
    how: Mapping[str, Any],
    progress: Callable[[str, int], None],
) -> dict[str, Union[EdgeResult, EdgeError]]:
    """Runs every sample through files, each node of a cluster a part of them; the outputs are those of one process.

    Args:
        address: Of the cluster, as for `joined`.
        files: Interpreter -> the file that it runs.
        inputs: Of all samples.
        first: Interpreter -> what it made of the first sample here: time and memory are measured on this machine.
        how: Further arguments of `run_file`.
        progress: Told an interpreter and its number of finished samples.

    Returns:
        Interpreter -> what it made of all samples, or its first error.

    Raises:
        MachineError: As `joined` and `Cluster.call`, or if a node has another version of an interpreter.
    """
    found: dict[str, Union[EdgeResult, EdgeError]] = {}
    with joined(address, {name: files[name] for name in first}, modules=("numpy",)) as nodes:
        count = min(nodes.size, len(inputs))
        bounds = [len(inputs) * number // count for number in range(count + 1)]
        for interpreter, here in first.items():
            progress(interpreter, 0)
            jobs = [
                (interpreter, interpreter_version(interpreter), [np.array(one[start:end]) for one in arrays_of(inputs)], how)
                for start, end in zip(bounds, bounds[1:])
            ]
            parts = nodes.map(f"{__name__}:{part_of.__name__}", jobs)
            errors = [part for part in parts if isinstance(part, EdgeError)]
            if errors:
                found[interpreter] = errors[0]
                continue
            outputs, raw = ([np.concatenate(one) for one in zip(*arrays)] for arrays in zip(*parts))
            found[interpreter] = replace(here, outputs=outputs, raw=raw)
            progress(interpreter, len(inputs))
    return found


def part_of(
    places: Mapping[str, str], interpreter: str, version: Optional[str], inputs: list[np.ndarray], how: Mapping[str, Any]
) -> Union[tuple[list[np.ndarray], list[np.ndarray]], EdgeError]:
    """Returns a file's outputs for a part of the samples, real and raw; on a node, where the files lie at `places`."""
    own = interpreter_version(interpreter)
    if own != version:
        found = f"{interpreter} {own}, not {version}" if own else f"no {interpreter}"
        raise MachineError(f"node {socket.gethostname()} has {found}", "the same versions on every node")
    try:
        result = run_file(places[interpreter], inputs, interpreter=interpreter, **how)
    except EdgeError as error:
        return error
    return result.outputs, result.raw
