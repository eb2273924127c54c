"""`Explanations`: what two models look at in a few samples; saved as ``explanations.npz`` of a bundle."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from keras_xaic.errors import DataError
from keras_xaic.files import PathLike, save_arrays
from keras_xaic.npz import Npz

FORMAT = 1


@dataclass(frozen=True)
class Explanations:
    """Relevance of the input values of K samples, in the original and in the compressed model.

    Attributes:
        index: (K,) numbers of the samples in the test data, as in ``explanations.shown`` of report.json.
        inputs: (K, ...) float32, as the model sees them.
        original: (K, ...) relevance of the inputs for the true class (without labels: what the original decides; for values all
            outputs) in the original.
        compressed: (K, ...) the same in the compressed model.
        answered: (K, ...) relevance for the output that the compressed model decides for in the compressed model.
    """

    index: np.ndarray
    inputs: np.ndarray
    original: np.ndarray
    compressed: np.ndarray
    answered: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def save(self, path: PathLike) -> None:
        """Writes one .npz without pickles: every attribute under its name, and ``format``."""
        arrays: dict[str, Any] = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        save_arrays(path, {"format": np.asarray(FORMAT), **arrays})

    @classmethod
    def load(cls, path: PathLike) -> Explanations:
        """Reads what `save` wrote.

        Raises:
            DataError: If it is something else.
        """
        expected = "explanations.npz as `xaic compress` writes it"
        archive = Npz(path, expected)
        missing = [name for name in (*(field.name for field in fields(cls)), "format") if name not in archive]
        if missing:
            raise DataError(f"{path} has no {missing[0]}", expected)
        arrays = {field.name: archive[field.name] for field in fields(cls)}
        if archive["format"].tolist() != FORMAT:
            raise DataError(f"{path} cannot be read (another version of the format)", expected)
        index, maps = arrays["index"], [arrays[name] for name in ("inputs", "original", "compressed", "answered")]
        fits = index.ndim == 1 and index.dtype.kind in "iu" and maps[0].ndim > 1 and len(maps[0]) == len(index)
        if not fits or any(one.shape != maps[0].shape or one.dtype.kind != "f" for one in maps):
            shapes = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in arrays.items())
            raise DataError(f"{path} holds arrays that do not belong together ({shapes})", expected)
        if not all(np.isfinite(one).all() for one in maps):
            raise DataError(f"{path} holds NaN or infinity", expected)
        return cls(**arrays)
