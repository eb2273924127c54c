"""What a page shows beside report.json: arrays from the other files of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from keras_xaic.bundle import Bundle
from keras_xaic.errors import DataError
from keras_xaic.files import PathLike
from keras_xaic.grids import QuantizedKernel, load_kernels
from keras_xaic.json_files import read_json
from keras_xaic.relevance import Explanations
from keras_xaic.units import LARGEST


class Found(BaseModel):
    """One model that a search found, as in pareto.json."""

    model_config = ConfigDict(strict=True)

    flash_bytes: int = Field(ge=1, le=LARGEST)
    held_back_accuracy: float = Field(ge=-1e12, le=1e12, allow_inf_nan=False)
    best: bool


def read_front(path: PathLike) -> list[dict[str, Any]]:
    """Reads the pareto.json of a search.

    Raises:
        DataError: If it is something else; names the entry.
    """
    try:
        return [one.model_dump() for one in TypeAdapter(list[Found]).validate_python(read_json(path))]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(f"{path}: {where}: {first['msg']}", "pareto.json as `xaic search` writes it") from None


@dataclass(frozen=True)
class Evidence:
    """What is drawn; every part may be missing.

    Attributes:
        kernels: Kernel key -> its integers and steps (grids.npz).
        explanations: What both models look at (explanations.npz).
        front: The models that a search found (pareto.json): ``flash_bytes``, ``held_back_accuracy``, ``best``.
    """

    kernels: Mapping[str, QuantizedKernel] = field(default_factory=dict)
    explanations: Optional[Explanations] = None
    front: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def read(cls, bundle: Bundle) -> Evidence:
        """Reads what the bundle has.

        Raises:
            DataError: If a file is there and unusable.
        """
        front = bundle.path / "pareto.json"
        return cls(
            kernels=load_kernels(bundle.grids) if bundle.grids.is_file() else {},
            explanations=Explanations.load(bundle.explanations) if bundle.explanations.is_file() else None,
            front=read_front(front) if front.is_file() else (),
        )
