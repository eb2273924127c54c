"""front.json: what a search found, and which of its models no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from keras_xaic.arguments import a_path, checked
from keras_xaic.errors import DataError
from keras_xaic.files import PathLike
from keras_xaic.json_files import read_json
from keras_xaic.objectives import OBJECTIVES
from keras_xaic.report.schema import Count, Positive, Value
from keras_xaic.written import Made

FRONT = "front.json"


class Found(BaseModel, metaclass=Made):
    """One compressed model of a search.

    Attributes:
        trial: Its number; its bundle is ``trials/NUMBER``.
        values: Objective -> value; the metric on validation data, from the interpreter that judges; more is better.
        best: Whether it meets the budget, and no other model that does is at least as good in all objectives and better in one.
        meets: Whether it meets the budget of the search.
        command: What makes the same files again; empty where only Python can say it.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    trial: Count
    values: dict[str, Value]
    best: bool = False
    meets: bool = True
    command: str = ""


class Front(BaseModel, metaclass=Made):
    """Everything that a search found.

    Attributes:
        objectives: Their names.
        points: Finished trials, in the order of the first objective.
        model: What was compressed.
        failed: Trials that ended without a model.
        last_error: What the last of them said.
        pruned: Trials that were ended early, because a smaller model is better than they could become.
        used: How often a trial could use what another one had made.
        made: How often it could not.
        seconds_saved: What that saved.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    objectives: tuple[str, ...] = Field(strict=False)
    points: tuple[Found, ...] = Field(strict=False)
    model: str = ""
    failed: Count = 0
    last_error: str = ""
    pruned: Count = 0
    used: Count = 0
    made: Count = 0
    seconds_saved: Positive = 0.0

    @model_validator(mode="after")
    def _complete(self) -> Front:
        unknown = [name for name in self.objectives if name not in OBJECTIVES]
        if unknown or len(set(self.objectives)) != len(self.objectives):
            raise ValueError(f"objectives: {unknown or 'one of them twice'}")
        if any(set(one.values) != set(self.objectives) for one in self.points):
            raise ValueError("a point has other values than the objectives")
        return self

    @classmethod
    def of(cls, objectives: Sequence[str], points: Sequence[Found], **facts: Any) -> Front:
        """Returns the front of points: in order, the best of them marked."""
        signs = [-1 if OBJECTIVES[name].larger else 1 for name in objectives]
        costs = {one.trial: [one.values[name] * sign for name, sign in zip(objectives, signs)] for one in points}
        rivals = [costs[one.trial] for one in points if one.meets]

        def is_best(own: list[float]) -> bool:
            return not any(rival != own and all(a <= b for a, b in zip(rival, own)) for rival in rivals)

        marked = [one.model_copy(update={"best": one.meets and is_best(costs[one.trial])}) for one in points]
        marked.sort(key=lambda one: (costs[one.trial], one.trial))
        return cls(objectives=tuple(objectives), points=tuple(marked), **facts)


@checked(path=a_path)
def read_front(path: PathLike) -> Front:
    """Reads the front.json of a search.

    Raises:
        DataError: If it is something else; names the entry.
    """
    try:
        return Front.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(f"{path}: {where}: {first['msg']}", "front.json as `xaic search` writes it") from None
