"""What a search looks for: objectives by name, how far it goes, and which of its models is picked."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from keras_xaic.arguments import keyword_only, require, settings, shown
from keras_xaic.errors import PlanError, choices
from keras_xaic.settings import cluster_address, option
from keras_xaic.units import parse_milliseconds, parse_size


@dataclass(frozen=True)
class Objective:
    """One thing that a search makes as small, or as large, as it can.

    Attributes:
        words: What it is, for people.
        unit: ``B``, ``ms``, or ``1`` for values without one.
        larger: Whether more is better.
    """

    words: str
    unit: str = "B"
    larger: bool = False


OBJECTIVES: dict[str, Objective] = {
    "flash": Objective("size of model.tflite"),
    "download": Objective("size of model.xaic"),
    "ram": Objective("tensor arena on a microcontroller"),
    "latency": Objective("median time of one sample on this machine", unit="ms"),
    "metric": Objective("metric value on validation data, on the edge interpreter", unit="1", larger=True),
    "similarity": Objective("similarity of the explanations of original and compressed model", unit="1", larger=True),
}


@settings
@keyword_only(after=2)
@dataclass(frozen=True)
class SearchOptions:
    """Objectives of a search, how many trials it runs, and where.

    >>> SearchOptions(trials=30, objectives=("download", "metric")).workers
    1

    Attributes:
        objectives: At least two names of `OBJECTIVES`. ``metric`` is always measured on validation data; errors (mse, mae ...)
            count with a minus, so that more is better.
        trials: Number of trials, finished ones included.
        workers: Processes on this machine; each finishes its running trial, so that there may be a few trials more.
        storage: An Optuna storage URL that several machines can share; None: a SQLite file in the search's directory.
        cluster: A Ray cluster that runs the trials: HOST:PORT of one that this machine is a node of, or ``auto``: the one that
            runs here, else Ray is started for this search. `workers` then says how many trials run at the same time.

    Raises:
        PlanError: Naming the setting that is not usable.
    """

    objectives: Sequence[str] = option(
        ("flash", "metric"), f"What to trade: at least two of {', '.join(OBJECTIVES)}.", values=tuple(OBJECTIVES)
    )
    trials: int = option(20, "Number of trials, finished ones included.")
    workers: int = option(1, "Processes on this machine.")
    storage: Optional[str] = option(None, "Optuna storage URL, shared by machines; default: a file.", kind=str)
    cluster: Optional[str] = option(None, "Ray cluster that runs the trials: auto, or HOST:PORT.", kind=str)

    def __post_init__(self) -> None:
        given = self.objectives.split(",") if isinstance(self.objectives, str) else self.objectives
        if not isinstance(given, (tuple, list)) or not all(isinstance(one, str) for one in given):
            raise PlanError(f"objectives is {shown(given)}", "names, e.g. ('flash', 'metric')")
        names = tuple(one.strip() for one in given)
        for name in names:
            if name not in OBJECTIVES:
                raise PlanError(f"unknown objective {name!r}", choices(name, OBJECTIVES))
        if len(set(names)) != len(names) or len(names) < 2:
            raise PlanError(f"objectives are {', '.join(names) or 'none'}", "at least two different ones, e.g. flash,metric")
        object.__setattr__(self, "objectives", names)
        for name in ("trials", "workers"):
            count = require(name, getattr(self, name), "a whole number, 1 or more", lambda n: n >= 1, True)
            object.__setattr__(self, name, count)
        if self.storage is not None and (not isinstance(self.storage, str) or not self.storage.strip()):
            raise PlanError(f"storage is {shown(self.storage)}", "an Optuna storage URL, e.g. sqlite:///study.db")
        if self.cluster is not None:
            object.__setattr__(self, "cluster", cluster_address(self.cluster))


_CONDITION = re.compile(r"\s*([a-z]+)\s*(<=|>=|<|>)\s*([^<>=]+?)\s*")
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Condition:
    """``flash<48kB``: what a model that is picked has to be like."""

    name: str
    sign: str
    limit: float

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether a model with these values meets it."""
        return _SIGNS[self.sign](values[self.name], self.limit)


def parse_conditions(rule: object) -> tuple[Condition, ...]:
    """Reads conditions on objectives, separated by commas.

    >>> parse_conditions("flash<48kB, metric>=0.9")
    (Condition(name='flash', sign='<', limit=48000.0), Condition(name='metric', sign='>=', limit=0.9))

    Raises:
        PlanError: If it is something else.
    """
    example = "conditions on objectives, e.g. flash<48kB or metric>=0.9,latency<300us"
    if not isinstance(rule, str) or not rule.strip():
        raise PlanError(f"the rule to pick by is {shown(rule)}", example)
    found = []
    for text in rule.split(","):
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise PlanError(f"the rule to pick by has {text.strip()!r}", example)
        name, sign, limit = match.groups()
        if name not in OBJECTIVES:
            raise PlanError(f"unknown objective {name!r}", choices(name, OBJECTIVES))
        found.append(Condition(name, sign, _limit(name, limit)))
    return tuple(found)


def _limit(name: str, text: str) -> float:
    if OBJECTIVES[name].unit == "B":
        return float(parse_size(text, f"the limit of {name}"))
    if OBJECTIVES[name].unit == "ms":
        return parse_milliseconds(text, f"the limit of {name}")
    match = re.fullmatch(r"(-?[0-9]+(?:\.[0-9]+)?)\s*(%)?", text)
    if match is None:
        raise PlanError(f"the limit of {name} is {text!r}", "a number, e.g. 0.9")
    return float(match.group(1)) / (100 if match.group(2) == "%" else 1)


def best_of(points: Sequence[Any], conditions: Sequence[Condition]) -> Optional[Any]:
    """Returns the point that meets the conditions and is best in what they do not name, the metric first; None if none does.

    Args:
        points: Each with ``values``: objective -> value.
        conditions: All must hold.
    """
    named = {one.name for one in conditions}

    def worth(point: Any) -> list[float]:
        order = sorted(point.values, key=lambda name: (name in named, name != "metric"))
        return [point.values[name] * (1 if OBJECTIVES[name].larger else -1) for name in order]

    fitting = [point for point in points if all(one.holds(point.values) for one in conditions)]
    return max(fitting, key=worth, default=None)
