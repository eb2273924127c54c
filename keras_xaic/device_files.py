"""Where the files lie that travel to devices."""

from __future__ import annotations

import pathlib

from keras_xaic.errors import ExportError

SCRIPT = "edge_check.py"


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
