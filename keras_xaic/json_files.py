"""The one reader of JSON files and other texts: size and depth are limited, and what JSON does not allow is refused."""

from __future__ import annotations

import json
import pathlib
from typing import Any, NoReturn

from keras_xaic.errors import DataError
from keras_xaic.files import PathLike, expanded, not_there, unreadable

MOST_BYTES = 16_000_000
MOST_DEPTH = 64
_LARGEST = 2**63


def read_bytes(path: PathLike, most: int, expected: str = "") -> bytes:
    """Returns the content of a file of at most `most` bytes.

    Raises:
        DataError: If it is missing, not a file, or larger.
        MachineError: If it may not be read.
    """
    where = pathlib.Path(path)
    if not where.is_file():
        raise DataError(not_there(path), expected)
    try:
        size = where.stat().st_size
        if size <= most:
            return where.read_bytes()
    except OSError as error:
        raise unreadable(error) or DataError(f"{path} cannot be read ({error.strerror})", expected) from None
    raise DataError(f"{path} has {size:,} bytes", expected or f"at most {most:,}")


def read_text(path: PathLike, expected: str = "") -> str:
    """Returns the content of a text file, which some editor may have begun with a byte order mark.

    Raises:
        DataError: As `read_bytes`; or if it is not UTF-8.
    """
    try:
        return read_bytes(path, MOST_BYTES, expected).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8", expected, "Save it as UTF-8") from None


def read_json(path: PathLike) -> Any:
    """Reads a JSON file.

    Raises:
        DataError: If it is missing or not JSON, too large or too deep, names a key twice, or holds numbers beyond 64 bits.
    """
    content = read_bytes(expanded(path), MOST_BYTES)
    try:
        value = json.loads(
            content.decode("utf-8-sig"),
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_constant,
            object_pairs_hook=_object,
        )
        if _depth(value) > MOST_DEPTH:
            raise ValueError(f"nested more than {MOST_DEPTH} levels deep")
        if b"\\ud" in content or b"\\uD" in content:
            json.dumps(value, ensure_ascii=False).encode()  # halves of characters cannot be written anywhere
    except RecursionError:
        raise DataError(f"{path} is not readable JSON (nested more than {MOST_DEPTH} levels deep)") from None
    except ValueError as error:
        raise DataError(f"{path} is not readable JSON ({' '.join(str(error).split())[:200]})") from None
    return value


def _whole(digits: str) -> int:
    value = int(digits) if len(digits) < 21 else _LARGEST
    if not -_LARGEST <= value < _LARGEST:
        raise ValueError(f"a whole number beyond 64 bits: {digits[:20]}...")
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if abs(value) > 1e100:
        raise ValueError(f"a number that is too large: {digits[:20]}")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = max(made, key=keys.count) if len(keys) < 1000 else "..."
        raise ValueError(f"the key {twice[:60]!r} is there twice")
    return made


def _depth(value: object) -> int:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MOST_DEPTH:
            break
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
    return depth
