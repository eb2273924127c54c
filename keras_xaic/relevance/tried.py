"""What a search for rules found out (see `keras_xaic.pipeline.tuning`); kept with the relevance that it chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Optional, get_args

AUTO = "auto"
"""In place of a rule's name: the one that does least damage on validation data."""
Use = Literal["filters", "weights", "bits"]
USES: tuple[Use, ...] = get_args(Use)


@dataclass(frozen=True)
class Tried:
    """A rule, and what its order did to the model when it was followed without training.

    Attributes:
        use: What was ordered: which ``filters`` go, which ``weights`` become zero, or which kernels get fewer ``bits``.
        rule: Name of the rule or composite.
        reduce: How samples were brought together.
        steps: How far it was followed: shares of the filters or of the weights, or mean bits of a weight.
        damage: What was lost on validation data at each step, in percentage points, of errors in per cent; 100 at most. None
            where the rule was given up before.
        area: Area under the curve of damage, as a mean; None where the rule was given up.
        chosen: Whether it is the one to use.
        control: Whether it is there to be compared with only.
    """

    use: Use
    rule: str
    reduce: str
    steps: tuple[float, ...]
    damage: tuple[Optional[float], ...]
    area: Optional[float]
    chosen: bool = False
    control: bool = False

    def facts(self) -> dict[str, Any]:
        """Returns what is kept of it, as JSON takes it."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Tried:
        """Reads what `facts` gave.

        Raises:
            ValueError: If it is something else.
        """
        steps, damage = tuple(map(float, facts["steps"])), tuple(_number(one) for one in facts["damage"])
        use, rule, reduce = (facts[name] for name in ("use", "rule", "reduce"))
        if use not in USES or len(steps) != len(damage) or any(type(one) is not str for one in (rule, reduce)):
            raise ValueError("tried rules that are no rules")
        area, chosen, control = _number(facts["area"]), bool(facts["chosen"]), bool(facts["control"])
        return cls(use, rule, reduce, steps, damage, area, chosen, control)


def _number(value: Any) -> Optional[float]:
    return None if value is None else float(value)
