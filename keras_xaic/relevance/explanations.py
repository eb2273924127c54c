"""`Explanations`: what two models look at in a few samples; saved as ``explanations.npz`` of a bundle."""

from __future__ import annotations

import pathlib
import zipfile
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from keras_xaic.errors import DataError
from keras_xaic.files import PathLike

FORMAT = 1


@dataclass(frozen=True)
class Explanations:
    """Relevance of the input values of K samples, in the original and in the compressed model.

    Attributes:
        index: (K,) numbers of the samples in the test data, as in ``explanations.shown`` of report.json.
        inputs: (K, ...) float32, as the model sees them.
        original: (K, ...) relevance of the inputs for the true class (without labels: the original's answer; for values all
            outputs) in the original.
        compressed: (K, ...) the same in the compressed model.
        answered: (K, ...) relevance for the compressed model's own answer in the compressed model.
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
        with open(path, "wb") as file:
            np.savez_compressed(file, format=np.asarray(FORMAT), **arrays)

    @classmethod
    def load(cls, path: PathLike) -> Explanations:
        """Reads what `save` wrote.

        Raises:
            DataError: If it is something else.
        """
        where = pathlib.Path(path)
        try:
            with np.load(where, allow_pickle=False) as archive:
                arrays: dict[str, Any] = {field.name: archive[field.name] for field in fields(cls)}
                if int(archive["format"]) != FORMAT:
                    raise ValueError("another version of the format")
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{where} cannot be read ({error})", "explanations.npz as `xaic compress` writes it") from None
        return cls(**arrays)
