"""Reading a download container; it is written by `keras_xaic.tflite.container`."""

from __future__ import annotations

from keras_xaic import unpacking
from keras_xaic.errors import ExportError


def unpack_download(blob: bytes) -> bytes:
    """Returns the byte-identical .tflite file from a download container.

    Raises:
        ExportError: If the container is damaged, or not one.
    """
    try:
        return unpacking.unpack(bytes(blob))
    except unpacking.Damaged as error:
        raise ExportError(
            f"the download container cannot be unpacked: {error}", "a model.xaic as it was written", "Download it again"
        ) from None
