"""What every kernel may get, before anything is weighed: bit-widths, layers that are pinned, layers that stay float."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from keras_xaic.errors import PlanError
from keras_xaic.planning.cost import FLOAT_BITS
from keras_xaic.planning.plan_file import ZEROS
from keras_xaic.planning.storages import Activations


@dataclass(frozen=True)
class Policy:
    """What every kernel may get. Patterns are those of `fnmatch` on kernel keys; the first that matches decides.

    Attributes:
        bits: Bit-widths that kernels may get.
        pin: Pattern -> the one bit-width of the kernels it matches, whatever their damage.
        float_layers: Patterns of kernels that are not quantized.
        activations: Type of activations between layers.
        zeros: Pattern -> which zeros go together in the kernels it matches (see `LayerPlan.pattern`).
    """

    bits: Sequence[int]
    pin: Mapping[str, int] = field(default_factory=dict)
    float_layers: Sequence[str] = ()
    activations: Activations = "int8"
    zeros: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for bits in (*self.bits, *self.pin.values()):
            if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
                raise PlanError(
                    f"bit-width {bits!r}", "whole numbers from 2 to 8", "Name layers that stay float in float_layers"
                )
        for zeros in self.zeros.values():
            if not re.fullmatch(ZEROS, zeros):
                raise PlanError(f"the pattern of zeros {zeros!r}", "N:M or HxW, e.g. 2:4 or 4x1")
        if not self.bits:
            raise PlanError("no bit-widths to choose from", "at least one of 2 to 8")
        if self.activations not in get_args(Activations):
            raise PlanError(f"activations {self.activations!r}", f"one of {', '.join(get_args(Activations))}")
        if self.activations == "int16" and self.float_layers:
            raise PlanError(
                f"float layers {', '.join(self.float_layers)} among int16 activations", "float layers with int8 ones"
            )

    def check(self, keys: Iterable[str]) -> None:
        """Refuses patterns that match no kernel.

        Raises:
            PlanError: Naming the pattern.
        """
        known = list(keys)
        for pattern in (*self.float_layers, *self.pin, *self.zeros):
            if not any(fnmatch.fnmatchcase(key, pattern) for key in known):
                raise PlanError(f"no layer matches {pattern!r}", f"a pattern for some of {', '.join(known)}")

    def choices(self, key: str) -> tuple[int, ...]:
        """Returns the bit-widths that a kernel may get, ascending; `FLOAT_BITS` alone where it stays float."""
        if self._match(self.float_layers, key):
            return (FLOAT_BITS,)
        pinned = self._match(self.pin, key)
        return (self.pin[pinned],) if pinned else tuple(sorted(self.bits))

    def pattern(self, key: str) -> str:
        """Returns which zeros go together in a kernel."""
        return self.zeros.get(self._match(self.zeros, key), "unstructured")

    def reason(self, key: str) -> str:
        """Returns why a kernel has no choice, or an empty text where it has one."""
        kept, pinned = self._match(self.float_layers, key), self._match(self.pin, key)
        if kept:
            return f"float by {kept!r}; "
        return f"pinned to {self.pin[pinned]} bits by {pinned!r}; " if pinned else ""

    def _match(self, patterns: Iterable[str], key: str) -> str:
        return next((pattern for pattern in patterns if fnmatch.fnmatchcase(key, pattern)), "")
