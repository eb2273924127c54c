"""The directory in which a run keeps its finished steps, so that it can continue after an interruption."""

from __future__ import annotations

import hashlib
import json
import pathlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from keras_xaic.bundle import Made, cached
from keras_xaic.data import Data
from keras_xaic.files import write_atomic
from keras_xaic.identity import digest_of, facts_of
from keras_xaic.progress import Progress

if TYPE_CHECKING:
    from keras_xaic._keras import Model


@dataclass
class Workspace:
    """Finished steps of one job.

    Attributes:
        path: The directory (see `keras_xaic.ownership.Output.start`).
        progress: Told how far the work is.
        seconds: Step -> how long it took, over all interruptions.
    """

    path: pathlib.Path
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        clock = self.path / "seconds.json"
        self.seconds.update(json.loads(clock.read_text()) if clock.exists() else {})

    def timed(self, name: str, action: Callable[[], Made]) -> Made:
        """Runs a step and keeps how long it took, over all its interruptions."""
        start = time.perf_counter()
        try:
            return action()
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 2)
            write_atomic(self.path / "seconds.json", json.dumps(self.seconds))

    def cached(
        self,
        name: str,
        make: Callable[[], Made],
        save: Callable[[Made, pathlib.Path], Any],
        load: Callable[[pathlib.Path], Made],
    ) -> Made:
        """Returns what was made before, or makes and keeps it (see `keras_xaic.bundle.cached`)."""
        return cached(self.path / name, make, save, load)


def run_fingerprint(model: Model, data: Data, settings: Any) -> str:
    """Returns a digest of everything that a run depends on; of large arrays a thousand samples."""
    digest = hashlib.sha256(json.dumps(facts_of(settings)).encode())
    digest.update(json.dumps(model.get_config(), default=str, sort_keys=True).encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    for name, samples in data.parts():
        digest.update(repr((name, samples.scale, samples.offset, samples.task)).encode())
        for array in (samples.x, samples.y, samples.weight):
            if array is not None:
                digest.update(digest_of(array).encode())
    return digest.hexdigest()
