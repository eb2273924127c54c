"""Where the files lie that travel to devices."""

from __future__ import annotations

import pathlib

from keras_xaic import unpacking
from keras_xaic.errors import ExportError
from keras_xaic.files import write_atomic

SCRIPT = "edge_check.py"
DECODER = ("xaic_unpack.h", "xaic_unpack.c", "main.c", "CMakeLists.txt", "README.md")
"""The decoder of model.xaic in C."""


def write_decoder(directory: pathlib.Path) -> None:
    """Copies the C decoder of the download container, with an example, to a directory that is made."""
    directory.mkdir(parents=True)
    for name in DECODER:
        write_atomic(directory / name, (device_files() / "unpack" / name).read_bytes())


def write_check_scripts(directory: pathlib.Path) -> None:
    """Copies the script that compares on a device, and the decoder of the download container in Python."""
    write_atomic(directory / SCRIPT, (device_files() / SCRIPT).read_bytes())
    write_atomic(directory / "unpack_xaic.py", pathlib.Path(unpacking.__file__).read_bytes())


def device_files() -> pathlib.Path:
    """Returns the directory of files that travel to devices: part of the package when installed, ``export/`` in a checkout.

    Raises:
        ExportError: If it is missing.
    """
    package = pathlib.Path(__file__).resolve().parent
    for place in (package / "_device", package.parent / "export"):
        if (place / SCRIPT).is_file():
            return place
    raise ExportError(f"{SCRIPT} is missing from this installation of keras-xaic", "", "Install keras-xaic again")
