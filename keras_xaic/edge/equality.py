"""Do two .tflite files compute the same bits? Asked of an interpreter, on random inputs, edge values and data."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from keras_xaic.edge.child.digests import INTERFACE
from keras_xaic.edge.process import Limits, run_child
from keras_xaic.edge.running import job_of, read_or_quote, store, try_file
from keras_xaic.errors import DataError, EdgeError
from keras_xaic.files import PathLike
from keras_xaic.temporary import temporary_directory

Case = Optional[list[Optional[str]]]
SECONDS = 60.0
"""What one run of all samples may take; where it takes longer, there are fewer samples."""


@dataclass(frozen=True)
class Proof:
    """What the comparison of a file with the original found on one interpreter.

    Attributes:
        interpreter: Its name.
        version: Its version.
        samples: How many samples gave the same bits.
        outcomes: How many different outputs there were among them: one says little.
        differing: Cases in which the files differ, or only one of them runs.
        unsteady: Cases in which even the original gives something else each time.
        skipped: Cases that say nothing: the original does not run them.
    """

    interpreter: str
    version: str
    samples: int
    outcomes: int
    differing: tuple[str, ...] = ()
    unsteady: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the files computed the same on all that the original runs, which was something."""
        return self.samples > 0 and not self.differing and not self.unsteady

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for report.json."""
        return {
            "version": self.version,
            "equal": self.holds,
            "samples": self.samples,
            "outcomes": self.outcomes,
            "differing": list(self.differing),
            "unsteady": list(self.unsteady),
            "skipped": list(self.skipped),
        }


class Original:
    """What a file gives on an interpreter, to compare other files with.

    Args:
        path: The .tflite file.
        interpreter: See `keras_xaic.edge.run_file`.
        inputs: One (N, ...) array per input, to be run beside random inputs and edge values.
        signatures: Whether the file's signatures are run, too.
        limits: Seconds without progress, and memory of the interpreter.

    Raises:
        EdgeError: If the interpreter does not run the file; its words are quoted.
        DataError: If there is no such file, or `inputs` do not fit it.
    """

    def __init__(
        self,
        path: PathLike,
        interpreter: str,
        *,
        inputs: Sequence[np.ndarray] = (),
        signatures: bool = True,
        limits: Optional[Limits] = None,
    ) -> None:
        self.interpreter, self._limits = interpreter, limits or Limits()
        self._inputs, self._signatures = inputs, signatures
        self.version, self._cases, again = self._run(path, twice=True)
        self._unsteady = tuple(name for name, case in self._cases.items() if case is not None and not _same(case, again, name))
        if not any(case is not None and any(case) for name, case in self._cases.items() if name != INTERFACE):
            try_file(path, interpreter, timeout=self._limits.timeout)
            raise EdgeError(
                f"{interpreter} runs {pathlib.Path(path).name}, but on no inputs that could be thought of",
                "",
                "Give inputs: {data=FILE}",
            )
        if inputs and self._cases.get("data", []) is None:
            raise DataError(f"the data does not fit the inputs of {pathlib.Path(path).name}", "one array per input")

    def compare(self, path: PathLike) -> Proof:
        """Compares another file with the original."""
        _, cases, _ = self._run(path)
        differing, skipped, same, outcomes = [], [], 0, set()
        for name, expected in self._cases.items():
            if name in self._unsteady:
                continue
            if expected is None:
                skipped.append(name)
            elif not _same(expected, cases, name):
                differing.append(name)
            elif name != INTERFACE:
                found = [one for one in (cases.get(name) or []) if one is not None]
                same += len(found)
                outcomes.update(found)
                if not found:
                    skipped.append(name)
        return Proof(self.interpreter, self.version, same, len(outcomes), tuple(differing), self._unsteady, tuple(skipped))

    def _run(self, path: PathLike, twice: bool = False) -> tuple[str, dict[str, Case], dict[str, Case]]:
        info = read_or_quote(path, self.interpreter, self._limits)
        if self._inputs and len(self._inputs) != len(info.inputs):
            raise DataError(f"{info.name} has {len(info.inputs)} inputs, {len(self._inputs)} were given", "one array per input")
        with temporary_directory() as scratch:
            stored = [store(np.asarray(array), scratch / f"x{i}.npy") for i, array in enumerate(self._inputs)]
            how = {"inputs": stored, "signatures": self._signatures, "twice": twice, "seconds": SECONDS}
            job = {**job_of("digest", path, self.interpreter, info), **how}
            answer, _ = run_child(job, scratch, self._limits)
        return str(answer["version"]), dict(answer["cases"]), dict(answer["again"])


def _same(expected: Case, cases: dict[str, Case], name: str) -> bool:
    """Returns whether a case came out as expected, as far as there was time for it."""
    given = cases.get(name, [])
    if expected is None or given is None:
        return expected is given
    return all(one == other for one, other in zip(expected, given))
