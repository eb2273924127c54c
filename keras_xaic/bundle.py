"""The directory that is produced: where everything lies in it, and how it appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable, Optional, TypeVar

from keras_xaic.errors import DataError, ExportError
from keras_xaic.files import PathLike, write_atomic

Made = TypeVar("Made")


@dataclass(frozen=True)
class Bundle:
    """A bundle directory. The attributes are paths; not every bundle holds every file.

    Attributes:
        path: The directory.
    """

    path: pathlib.Path

    @property
    def model(self) -> pathlib.Path:
        """`model.tflite`, for tflite-runtime and LiteRT."""
        return self.path / "model.tflite"

    @property
    def micro(self) -> pathlib.Path:
        """`micro/`, what TensorFlow Lite Micro needs."""
        return self.path / "micro"

    @property
    def download(self) -> pathlib.Path:
        """`model.xaic`, what is sent to the device."""
        return self.path / "model.xaic"

    @property
    def keras_model(self) -> pathlib.Path:
        """`model.keras`, the compressed Keras model."""
        return self.path / "model.keras"

    @property
    def grids(self) -> pathlib.Path:
        """`grids.npz`, the exact grid of every quantized kernel."""
        return self.path / "grids.npz"

    @property
    def plan(self) -> pathlib.Path:
        """`plan.json`."""
        return self.path / "plan.json"

    @property
    def relevance(self) -> pathlib.Path:
        """`relevance.npz`."""
        return self.path / "relevance.npz"

    @property
    def explanations(self) -> pathlib.Path:
        """`explanations.npz`, what both models look at in a few samples."""
        return self.path / "explanations.npz"

    @property
    def report(self) -> pathlib.Path:
        """`report.json`."""
        return self.path / "report.json"

    @property
    def html(self) -> pathlib.Path:
        """`report.html`."""
        return self.path / "report.html"

    @property
    def check(self) -> pathlib.Path:
        """`check/`, the kit that travels to the device."""
        return self.path / "check"

    @property
    def unverified(self) -> pathlib.Path:
        """`UNVERIFIED.txt`: there if an interpreter refused, crashed, hung or disagreed, and says which and why."""
        return self.path / "UNVERIFIED.txt"

    def mark(self, trouble: Optional[str]) -> None:
        """Marks the bundle as unverified for this reason; with None, takes the mark away."""
        if trouble is None:
            self.unverified.unlink(missing_ok=True)
        else:
            write_atomic(self.unverified, f"Do not use this bundle as it is. {trouble}\n")


def open_bundle(path: PathLike) -> Bundle:
    """Returns the bundle at `path`.

    Raises:
        DataError: If there is no bundle.
    """
    bundle = Bundle(pathlib.Path(path))
    if not bundle.path.is_dir():
        raise DataError(f"{bundle.path} is not a directory", "a bundle written by `xaic compress` or `xaic export`")
    if not bundle.model.is_file():
        raise DataError(f"{bundle.path} holds no model.tflite", "a bundle written by `xaic compress` or `xaic export`")
    return bundle


def check_target(path: PathLike, overwrite: bool) -> pathlib.Path:
    """Returns `path` if a bundle may be written there; called before any work.

    Raises:
        ExportError: If something is there already and `overwrite` is off, or the directory cannot be written.
    """
    target = pathlib.Path(path)
    if target.exists() and not target.is_dir():
        raise ExportError(
            f"output {target} is a file", "a directory, or a name that does not exist yet", "Choose another --out"
        )
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise ExportError(
            f"output directory {target} is not empty", "", "Choose another --out, or add --overwrite to replace it"
        )
    parent = target.absolute().parent
    existing = next(p for p in [parent, *parent.parents] if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ExportError(f"{existing} cannot be written", "a directory with write permission", "Choose another --out")
    return target


@contextlib.contextmanager
def atomic_directory(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty sibling of `target` that takes its place when the block ends well and vanishes otherwise."""
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield scratch
        scratch.chmod(0o755)  # mkdtemp hides it from others
        replace_directory(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def replace_directory(source: pathlib.Path, target: pathlib.Path) -> None:
    """Moves `source` to `target`; what was at `target` is removed only after `source` is in place."""
    if not target.exists():
        source.rename(target)
        return
    old = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(old / "bundle")
    source.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def cached(
    path: Optional[pathlib.Path],
    make: Callable[[], Made],
    save: Callable[[Made, pathlib.Path], Any],
    load: Callable[[pathlib.Path], Made],
) -> Made:
    """Returns what was made before an interruption, or makes and keeps it.

    Args:
        path: Where it is kept; None keeps nothing.
        make: Makes it.
        save: Writes it to a path.
        load: Reads it back.
    """
    if path is not None and path.exists():
        return load(path)
    made = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(made, path)
    return made
