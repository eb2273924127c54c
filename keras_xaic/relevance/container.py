"""`Relevance`: what attribution hands to planning, pruning and quantization; saved as one .npz."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from html import escape
from typing import TYPE_CHECKING, Any, Literal, Optional, Union

import numpy as np

from keras_xaic.arguments import a_path, checked, keyword_only
from keras_xaic.errors import DataError
from keras_xaic.files import PathLike, a_place, expanded, save_arrays
from keras_xaic.npz import Npz
from keras_xaic.relevance.tried import Tried

if TYPE_CHECKING:
    from keras_xaic.relevance.choices import EngineName, Reduce, Start

FORMAT = 1

_PARTS = ("weights", "filters", "layers", "biases")
_FACTS = ("rule", "filter_rule", "engine", "target", "start", "reduce", "samples", "seed")
_LATER = ("filter_reduce", "bits_rule")
"""Facts, and scores in `_LATER_PARTS`, that files have only where there is something to say."""
_LATER_PARTS = ("rounding",)


@keyword_only(after=4)
@dataclass(frozen=True, eq=False)
class Relevance:
    """How much every weight, filter and layer matters, by one rule, over some samples.

    >>> scores = np.array([[0.2, 0.0], [0.1, 0.3]], np.float32)
    >>> found = Relevance({"head": scores}, {"head": scores.sum(axis=0)}, {"head": 0.6}, rule="lrp.epsilon", samples=8)
    >>> found.weights["head"].shape, found.filters["head"].shape, found.reduce
    ((2, 2), (2,), 'mean_abs')

    Attributes:
        weights: Weight key -> array of the kernel's shape, float32. The key is the layer's path in the user's model, or
            ``path/attribute`` for a layer with several kernels (``sep/depthwise_kernel``).
        filters: Path -> score of every output channel, (channels,). Depthwise kernels inside separable convolutions are listed
            by their weight key.
        layers: Path -> share of the starting relevance that passes through the layer: the sum of its filter scores over the
            mean absolute start. About 1 where all of it goes through, less in a branch, more where positive and negative
            relevance cancel. Comparable across layers.
        rule: Name of the rule or composite.
        engine: ``"native"`` or ``"innvestigate"``.
        target: Where relevance started.
        start: How much relevance it started with.
        reduce: How samples were brought together.
        samples: How many there were.
        seed: The seed given.
        approximate: Paths of layers that were linearised because no sound rule exists for them.
        gates: Paths of weighted layers that only compute gates: LRP gives them zero by construction. That does not mean that
            they do not matter; protect them, or use a rule that scores them (DeepLIFT, taylor).
        filter_rule: Name of the rule of `filters` and `layers`, where it is another.
        filter_reduce: How samples were brought together for these, where that is another way.
        bits_rule: Name of the rule of `rounding`, where there is any.
        rounding: Weight key -> what says how much it hurts to round a kernel, where that is not `weights`; absolute.
        biases: Path -> relevance of the biases, (channels,), where the rule gives them any. With ``reduce="sum"``, weights and
            biases of a layer add up to its filters.
        per_class: Class number -> the same for the samples of that class, where it was asked for.
        tried: The rules that were tried, where they were searched for.
    """

    weights: Mapping[str, np.ndarray]
    filters: Mapping[str, np.ndarray]
    layers: Mapping[str, float]
    rule: str
    engine: EngineName = "native"
    target: str = "true"
    start: Union[Start, Literal["none"]] = "one"
    reduce: Reduce = "mean_abs"
    samples: int = 0
    seed: int = 0
    approximate: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    filter_rule: str = ""
    filter_reduce: Union[Reduce, Literal[""]] = ""
    bits_rule: str = ""
    rounding: Mapping[str, np.ndarray] = field(default_factory=dict)
    biases: Mapping[str, np.ndarray] = field(default_factory=dict)
    per_class: Mapping[int, Relevance] = field(default_factory=dict)
    tried: tuple[Tried, ...] = ()

    @property
    def of_rounding(self) -> Mapping[str, np.ndarray]:
        """Scores that tell how much rounding of a kernel hurts."""
        return self.rounding or self.weights

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same facts and, value for value, the same scores."""
        if not isinstance(other, Relevance):
            return NotImplemented
        return all(_same(getattr(self, one.name), getattr(other, one.name)) for one in fields(self))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        lines = [
            f"Relevance({self.rule}, engine={self.engine}, target={self.target}, start={self.start}, reduce={self.reduce}, "
            f"{self.samples} samples, {len(self.weights)} kernels)"
        ]
        for path, score in self.layers.items():
            marks = " approximate" * (path in self.approximate) + " gate" * (path in self.gates)
            lines.append(f"  {path:<40} {score:10.4g}  {len(self.filters.get(path, ())):5d} filters{marks}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """What notebooks show: the layers with their scores as bars."""
        longest = max((abs(score) for score in self.layers.values()), default=0.0) or 1.0
        rows = [
            f"<tr><td>{escape(path)}</td><td>{score:.4g}</td><td>{len(self.filters.get(path, ()))}</td><td>"
            f'<div style="width:{120 * abs(score) / longest:.0f}px;height:.7em;background:#b9480c"></div></td></tr>'
            for path, score in self.layers.items()
        ]
        head = f"{escape(self.rule)}, {escape(self.engine)} engine, target {escape(self.target)}, {self.samples} samples"
        titles = "<tr><th>layer</th><th>relevance</th><th>filters</th><th></th></tr>"
        return f"<table><caption>{head}</caption>{titles}{''.join(rows)}</table>"

    @checked(path=a_path)
    def save(self, path: PathLike) -> pathlib.Path:
        """Writes one .npz without pickles; it is written atomically.

        Args:
            path: File name; ``.npz`` is added if it is missing.

        Returns:
            The file written.
        """
        where = expanded(path)
        where = where if where.suffix == ".npz" else where.with_name(where.name + ".npz")
        arrays: dict[str, np.ndarray] = {}
        _collect(self, "", arrays)
        save_arrays(a_place(where), arrays)
        return where

    @classmethod
    @checked(path=a_path)
    def load(cls, path: PathLike) -> Relevance:
        """Reads what `save` wrote.

        Args:
            path: The .npz, or a directory with ``relevance.npz`` in it.

        Raises:
            DataError: If there is no such file or it is something else.
        """
        where = expanded(path)
        where = where / "relevance.npz" if where.is_dir() else where
        expected = "the output of `xaic explain`, or a file written by Relevance.save"
        if not where.exists():
            raise DataError(f"relevance file {where} does not exist", expected)
        arrays = Npz(where, expected)
        try:
            return _restore(arrays, "")
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            said = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{where} is not a relevance file ({said[:200]})", expected) from None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return np.array_equal(one, other) if isinstance(one, np.ndarray) or isinstance(other, np.ndarray) else bool(one == other)


def _collect(relevance: Relevance, prefix: str, arrays: dict[str, np.ndarray]) -> None:
    facts = {
        "format": FORMAT,
        **{name: getattr(relevance, name) for name in _FACTS},
        **{name: getattr(relevance, name) for name in _LATER if getattr(relevance, name)},
        "approximate": list(relevance.approximate),
        "gates": list(relevance.gates),
        "classes": sorted(relevance.per_class),
        "order": {part: list(getattr(relevance, part)) for part in _held(relevance)},
    }
    arrays[prefix + "facts"] = np.array(json.dumps(facts, sort_keys=True))
    if relevance.tried:
        arrays[prefix + "tried"] = np.array(json.dumps([one.facts() for one in relevance.tried]))
    for part in _held(relevance):
        for key, value in getattr(relevance, part).items():
            arrays[f"{prefix}{part}/{key}"] = np.asarray(value)
    for number, one in relevance.per_class.items():
        _collect(one, f"{prefix}class/{number}/", arrays)


def _held(relevance: Relevance) -> tuple[str, ...]:
    return (*_PARTS, *(part for part in _LATER_PARTS if getattr(relevance, part)))


def _restore(arrays: Mapping[str, np.ndarray], prefix: str) -> Relevance:
    facts = json.loads(str(arrays[prefix + "facts"]))
    if facts.pop("format") != FORMAT:
        raise ValueError("another version of the format")
    order, classes = facts.pop("order"), facts.pop("classes")
    listed = {name: facts.pop(name) for name in ("approximate", "gates")}
    if set(facts) - set(_LATER) != set(_FACTS):
        raise ValueError("other facts than those of an attribution")
    for name, value in facts.items():
        kind = type(getattr(Relevance, name, ""))  # of the default
        if type(value) is not kind and not (name == "target" and type(value) is int):
            raise ValueError(f"{name} is no {kind.__name__}")
    if any(type(one) is not str for names in (*listed.values(), *order.values()) for one in names):
        raise ValueError("names that are no text")
    if any(type(number) is not int for number in classes):
        raise ValueError("classes that are no numbers")
    held = (*_PARTS, *(part for part in _LATER_PARTS if part in order))
    parts = {part: {key: _scores(arrays, f"{prefix}{part}/{key}") for key in order[part]} for part in held}
    tried = json.loads(str(arrays[prefix + "tried"])) if prefix + "tried" in arrays else []
    if any(value.size != 1 for value in parts["layers"].values()):
        raise ValueError("several scores of one layer")
    return Relevance(
        weights=parts["weights"],
        filters=parts["filters"],
        biases=parts["biases"],
        layers={key: float(value) for key, value in parts["layers"].items()},
        per_class={number: _restore(arrays, f"{prefix}class/{number}/") for number in classes},
        approximate=tuple(listed["approximate"]),
        gates=tuple(listed["gates"]),
        rounding=parts.get("rounding", {}),
        tried=tuple(Tried.of(one) for one in tried),
        **facts,
    )


def _scores(arrays: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    values = arrays[key]
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise ValueError(f"{key} is not all finite numbers")
    return values


def layer_scores(filters: Mapping[str, np.ndarray], start: Optional[float]) -> dict[str, float]:
    """Returns the layers' scores (see `Relevance.layers`) from filter scores and the mean absolute start."""
    unit = start if start else 1.0
    return {path: float(np.sum(scores, dtype=np.float64) / unit) for path, scores in filters.items()}
