"""Ways to damage a file: blindly, or so that its own checksums are right again."""

from __future__ import annotations

import copy
import io
import json
import random
import zipfile
import zlib
from typing import Any, Callable

import numpy as np

Mutation = Callable[[bytes, random.Random], bytes]
NUMBERS = (0, 1, -1, 2**31, -(2**31), 2**32 - 1, 2**53, 2**63 - 1, 2**63, 10**30, 10**400, 1e308, -1e-320, 0.5, 1e15)
VALUES: tuple[Any, ...] = (
    None, True, False, "", "x", "\n", "\x00", "../../x", "<b>", "{{x}}", "9" * 400, "9" * 5000 + "kB", "NaN", "\u202e", [], {},
    [[]], {"": 0}, [None], ["a", 1], *NUMBERS,
)  # fmt: skip
LITERALS = ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "[" * 3000, '"\\ud800"', "0x1", "01", "'a'", "")


def bytes_changed(content: bytes, rng: random.Random) -> bytes:
    """Flips, sets, removes, repeats, swaps or cuts bytes."""
    made = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        place, other = (rng.randrange(len(made) + 1) for _ in range(2))
        length = rng.choice((1, 1, 2, 4, 8, 32, 300))
        how = rng.randrange(8)
        if how == 0 and place < len(made):
            made[place] ^= 1 << rng.randrange(8)
        elif how == 1 and place < len(made):
            made[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif how == 2:
            made[place : place + length] = bytes(rng.randrange(256) for _ in range(length))
        elif how == 3:
            number = rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.randrange(2**16), len(made)))
            made[place : place + 4] = number.to_bytes(4, "little")
        elif how == 4:
            del made[place : place + length]
        elif how == 5:
            made[place:place] = made[other : other + length]
        elif how == 6:
            made[place : place + length] = made[other : other + length]
        else:
            del made[place:]
        if not made:
            break
    return bytes(made)


def signed_again(content: bytes, rng: random.Random) -> bytes:
    """Damages a download container and makes its checksum right again."""
    made = bytes_changed(content[:-4], rng)
    return made + zlib.crc32(made).to_bytes(4, "little")


def _nodes(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(one for key, child in inner for one in _nodes(child, (*at, key)))]


def json_changed(content: bytes, rng: random.Random) -> bytes:
    """Replaces, removes, repeats or renames values of a JSON file, or writes what JSON does not allow."""
    value = json.loads(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        way = rng.choice(_nodes(value))
        if not way:
            value = rng.choice(VALUES) if rng.random() < 0.1 else value
            continue
        holder = value
        for key in way[:-1]:
            holder = holder[key]
        key, how = way[-1], rng.randrange(10)
        if how == 0:
            del holder[key]
        elif how == 1 and isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
        elif how == 1:
            holder[rng.choice(("", "schema", "x" * 3000, key + " "))] = holder[key]
        elif how == 2 and isinstance(holder[key], (int, float)):
            holder[key] = holder[key] * rng.choice((-1, 0.1, 10, 1e6)) + rng.choice((0, 1, 0.5))
        elif how == 3:
            holder[key] = [holder[key]]
        elif how == 4:
            holder[key] = "@literal@"
        else:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
    return json.dumps(value).replace('"@literal@"', rng.choice(LITERALS)).encode()


def _array(array: np.ndarray, rng: random.Random) -> np.ndarray:
    how = rng.randrange(11)
    with np.errstate(all="ignore"):
        if how == 0:
            return array.astype(rng.choice(["f2", "f4", "f8", ">f4", "i1", "u1", "i8", "?", "c8", "c16", "U4", "S3"]))
        if how == 1:
            return array[:0] if array.ndim else array[None]
        if how == 2:
            return array.reshape(rng.choice([(-1,), (1, -1), (*array.shape, 1)]))
        if how == 3:
            return array[None] if rng.random() < 0.5 else array.T
        if how == 4 and array.ndim:
            return array[: max(0, len(array) - 1)]
        if how in (5, 6) and array.dtype.kind in "fiu" and array.size:
            made = array.copy()
            values = (np.nan, np.inf, 1e30, -1.0, 0.0) if array.dtype.kind == "f" else (0, 1, 127, 100)
            made.ravel()[rng.randrange(array.size)] = rng.choice(values)
            return made
        if how == 7:
            return np.full(array.shape, rng.choice((0, 1, 100)), array.dtype)
        if how == 8:
            return np.asarray(rng.choice(("", "{}", "[" * 5000, '{"format": 1}', "9" * 5000)))
        if how == 9 and array.dtype.kind == "U":
            return np.asarray(json_changed(str(array).encode(), rng).decode())
        return np.concatenate([array, array]) if array.ndim else array


def arrays_changed(content: bytes, rng: random.Random) -> bytes:
    """Writes an .npz again with other arrays, names or claims; its checksums are right."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    for _ in range(rng.choice((1, 1, 2))):
        key, how = rng.choice(sorted(arrays)), rng.randrange(8)
        if how == 0 and len(arrays) > 1:
            del arrays[key]
        elif how == 1:
            arrays[rng.choice(("x", key + "0", "../x", "a/b|integers"))] = arrays[key]
        elif how == 2:
            other = rng.choice(sorted(arrays))
            arrays[key], arrays[other] = arrays[other], arrays[key]
        else:
            arrays[key] = _array(arrays[key], rng)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
        for key, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array)
            written = member.getvalue()
            if rng.random() < 0.15:
                written = bytes_changed(written[:128], rng) + written[128:]
            if rng.random() < 0.1:
                shape = rng.choice(("(1000000000000,)", "(0, 99999999999)", "(-1,)", "(((((", "(2**40,)", "(1e9,)"))
                text = str({"descr": array.dtype.str, "fortran_order": False}).rstrip("}") + f", 'shape': {shape}, }}"
                written = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + written[128:]
            file.writestr(f"{key}.npy", written)
    return made.getvalue()
