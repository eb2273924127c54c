"""How a plan is made, whatever the budget: what layers may get, and how filters go."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional, Union, get_args

from keras_xaic.arguments import as_names, keyword_only, one_of, require, shown, whole, yes_no
from keras_xaic.errors import PlanError, choices
from keras_xaic.planning.cost import FLOAT_BITS
from keras_xaic.planning.plan import ZEROS, Score, check_zeros
from keras_xaic.planning.storages import Activations

if TYPE_CHECKING:
    from keras_xaic.planning.sensitivity import Damage

BITS = (3, 4, 5, 6, 8)


def _width(bits: object) -> Any:
    try:
        return require("bit-width", bits, "", lambda n: 2 <= n <= 8, whole=True)
    except PlanError:
        raise PlanError(
            f"bit-width {shown(bits)}", "whole numbers from 2 to 8", "Name layers that stay float in float_layers"
        ) from None


@keyword_only(after=1)
@dataclass(frozen=True)
class PlanOptions:
    """How a plan is made. Name patterns are those of `fnmatch` on kernel keys; the first that matches decides.

    `keras_xaic.planning.plan` takes them; `keras_xaic.plan` and `keras_xaic.compress` take most from the recipe, under the same
    names: ``recipe=keras_xaic.recipes.RECIPES["auto"].changed(bits=(4, 8))``.

    >>> PlanOptions(bits=(4, 8), pin={"head": 8}).choices("head")
    (8,)

    Attributes:
        bits: Bit-widths that a layer may get; () leaves them to the TFLite converter: plain int8, and no layers in the plan.
            The default has no 2, which needs training; most recipes, and so `xaic plan` and `xaic compress`, have it.
        pin: Name pattern -> bit-width that those layers get whatever the budget, e.g. for the first and the last layer; those
            whose matrices are in no kernel (embeddings, recurrent layers) get it under a limit on the download.
        float_layers: Name patterns of layers that are not quantized.
        zeros: Name pattern -> structured sparsity of those layers: ``2:4`` (2 in every 4) or ``4x1`` (blocks of 4 inputs by
            1 output); unstructured elsewhere.
        activations: Type of activations between layers. Behind ``int16`` and ``float32`` weights take a byte each, but dense
            layers of up to 4 bits half a byte behind ``float32``. ``float32`` is about as fast as the float32 model where
            int8 is slow, and does not run on TensorFlow Lite Micro.
        score: What ranks weights for pruning. With ``signed_relevance`` weights with relevance <= 0 go, no others.
        nonpositive: Share of these that goes, those of the smallest relevance first.
        sparsity: Fraction of zeros over all kernels but depthwise ones; more if the download limit needs more.
        sensitivity: What predicts damage: a name of `SENSITIVITIES`; ``auto`` is ``combined`` with samples and
            ``relevance`` without; or what `measure_damage` returned, to measure once for several plans.
        packed: Whether grids of up to 4 bits are packed where no limit is given, too: for microcontrollers, where flash is what
            counts. Else layers that packing makes slow on LiteRT are packed only as far as flash is limited.
        filters: Whether filters may be removed.
        branches: Whether residual branches may be taken out whole under a limit on time, where filters may be removed.
        removal: Fraction of the multiply-accumulates that goes with filters where the budget limits neither those, flash nor
            download.
        steps: In how many steps filters go, with training in between and relevance refreshed for each; None: one for every
            `planner.STEP_RATIO` times that the model has fewer weights in the end.
        align: What stays of a layer that loses filters is a multiple of this.
        protect: Name patterns of layers that keep all filters, and of branches that stay.

    Raises:
        PlanError: If an option is not usable.
    """

    bits: Sequence[int] = BITS
    pin: Mapping[str, int] = field(default_factory=dict)
    float_layers: Sequence[str] = ()
    zeros: Mapping[str, str] = field(default_factory=dict)
    activations: Activations = "int8"
    score: Score = "geometric_mean"
    nonpositive: float = 1.0
    sparsity: float = 0.0
    sensitivity: Union[str, Damage] = "auto"
    packed: bool = False
    filters: bool = True
    branches: bool = True
    removal: float = 0.0
    steps: Optional[int] = 1
    align: int = 1
    protect: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("float_layers", "protect"):
            object.__setattr__(self, name, as_names(name, getattr(self, name)))
        for name in ("pin", "zeros"):
            if not isinstance(getattr(self, name), Mapping):
                raise PlanError(f"{name} is {shown(getattr(self, name))}", "a dictionary of name patterns")
        bits = self.bits.tolist() if hasattr(self.bits, "tolist") else self.bits  # arrays, and numbers of numpy
        object.__setattr__(self, "bits", tuple(map(_width, bits if isinstance(bits, (list, tuple)) else [bits])))
        object.__setattr__(self, "pin", {pattern: _width(bits) for pattern, bits in self.pin.items()})
        for zeros in self.zeros.values():
            if not isinstance(zeros, str) or not re.fullmatch(ZEROS, zeros) or check_zeros(zeros):
                raise PlanError(f"the pattern of zeros {shown(zeros)}", "N:M or HxW, e.g. 2:4 or 4x1")
        one_of("activations", self.activations, get_args(Activations))
        one_of("score", self.score, get_args(Score))
        everything = require("nonpositive", self.nonpositive, "0 to 1", lambda n: 0 <= n <= 1)
        object.__setattr__(self, "nonpositive", float(everything))
        for name in ("sparsity", "removal"):
            part = require(name, getattr(self, name), "0 to 1, but not 1", lambda n: 0 <= n < 1)
            object.__setattr__(self, name, float(part))
        for name in ("packed", "filters", "branches"):
            object.__setattr__(self, name, yes_no(name, getattr(self, name)))
        for name in ("align", *(() if self.steps is None else ("steps",))):
            object.__setattr__(self, name, whole(1)(name, getattr(self, name)))
        if self.activations == "int16" and self.float_layers:
            raise PlanError(
                f"float layers {', '.join(self.float_layers)} among int16 activations", "float layers with int8 ones"
            )

    def check(self, keys: Iterable[str], layers: Iterable[str] = (), others: Iterable[str] = ()) -> None:
        """Refuses patterns that match no kernel, or protect no layer.

        Args:
            keys: Of the kernels.
            others: Layers with matrices in no kernel, whose bits may be pinned, too.
            layers: Names of layers with filters; none checks no `protect`.

        Raises:
            PlanError: Naming the pattern and the nearest name.
        """
        known, paths = list(keys), list(layers)
        kernels, pins = (*self.float_layers, *self.zeros), (self.pin, [*known, *others])
        for patterns, names in ((kernels, known), pins, (self.protect if paths else (), paths)):
            for pattern in patterns:
                if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
                    raise PlanError(f"no layer matches {pattern!r}", choices(pattern, names))

    def choices(self, key: str) -> tuple[int, ...]:
        """Returns the bit-widths that a kernel may get, ascending; `FLOAT_BITS` alone where it stays float."""
        if self._match(self.float_layers, key):
            return (FLOAT_BITS,)
        pinned = self._match(self.pin, key)
        return (self.pin[pinned],) if pinned else tuple(sorted(self.bits or (8,)))

    def is_pinned(self, key: str) -> bool:
        """Returns whether the bit-width of a kernel, or of another layer, is given."""
        return bool(self._match(self.pin, key))

    def pattern(self, key: str) -> str:
        """Returns the structured sparsity of a kernel."""
        return self.zeros.get(self._match(self.zeros, key), "unstructured")

    def reason(self, key: str) -> str:
        """Returns why a kernel has no choice, or an empty text where it has one."""
        kept, pinned = self._match(self.float_layers, key), self._match(self.pin, key)
        if kept:
            return f"float by {kept!r}; "
        return f"pinned to {self.pin[pinned]} bits by {pinned!r}; " if pinned else ""

    def _match(self, patterns: Iterable[str], key: str) -> str:
        return next((pattern for pattern in patterns if fnmatch.fnmatchcase(key, pattern)), "")
