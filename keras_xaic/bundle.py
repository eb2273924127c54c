"""The directory that is produced: where everything lies in it."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Callable, Optional, TypeVar

from keras_xaic.arguments import a_path
from keras_xaic.errors import DataError
from keras_xaic.files import PathLike, expanded, write_atomic
from keras_xaic.json_files import read_json, read_text
from keras_xaic.ownership import SIGNS, check_replaceable

Made = TypeVar("Made")


@dataclass(frozen=True)
class Bundle:
    """A bundle directory. The attributes are paths; not every bundle holds every file.

    >>> Bundle(pathlib.Path("out")).model.as_posix()
    'out/model.tflite'

    It stands wherever the path of a directory does.

    Attributes:
        path: The directory.
    """

    path: pathlib.Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", expanded(a_path("path", self.path)))

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        """What notebooks show: the files with their sizes."""
        files = sorted(file for file in self.path.rglob("*") if file.is_file() and not file.name.startswith("."))
        rows = [
            f"<tr><td>{escape(file.relative_to(self.path).as_posix())}</td><td>{file.stat().st_size:,} B</td></tr>"
            for file in files
        ]
        return f"<table><caption>{escape(str(self.path))}</caption>{''.join(rows)}</table>"

    @property
    def model(self) -> pathlib.Path:
        """`model.tflite`, for interpreters on phones, Linux boards and desktops."""
        return self.path / "model.tflite"

    def ports(self) -> Optional[tuple[tuple[str, ...], tuple[str, ...]]]:
        """Returns the names of inputs and outputs in the order of `model.tflite`; None where there is one of each.

        Raises:
            DataError: If the file that holds them is damaged.
        """
        path = self.check / "task.json"
        kept = read_json(path) if path.is_file() else None
        names = [kept.get(key) for key in ("input_names", "output_names")] if isinstance(kept, dict) else [None]
        if not all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in names):
            return None
        return tuple(names[0] or ()), tuple(names[1] or ())

    @property
    def micro(self) -> pathlib.Path:
        """`micro/`, what TensorFlow Lite Micro needs."""
        return self.path / "micro"

    @property
    def download(self) -> pathlib.Path:
        """`model.xaic`, what is sent to the device."""
        return self.path / "model.xaic"

    @property
    def decoder(self) -> pathlib.Path:
        """`unpack/`, the C decoder of `model.xaic`."""
        return self.path / "unpack"

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
    def labels(self) -> pathlib.Path:
        """`labels.txt`, names of the classes, one a line in the order of the outputs; where labels had names."""
        return self.path / "labels.txt"

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

    def mark(self, error: Optional[str]) -> None:
        """Marks the bundle as unverified for this reason; with None, takes the mark away.

        Raises:
            ExportError: If the file of that name is not ours (see `check_mark`).
        """
        self.check_mark()
        if error is not None:
            write_atomic(self.unverified, f"{SIGNS[self.unverified.name]} {error}\n")
        elif self.unverified.exists():  # else read-only systems refuse to remove what is not there
            self.unverified.unlink()

    def why_unverified(self) -> Optional[str]:
        """Returns why the bundle is not to be used; None where nothing marks it.

        Raises:
            DataError: If the file that says so cannot be read.
        """
        return read_text(self.unverified, "why the bundle is not to be used").strip() if self.unverified.is_file() else None

    def name_classes(self, classes: Sequence[str]) -> None:
        """Writes the names of the classes, if there are any."""
        if classes:
            write_atomic(self.labels, "".join(f"{one}\n" for one in classes))

    def class_names(self) -> tuple[str, ...]:
        """Returns the names of the classes; empty where the bundle has none.

        Raises:
            DataError: If the file that holds them cannot be read.
        """
        return tuple(read_text(self.labels, "names of classes").splitlines()) if self.labels.is_file() else ()

    def check_mark(self) -> None:
        """Makes sure that `mark` may write: the user's files stay as they are."""
        check_replaceable(self.unverified)


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


@contextlib.contextmanager
def undisturbed(bundle: Bundle) -> Iterator[Callable[[], None]]:
    """Makes sure that all that the block reads is of one bundle: another command may give its name to another one meanwhile.

    Yields:
        What does so at once, before something is written, say.

    Raises:
        DataError: If that happened, whatever else the block says then.
    """
    handle = os.open(bundle.path, getattr(os, "O_PATH", os.O_RDONLY))  # while it is open no other directory gets its number

    def check() -> None:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(bundle.path)):
                return
        raise DataError(f"{bundle.path} was replaced while it was read", "", "Run the same command again")

    try:
        yield check
        check()
    except Exception:
        check()
        raise
    finally:
        os.close(handle)


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
