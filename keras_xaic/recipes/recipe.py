"""A recipe is data: which attribution rule, which pruning, which grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Optional


@dataclass(frozen=True)
class Recipe:
    """A named method.

    Attributes:
        name: What `--recipe` takes.
        source: The publication or product it comes from.
        summary: What it does, in one sentence.
        rule: Attribution rule whose relevance drives it; None for methods that need none.
        bits: Bit-widths that layers may get; () leaves quantization to the TFLite converter.
        filters: Whether filters may be removed to meet the budget.
        baseline: For methods of others: a function ``(model, data, **options) -> CompressedModel`` that runs them as they are.
    """

    name: str
    source: str
    summary: str
    rule: Optional[str] = None
    bits: tuple[int, ...] = ()
    filters: bool = False
    baseline: Optional[Callable[..., Any]] = None
