"""Sizes and counts that people write (``48kB``, ``48KiB``, ``1.5M``) and read."""

from __future__ import annotations

import numbers
import re
from typing import Any, Union

from keras_xaic.arguments import shown
from keras_xaic.errors import PlanError

_FACTORS = {"": 1, "b": 1, "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "ki": 1024, "kib": 1024, "mi": 1024**2}
_FACTORS.update({"mib": 1024**2, "g": 1000**3, "gb": 1000**3, "gi": 1024**3, "gib": 1024**3})
LARGEST = 10**15
"""No size and no count is larger."""
_PATTERN = re.compile(r"\s*([0-9]{1,3}(?:[,_][0-9]{3})+|[0-9]+(?:\.[0-9]+)?(?:[eE][+]?[0-9]{1,2})?)\s*([a-zA-Z]*)\s*")


_TIME = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]{1,2})?)\s*(s|ms|us|µs|μs|ns|)\s*")
_MILLISECONDS = {"s": 1000.0, "ms": 1.0, "us": 0.001, "µs": 0.001, "μs": 0.001, "ns": 1e-6, "": 1.0}


def parse_size(size: Union[int, str], name: str = "size") -> int:
    """Returns a size in bytes.

    >>> parse_size("48kB"), parse_size("48KiB"), parse_size("48,000"), parse_size("1e3"), parse_size(1200)
    (48000, 49152, 48000, 1000, 1200)

    Args:
        size: Bytes as a whole number, or text such as ``48kB`` or ``48K`` (48,000), ``48KiB`` (49,152), ``1.5MB``, ``1e3``,
            ``48,000`` or ``1200``.
        name: Name of the option, for the error message.

    Returns:
        A positive number of bytes.

    Raises:
        PlanError: If `size` is not a positive size.
    """
    given, size = size, _plain(size)
    if size is None:
        raise PlanError(f"{name} is {shown(given)}", "a size in bytes, or text such as 48kB or 48KiB")
    match = _PATTERN.fullmatch(str(size)) if not isinstance(size, int) or size <= LARGEST else None
    factor = _FACTORS.get(match.group(2).lower()) if match else None
    if match is None or factor is None:
        raise PlanError(
            f"{name} is {_shown(size)}, which is not a size", "a number of bytes such as 48kB (48,000), 48KiB (49,152) or 48000"
        )
    value = _rounded(match.group(1), factor)
    if not 1 <= value <= LARGEST:
        raise PlanError(f"{name} is {_shown(size)}", f"at least one byte, at most {LARGEST:,}")
    return value


def parse_count(count: Union[int, str], name: str = "count") -> int:
    """Returns a number of things.

    >>> parse_count("1.5M"), parse_count("20k"), parse_count(1200)
    (1500000, 20000, 1200)

    Args:
        count: An integer, or text such as ``20k``, ``1.5M`` or ``1G``.
        name: Name of the option, for the error message.

    Raises:
        PlanError: If `count` is not a positive number.
    """
    given, count = count, _plain(count)
    usable = isinstance(count, (int, str)) and not (isinstance(count, int) and count > LARGEST)
    match = _PATTERN.fullmatch(str(count)) if usable else None
    factor = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3}.get(match.group(2).lower()) if match else None
    value = 0 if match is None or factor is None else _rounded(match.group(1), factor)
    if not 1 <= value <= LARGEST:
        raise PlanError(f"{name} is {_shown(given)}", "a positive number such as 1500000, 1500k or 1.5M")
    return value


def parse_milliseconds(time: Union[int, float, str], name: str = "time") -> float:
    """Returns a time in milliseconds.

    >>> parse_milliseconds("0.5ms"), parse_milliseconds("300us"), parse_milliseconds("1ns"), parse_milliseconds(2)
    (0.5, 0.3, 1e-06, 2.0)

    Args:
        time: Milliseconds, or text such as ``0.5ms``, ``300us`` or ``0.02s``.
        name: Name of the option, for the error message.

    Raises:
        PlanError: If `time` is not a positive time.
    """
    text = time if isinstance(time, str) else ""
    if not isinstance(time, (str, bool)) and isinstance(time, numbers.Real) and 0 < time < LARGEST:
        text = f"{float(time):.12f}"
    match = _TIME.fullmatch(text)
    value = float(match.group(1)) * _MILLISECONDS[match.group(2)] if match and len(text) <= 40 else 0.0
    if not 1e-6 <= value <= 1e9:
        raise PlanError(f"{name} is {shown(time)}", "a time such as 0.5ms, 300us or 0.02s, 1 ns to 1,000,000 s")
    return round(value, 9)


def format_milliseconds(time: float) -> str:
    """Returns a time with three significant digits, in the unit that suits it.

    >>> format_milliseconds(0.00262), format_milliseconds(0.9999), format_milliseconds(12.54), format_milliseconds(3200)
    ('2.62 us', '1.00 ms', '12.5 ms', '3.20 s')

    Args:
        time: In milliseconds.
    """
    value, unit = time * 1000, "us"
    for larger in ("ms", "s"):
        if float(f"{value:.3g}") >= 1000:
            value, unit = value / 1000, larger
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:#.3g}".rstrip(".") + f" {unit}"


def _plain(value: object) -> Any:
    """Returns whole numbers of any type as Python's own; everything else, True and False too, as text that is no size."""
    if isinstance(value, str):
        return value
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and float(value).is_integer():
        return int(float(value))
    return None


def _shown(value: object) -> str:
    return f"beyond {LARGEST:,}" if isinstance(value, int) and abs(value) > LARGEST else shown(value)


def _rounded(number: str, factor: int) -> int:
    return LARGEST + 1 if len(number) > 40 else round(float(number.replace(",", "")) * factor)


def format_value(value: float) -> str:
    """Returns a value of a metric with four decimals, and with four digits where these would not tell values apart.

    >>> format_value(0.912), format_value(0.0000213), format_value(-12345.6)
    ('0.9120', '2.13e-05', '-1.235e+04')
    """
    return f"{value:.4f}" if value == 0 or 0.1 <= abs(value) < 1000 else f"{value:.4g}"


def format_count(count: float) -> str:
    """Returns a number of things, whole, with thousands separated.

    >>> format_count(7731.792007602499)
    '7,732'
    """
    return f"{round(count):,}"


def format_bytes(size: float) -> str:
    """Returns bytes to the byte.

    >>> format_bytes(48000)
    '48,000 B'
    """
    return f"{format_count(size)} B"


def format_size(size: float) -> str:
    """Returns bytes for a table: exact below 10 kB, then in kB or MB with one decimal.

    >>> format_size(7731.792007602499), format_size(48000)
    ('7,732 B', '48.0 kB')
    """
    if size < 10_000:
        return format_bytes(size)
    return f"{size / 1000:,.1f} kB" if size < 10_000_000 else f"{size / 1_000_000:,.1f} MB"
