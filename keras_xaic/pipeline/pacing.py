"""What a limit of time means for one model: how fast its plain int8 file is, by prediction and on this machine."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Optional

from keras_xaic import edge, tflite
from keras_xaic.budget import LEAST_SLOWDOWN, MOST_SLOWDOWN, Budget
from keras_xaic.data import Samples
from keras_xaic.edge import REGISTRY
from keras_xaic.errors import PlanError
from keras_xaic.files import write_atomic
from keras_xaic.models import canonicalize
from keras_xaic.planning.latency import Times
from keras_xaic.settings import Device
from keras_xaic.temporary import temporary_directory

if TYPE_CHECKING:
    from keras_xaic._keras import Model

RUNS = 100
"""Timed runs of every file, in turn with the others."""


def check_pace(budget: Budget, device: Device) -> None:
    """Refuses a limit of time that nothing here could measure.

    Raises:
        PlanError: If no interpreter is installed that files are timed on, or the model is for microcontrollers alone.
    """
    if not budget.in_time:
        return
    named = next(one for one in REGISTRY.values() if one.judges_speed)
    if device.target == "micro":
        raise PlanError(
            f"a limit of time on {named.name} for the target micro, which says nothing of microcontrollers",
            "the target mobile or both, or a limit on multiply-accumulates",
        )
    if edge.speed_judge() is None:
        raise PlanError(
            f"a limit of time, and {named.name}, which files are timed on, is not installed",
            named.package,
            f"Get it: {named.install}",
        )


@dataclass
class Pace:
    """The original as plain int8, which times are compared with.

    Attributes:
        model: The original.
        samples: Calibration data.
        file: Where its plain int8 file lies, or will once it is needed.
    """

    model: Model
    samples: Samples
    file: pathlib.Path

    @functools.cached_property
    def plain(self) -> float:
        """Microseconds that plain int8 is predicted to take by the table (see `keras_xaic.planning.latency`)."""
        return Times(canonicalize(self.model).model).plain()

    def slowdown(self, budget: Budget) -> Optional[float]:
        """Returns the limit of time as a multiple of plain int8's; None where there is none."""
        limits = [] if budget.max_slowdown is None else [budget.max_slowdown]
        if budget.latency_ms is not None:
            limits.append(budget.latency_ms / self._milliseconds)
        return min(limits, default=None)

    def ratio(self, content: bytes) -> float:
        """Returns how many times as long as plain int8 a file takes on this machine."""
        with temporary_directory() as folder:
            path = folder / "model.tflite"
            path.write_bytes(content)
            raced = self.race({"file": path})
        return raced["file"].least / raced["plain"].least

    def race(self, paths: Mapping[str, pathlib.Path]) -> dict[str, edge.Latency]:
        """Returns the latency of files, and of plain int8, run in turn."""
        raced = edge.race({**paths, "plain": self.written()}, interpreter=edge.speed_judge() or edge.AUTO, runs=RUNS)
        return {name: latency for name, (latency, _) in raced.items()}

    def written(self) -> pathlib.Path:
        """Returns the plain int8 file, as the converter writes it."""
        if not self.file.exists():
            write_atomic(self.file, tflite.int8_twin(canonicalize(self.model).model, self.samples))
        return self.file

    @functools.cached_property
    def _milliseconds(self) -> float:
        return self.race({})["plain"].median


def in_slowdown(budget: Budget, slowdown: Optional[float]) -> Budget:
    """Returns a budget whose limit of time is a multiple of plain int8's time.

    What follows from milliseconds may be any number: 1 us for a large model, 100 ms for one that takes 5 us.
    """
    if slowdown is not None:
        slowdown = min(max(slowdown, LEAST_SLOWDOWN), MOST_SLOWDOWN)
    return replace(budget, latency=None, max_slowdown=slowdown)
