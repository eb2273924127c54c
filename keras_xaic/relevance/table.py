"""One row per layer: what `xaic explain` prints and writes."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Optional

import numpy as np

from keras_xaic.arguments import an, checked, several
from keras_xaic.models.given import as_model
from keras_xaic.models.kernels import kernels_in
from keras_xaic.models.operations import Operations
from keras_xaic.relevance.container import Relevance

if TYPE_CHECKING:
    from keras_xaic._keras import Model


@dataclass(frozen=True)
class LayerRow:
    """What relevance says about one layer.

    Attributes:
        name: Path of the layer.
        kind: ``conv``, ``depthwise``, ``dense``, ``conv_transpose``, or the class of a recurrent or attention layer.
        relevance: Its score (see `Relevance.layers`).
        weights: Number of weights in its kernels.
        filters: Number of output channels.
        effective_filters: How many equally relevant filters would spread the relevance as evenly: the exponential of the
            entropy of the scores. Far fewer than `filters` means that many matter little.
        negative: Part of the weights with negative relevance; None where relevance is absolute.
        note: ``gate`` or ``approximate`` where the score is not what it seems, else "".
    """

    name: str
    kind: str
    relevance: float
    weights: int
    filters: int
    effective_filters: float
    negative: Optional[float]
    note: str


@checked(relevance=an(Relevance))
def layer_rows(model: Model, relevance: Relevance) -> list[LayerRow]:
    """Returns the rows of all layers that have scores, in network order.

    Args:
        model: The model that was attributed.
        relevance: Its relevance.
    """
    operations, kinds = Operations(as_model(model)), dict[str, str]()
    for kernel in kernels_in(operations):
        kinds[kernel.path] = kernel.kind
        kinds[kernel.key] = kernel.kind
    classes = {operation.path: type(operation.layer).__name__ for operation in operations}
    signed = relevance.reduce in ("mean", "sum", "momentum")
    rows = []
    for name, filters in relevance.filters.items():
        keys = [name] if name in relevance.weights else [key for key in relevance.weights if key.startswith(name + "/")]
        if name + "/pointwise_kernel" in keys:
            keys = [name + "/pointwise_kernel"]  # the depthwise kernel has a row of its own
        weights = np.concatenate([relevance.weights[key].reshape(-1) for key in keys]) if keys else np.zeros(0)
        notes = [word for word, paths in (("gate", relevance.gates), ("approximate", relevance.approximate)) if name in paths]
        rows.append(
            LayerRow(
                name=name,
                kind=kinds.get(name, classes.get(name, "")),
                relevance=relevance.layers[name],
                weights=int(weights.size),
                filters=int(filters.size),
                effective_filters=_effective(filters),
                negative=float(np.mean(weights < 0)) if signed and weights.size else None,
                note=", ".join(notes),
            )
        )
    return rows


@checked(rows=several(LayerRow))
def as_csv(rows: list[LayerRow]) -> str:
    """Returns rows as CSV text with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(LayerRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in asdict(row).items()} for row in rows)
    return text.getvalue()


def _effective(scores: np.ndarray) -> float:
    parts = np.abs(scores.astype(np.float64))
    total = parts.sum()
    if total == 0:
        return 0.0
    parts = parts[parts > 0] / total
    return math.exp(-float(np.sum(parts * np.log(parts))))
