"""Whether the files of a bundle are those that were written together: copies are cut short, and parts of two bundles mixed."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from typing import Any, Optional

from keras_xaic import unpacking
from keras_xaic.bundle import Bundle
from keras_xaic.errors import DataError
from keras_xaic.files import file_sha256
from keras_xaic.npz import ARCHIVE_DAMAGE

_NAMED = ("model.tflite", "model.xaic", "model.keras", "grids.npz", "micro/model.tflite")
"""What report.json has checksums of: files that hold the model, and that nobody edits."""
_MOST_EXPANDED = 1100
"""Times its size that an archive may claim to hold: deflate does not reach more."""


def checksums(bundle: Bundle) -> dict[str, str]:
    """Returns the SHA-256 of the files that hold the model, by their path in the bundle."""
    return {name: file_sha256(bundle.path / name) for name in _NAMED if (bundle.path / name).is_file()}


def wrong_files(bundle: Bundle, stored: Any) -> Optional[DataError]:
    """Returns which files of a bundle are not those that were written together; None where all are.

    Files that are missing are none of them: parts of a bundle are copied, too.

    Args:
        bundle: The bundle.
        stored: What report.json says of checksums; bundles of `xaic export` and `xaic slim` without a report are judged by what
            their files say of each other.
    """
    found = [said for said in (_download(bundle), _keras_model(bundle), _source(bundle)) if said is not None]
    known = stored if isinstance(stored, dict) else {}
    changed = [name for name, digest in checksums(bundle).items() if known.get(name, digest) != digest]
    changed = [name for name in changed if not any(said.startswith(f"{name} is damaged") for said in found)]
    if changed:
        found.append(f"report.json describes another {', another '.join(changed)} (the SHA-256 differs)")
    if not found:
        return None
    return DataError("; ".join(found), "a bundle as it was written", "Copy all of it again; write it again")


def _download(bundle: Bundle) -> Optional[str]:
    """Looks at checksums only, since to unpack a large container takes a minute in Python."""
    if not bundle.download.is_file():
        return None
    blob, content = bundle.download.read_bytes(), bundle.model.read_bytes()
    header = unpacking.HEADERS.get(blob[4]) if len(blob) > 4 and blob[:4] == unpacking.MAGIC else None
    if header is None or len(blob) < header.size + 4 or zlib.crc32(blob[:-4]) != int.from_bytes(blob[-4:], "little"):
        return "model.xaic is damaged or cut short"
    _, _, _, size, check, *_ = header.unpack_from(blob)
    return None if (size, check) == (len(content), zlib.crc32(content)) else "model.xaic is not the download of model.tflite"


def _keras_model(bundle: Bundle) -> Optional[str]:
    if not bundle.keras_model.is_file():
        return None
    content = bundle.keras_model.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
            damaged = archive.testzip() if claimed < _MOST_EXPANDED * len(content) else ""
    except ARCHIVE_DAMAGE:
        damaged = ""
    return None if damaged is None else "model.keras is damaged or cut short"


def _source(bundle: Bundle) -> Optional[str]:
    """Compares numbers, not texts: users format C sources, and place arrays in sections."""
    model, source = bundle.micro / "model.tflite", bundle.micro / "model_data.cc"
    if not model.is_file() or not source.is_file():
        return None
    content, text = model.read_bytes(), source.read_bytes()
    body = re.search(rb"=\s*\{([^}]*)\}\s*;", text)
    numbers = [] if body is None else [int(number, 0) for number in re.findall(rb"0x[0-9a-fA-F]+|[1-9][0-9]*|0", body[1])]
    size = re.search(rb"g_model_data_size\s*=\s*([0-9]+)", text)
    equal = numbers == list(content) and (size is None or int(size[1]) == len(content))
    return None if equal else "micro/model_data.cc is not the source of micro/model.tflite"
