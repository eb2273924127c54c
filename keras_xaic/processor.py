"""What the processor of this machine computes fast: how much slower than int8 other kernels are depends on it."""

from __future__ import annotations

import functools
import pathlib

INT8_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})
"""Extensions of x86 and ARM, as Linux names them, that multiply int8 values and add the products up in one instruction."""


def extensions(told: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> frozenset[str]:
    """Returns what the processor can do beyond its basic instructions, as Linux names it; nothing where that is not told.

    Args:
        told: Where Linux tells it.
    """
    try:
        lines = told.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    found = (line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features")))
    return frozenset(next(found, ()))


@functools.cache
def adds_int8_products() -> bool:
    """Returns whether one instruction multiplies int8 values and adds the products up.

    Processors without it take about as long for int8 as for float32. Where the system does not tell, they are taken to have
    it, as those of phones and of new computers do.
    """
    known = extensions()
    return not known or not INT8_PRODUCTS.isdisjoint(known)
