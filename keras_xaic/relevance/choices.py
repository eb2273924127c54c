"""What the options of attribution may be, by name; without TensorFlow, for settings that are declared before it is loaded."""

from __future__ import annotations

from typing import Any, Literal, TypedDict, Union, get_args

EngineName = Literal["auto", "native", "innvestigate"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
Target = Union[Literal["true", "predicted", "all"], int]
"""Which outputs relevance starts from; a number is a class."""
Start = Literal["one", "logit", "squared_error"]
STARTS: tuple[Start, ...] = get_args(Start)
Reduce = Literal["mean_abs", "mean", "sum", "rms", "momentum"]
Statistic = Literal["signed", "absolute", "squared"]
"""What is summed over samples: R, |R| or R^2."""
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)


class RunDetails(TypedDict, total=False):
    """Keywords of `Attribution.run` that few need."""

    start: Start
    outputs: Any
    reference: Any
    batch_size: int
    seed: int
    per_class: bool


class Details(RunDetails, total=False):
    """Keywords of `attribute` that few need."""

    engine: EngineName
