"""Interrupted attribution continues where it stopped."""

from __future__ import annotations

import hashlib
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic.errors import DataError
from keras_xaic.files import PathLike, save_arrays, telling
from keras_xaic.npz import Npz
from keras_xaic.relevance.reduce import Sums

if TYPE_CHECKING:
    from keras_xaic._keras import Model

_SECONDS_BETWEEN_WRITES = 30.0


def attribution_fingerprint(model: Model, arrays: Sequence[np.ndarray], settings: Mapping[str, Any]) -> str:
    """Returns what tells one attribution from another: weights, a sample of the data, and the settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    for array in arrays:
        digest.update(repr((array.shape, array.dtype)).encode())
        digest.update(np.ascontiguousarray(array[:: max(1, len(array) // 64)]).tobytes())
    return digest.hexdigest()


class Checkpoint:
    """Running sums in a file.

    Args:
        path: The file, or None to keep nothing.
        identity: From `fingerprint`; sums of another attribution are ignored.
    """

    def __init__(self, path: Optional[PathLike], identity: str) -> None:
        self.path = None if path is None else pathlib.Path(path)
        self.identity = identity
        self._written = time.monotonic()

    def load(self, sums: Mapping[Optional[int], Sums]) -> int:
        """Fills `sums` with what is kept, and returns the number of batches done."""
        if self.path is None or not self.path.exists():
            return 0
        try:
            archive = Npz(self.path)
            facts = json.loads(str(archive["facts"]))
            if facts["identity"] != self.identity:
                return 0
            kept = [(sums[owner], name, int(count), float(weight), archive[str(number)])
                    for number, (owner, name, count, weight) in enumerate(facts["arrays"])]  # fmt: skip
            batches = int(facts["batches"])
        except (DataError, KeyError, ValueError, TypeError):
            return 0  # a half-written or foreign file: start again, it will be replaced
        for one, name, count, weight, array in kept:
            one.count, one.weight = count, weight
            one.arrays[name] = array
        return batches

    def save(self, sums: Mapping[Optional[int], Sums], batches: int, now: bool = False) -> None:
        """Writes the sums, at most every half minute unless `now`."""
        if self.path is None or not (now or time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES):
            return
        listed: list[tuple[Optional[int], str, int, float]] = []
        arrays: dict[str, np.ndarray] = {}
        for owner, one in sums.items():
            for name, array in one.arrays.items():
                arrays[str(len(listed))] = array
                listed.append((owner, name, one.count, one.weight))
        facts = {"identity": self.identity, "batches": batches, "arrays": listed}
        with telling():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        save_arrays(self.path, {"facts": np.array(json.dumps(facts)), **arrays}, compressed=False)
        self._written = time.monotonic()

    def remove(self) -> None:
        """Deletes the file: the work is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
