"""The directory in which a run keeps its finished steps, so that it can continue after an interruption."""

from __future__ import annotations

import hashlib
import json
import pathlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Optional

import numpy as np

from keras_xaic._keras import tf
from keras_xaic._version import __version__
from keras_xaic.bundle import Made, cached
from keras_xaic.data import Data
from keras_xaic.files import write_atomic
from keras_xaic.identity import digest_of, facts_of, facts_of_layers
from keras_xaic.output_tasks import AnyTask
from keras_xaic.progress import Progress

if TYPE_CHECKING:
    from keras_xaic._keras import Model

Loaded = tuple["Model", Data, AnyTask]
"""What a run works on (see `keras_xaic.pipeline.inputs.load_both`)."""


@dataclass
class Workspace:
    """Finished steps of one job.

    Attributes:
        path: The directory (see `keras_xaic.ownership.Output.start`).
        progress: Told how far the work is.
        seconds: Step -> how long it took, over all interruptions.
        shared: What this run shares with others; None: nothing.
    """

    path: pathlib.Path
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    shared: Optional[Shared] = None

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
        of: Any = None,
    ) -> Made:
        """Returns what was made before, or makes and keeps it (see `keras_xaic.bundle.cached`).

        Args:
            name: Of the file.
            make: Makes it.
            save: Writes it to a path.
            load: Reads it back.
            of: What it depends on beside model and data, where other runs may use it, too (see `Shared`).
        """
        if self.shared is not None and of is not None:
            return self.shared.cached(name, of, make, save, load)
        return cached(self.path / name, make, save, load)


@dataclass
class Shared:
    """What runs on the same model and data make once, in a directory that is addressed by what it depends on.

    Attributes:
        directory: Where it is kept.
        identity: Digest of model and data.
        used: How often something was there already.
        made: How often it was not.
        seconds_saved: What making it took, once for every time that it was used.
        loaded: Model, data and task, where they are loaded already; a run does not change them.
    """

    directory: pathlib.Path
    identity: str = ""
    used: int = 0
    made: int = 0
    seconds_saved: float = 0.0
    loaded: Optional[Loaded] = None

    def cached(
        self,
        name: str,
        of: Any,
        make: Callable[[], Made],
        save: Callable[[Made, pathlib.Path], Any],
        load: Callable[[pathlib.Path], Made],
    ) -> Made:
        """Returns what another run made, or makes it for all (see `Workspace.cached`)."""
        address = hashlib.sha256(json.dumps([self.identity, facts_of(of)]).encode()).hexdigest()[:32]
        path = self.directory / address / name
        clock = path.with_name(f"{name}.seconds")  # written last: without it the file may be of a run that is at work
        if clock.exists() and path.exists():
            self.used += 1
            self.seconds_saved += float(clock.read_text())
            return load(path)
        start = time.perf_counter()
        made = make()
        self.made += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        save(made, path)
        write_atomic(clock, f"{time.perf_counter() - start:.2f}")
        return made


def run_fingerprint(model: Model, data: Data, settings: Any) -> str:
    """Returns a digest of everything that a run depends on, every sample of the data and the versions among it."""
    known = [__version__, tf.__version__, facts_of_layers(model), data.classes, data.images]
    digest = hashlib.sha256(json.dumps([facts_of(settings), known]).encode())
    digest.update(json.dumps(model.get_config(), default=str, sort_keys=True).encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    for name, samples in data.parts():
        digest.update(repr((name, samples.scale, samples.offset, samples.task)).encode())
        for array in (samples.x, samples.y, samples.weight):
            if array is not None:
                digest.update(digest_of(array).encode())
    return digest.hexdigest()
