"""The plan: what every layer gets. Plain data that a person can read, edit and hand to the next step; values are checked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Annotated, Any, Literal, Optional

import pydantic

from keras_xaic.arguments import a_path, checked
from keras_xaic.budget import Budget
from keras_xaic.errors import PlanError, XaicError
from keras_xaic.files import PathLike, a_place, write_atomic
from keras_xaic.json_files import read_json
from keras_xaic.ownership import check_file
from keras_xaic.planning.cost import weight_bytes
from keras_xaic.planning.storages import BITS_OF, Activations, Granularity, Storage
from keras_xaic.units import LARGEST
from keras_xaic.written import Written, what_is_wrong

Grid = Literal["uniform", "codebook", "ecq", "ecqx"]
ZEROS = r"unstructured|\d+:\d+|\d+x\d+"
"""Patterns of zeros, as a regular expression (see `LayerPlan.pattern`)."""
ENTROPY_GRIDS = ("ecq", "ecqx")
"""Grids whose zeros come from an entropy constraint, not from masks."""
Score = Literal["magnitude", "relevance", "geometric_mean", "signed_relevance"]


class LayerPlan(Written):
    """What one kernel gets.

    >>> head = LayerPlan(key="head", kind="dense", weights=640, bits=3, granularity="tensor", storage="int4", sparsity=0.5)
    >>> head.grid, head.pattern
    ('uniform', 'unstructured')

    Attributes:
        key: The kernel: the layer's path, or ``path/attribute`` for a layer with several kernels.
        kind: ``conv``, ``depthwise``, ``dense`` or ``conv_transpose``.
        weights: Number of weights that stay after filter removal, zeros included.
        bits: Bit-width of the grid, 2 to 8; 32 for a kernel that stays float.
        granularity: One scale per ``channel`` or per ``tensor``.
        grid: How the values that weights may take are found: ``uniform`` steps, a ``codebook`` of clustered values, or uniform
            steps assigned under an entropy constraint, without (``ecq``) or with (``ecqx``) relevance.
        storage: How the integers lie in the file: packed ``int4``, one ``int8`` each, or as ``float32``,
            not on a grid at all.
        sparsity: Planned fraction of zero weights; with ``ecq`` and ``ecqx`` the entropy constraint is adjusted to reach it;
            where it is 0, `Plan.entropy_weight` sets the constraint.
        pattern: Structured sparsity: ``unstructured``, ``N:M`` (N zeros in every M weights along the inputs) or ``HxW``
            blocks.
        relevance: The layer's share of all relevance, 0 to 1.
        flash_bytes: Predicted bytes in the file: weights, biases and quantization records.
        download_bytes: Predicted bytes after entropy coding.
        slowdown: Predicted time of the layer on LiteRT, divided by its time with 8-bit weights.
        reason: Why the layer gets this, in words.
    """

    key: str
    kind: str
    weights: int = pydantic.Field(ge=0, le=LARGEST)
    bits: int = pydantic.Field(ge=2, le=32)
    granularity: Granularity
    grid: Grid = "uniform"
    storage: Storage
    sparsity: float = pydantic.Field(default=0.0, ge=0.0, lt=1.0)
    pattern: str = pydantic.Field(default="unstructured", pattern=rf"^({ZEROS})$")
    relevance: float = pydantic.Field(default=0.0, ge=0.0, le=1.0)
    flash_bytes: int = pydantic.Field(default=0, ge=0, le=LARGEST)
    download_bytes: int = pydantic.Field(default=0, ge=0, le=LARGEST)
    slowdown: float = pydantic.Field(default=1.0, ge=0.0, le=1e6)
    reason: str = ""

    @pydantic.field_validator("bits")
    @classmethod
    def _known_bits(cls, bits: int) -> int:
        if bits > 8 and bits != BITS_OF["float32"]:
            raise ValueError(f"{bits} bits: grids have 2 to 8, float32 kernels 32")
        return bits

    @pydantic.model_validator(mode="after")
    def _possible(self) -> LayerPlan:
        if (self.storage == "float32") is not (self.bits == BITS_OF["float32"]):
            raise ValueError(f"{self.key} is stored as {self.storage} with {self.bits} bits: float32 is 32 bits, a grid 2 to 8")
        problem = check_zeros(self.pattern)
        if problem:
            raise ValueError(f"pattern of {self.key}: {problem}")
        return self

    @property
    def masked_sparsity(self) -> float:
        """Fraction of zeros that masks have to make; entropy-constrained grids need no masks."""
        return 0.0 if self.grid in ENTROPY_GRIDS else self.sparsity

    @property
    def is_float(self) -> bool:
        """Whether the kernel is not quantized."""
        return self.storage == "float32"


class FilterPlan(Written):
    """Removal of filters in steps; each is followed by training, and relevance is computed again.

    Filters go until every limit that is set holds, least relevant first over the whole model.

    >>> FilterPlan(macs=2_000_000, steps=3, align=4).limits
    {'macs': 2000000}

    Attributes:
        macs: Multiply-accumulates for one sample that may be left.
        parameters: Weights, biases and statistics that may be left.
        flash_bytes: Bytes of all kernels with their biases and steps, as planned for their layers, that may be left.
        download_bytes: The same after entropy coding.
        ram_bytes: Bytes of the tensor arena of TensorFlow Lite Micro, without unpacked lookup tables.
        microseconds: Predicted time (see `keras_xaic.planning.latency`).
        steps: Number of steps; with more of them, relevance is computed more often while the model shrinks.
        align: A layer that loses filters keeps a multiple of this number.
        min_filters: Filters that every layer keeps at least.
        protect: Name patterns (`fnmatch`) of layers that keep all filters.
    """

    macs: Optional[int] = pydantic.Field(default=None, ge=1, le=LARGEST)
    parameters: Optional[int] = pydantic.Field(default=None, ge=1, le=LARGEST)
    flash_bytes: Optional[int] = pydantic.Field(default=None, ge=1, le=LARGEST)
    download_bytes: Optional[int] = pydantic.Field(default=None, ge=1, le=LARGEST)
    ram_bytes: Optional[int] = pydantic.Field(default=None, ge=1, le=LARGEST)
    microseconds: Optional[float] = pydantic.Field(default=None, gt=0, le=1e12)
    steps: int = pydantic.Field(default=1, ge=1, le=10_000)
    align: int = pydantic.Field(default=1, ge=1, le=LARGEST)
    min_filters: int = pydantic.Field(default=4, ge=1, le=LARGEST)
    protect: tuple[str, ...] = ()

    @pydantic.field_validator("protect", mode="before")
    @classmethod
    def _several(cls, names: object) -> Any:
        return (names,) if isinstance(names, str) else names

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        names = ("macs", "parameters", "flash_bytes", "download_bytes", "ram_bytes", "microseconds")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class Plan(Written):
    """What will be done to a model, layer by layer.

    >>> head = LayerPlan(key="head", kind="dense", weights=640, bits=3, granularity="tensor", storage="int4", sparsity=0.5)
    >>> made = Plan(recipe="mine", layers=[head])
    >>> made["head"].bits, made.sparsity
    (3, 0.5)

    Attributes:
        schema_version: Version of the file format (``schema`` in the file).
        recipe: Name of the recipe that made the plan.
        seed: Seed of everything random.
        budget: The limits that the plan was made for.
        score: What ranks weights for pruning (see `keras_xaic.planning.weight_score`).
        sensitivity: How damage was predicted (see `keras_xaic.planning.SENSITIVITIES`).
        activations: Type of activations between layers.
        lookup: Whether kernels of three values may be looked up in `model.tflite`: fewest bytes, and slow.
        entropy_weight: How much the grids ``ecq`` and ``ecqx`` pay for fewer bits in layers without a planned sparsity, 0 to 1:
            the published Lambda, as a share of what would make the largest weight zero.
        layers: One entry per kernel, in network order.
        branches: Residual branch (see `keras_xaic.models.residual_branches`) -> its layers, which go whole: the sum that it
            goes into has only what it began with. Branches go before filters do.
        remove: Channel group -> channels that are removed, in ascending order.
        rounded: Layer whose matrices are in no kernel (embeddings, recurrent layers) -> bits that they are rounded to, 2 to 8;
            in the file they take a byte each, in the download that many bits or less.
        filters: How filters are removed in steps, with training in between; `remove` then lists those that would be removed by
            present relevance. None removes exactly those in `remove`, at once.
        predicted_flash_bytes: Predicted size of `model.tflite`.
        predicted_download_bytes: Predicted size of `model.xaic`.
        predicted_ram_bytes: Predicted arena of TensorFlow Lite Micro without compressed weights that it unpacks; None where
            nothing was predicted.
        predicted_slowdown: Predicted time of `model.tflite` on LiteRT, as a multiple of that of the original as plain int8;
            None where nothing was predicted.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_version: Literal[1] = pydantic.Field(default=1, alias="schema")
    recipe: str = "auto"
    seed: int = pydantic.Field(default=0, ge=0, lt=2**32)
    budget: Budget = Budget()
    score: Score = "geometric_mean"
    sensitivity: str = "relevance"
    activations: Activations = "int8"
    lookup: bool = True
    entropy_weight: float = pydantic.Field(default=0.05, ge=0.0, le=1.0)
    layers: list[LayerPlan] = []
    branches: dict[str, list[str]] = {}
    remove: dict[str, list[int]] = {}
    rounded: dict[str, Annotated[int, pydantic.Field(ge=2, le=8)]] = {}
    filters: Optional[FilterPlan] = None
    predicted_flash_bytes: int = pydantic.Field(default=0, ge=0, le=LARGEST)
    predicted_download_bytes: int = pydantic.Field(default=0, ge=0, le=LARGEST)
    predicted_ram_bytes: Optional[int] = pydantic.Field(default=None, ge=0, le=LARGEST)
    predicted_slowdown: Optional[float] = pydantic.Field(default=None, ge=0.0, le=1e6)

    def __getitem__(self, key: str) -> LayerPlan:
        for layer in self.layers:
            if layer.key == key:
                return layer
        raise KeyError(key)

    @property
    def sparsity(self) -> float:
        """Planned fraction of zero weights over all kernels."""
        total = sum(layer.weights for layer in self.layers)
        return sum(layer.sparsity * layer.weights for layer in self.layers) / max(1, total)

    @property
    def mean_bits(self) -> float:
        """Mean bit-width over all weights."""
        total = sum(layer.weights for layer in self.layers)
        return sum(layer.bits * layer.weights for layer in self.layers) / max(1, total)

    @checked(path=a_path)
    def save(self, path: PathLike) -> None:
        """Writes the plan as JSON."""
        write_atomic(a_place(path), self.model_dump_json(indent=1, by_alias=True) + "\n")

    @classmethod
    @checked(path=a_path)
    def load(cls, path: PathLike) -> Plan:
        """Reads a plan, perhaps edited by hand.

        Raises:
            PlanError: Naming the key that is wrong.
        """
        content = read_json(path)
        try:
            return cls.model_validate(content)
        except pydantic.ValidationError as error:
            raise what_is_wrong(error, str(path), cls, "a plan as `xaic plan` writes it") from None
        except PlanError as error:  # of the budget in it
            raise PlanError(f"{path}: {error.found}", error.expected, error.fix) from None

    def describe(self) -> str:
        """Returns the plan as a table of plain text."""
        removed = f"{sum(len(channels) for channels in self.remove.values())} channels"
        if self.branches:
            removed = f"{len(self.branches)} branch{'es' * (len(self.branches) > 1)} and {removed}"
        head = f"{'layer':<28} {'weights':>9} {'bits':>4} {'zeros':>6} {'flash B':>9}  why"
        rows = [
            f"{one.key[-28:]:<28} {one.weights:>9,} {one.bits:>4} {one.sparsity:>6.1%} {one.flash_bytes:>9,}  {one.reason}"
            for one in self.layers
        ]
        rows += [f"{name[-28:]:<28} {bits:>14} {'':>16}  rounded for the download" for name, bits in self.rounded.items()]
        rows += [f"{name[-28:]:<28} branch removed: {', '.join(gone)}" for name, gone in self.branches.items()]
        rows += [f"{name[-28:]:<28} {len(gone):>9,} channels removed" for name, gone in self.remove.items()]
        if self.filters is not None and self.filters.steps > 1:
            rows.append(f"filters go in {self.filters.steps} steps; which of them is decided again after each")
        ram = "" if self.predicted_ram_bytes is None else f", {self.predicted_ram_bytes:,} B RAM"
        time = "" if self.predicted_slowdown is None else f", {self.predicted_slowdown:.2f} times plain int8's time on LiteRT"
        tail = (
            f"predicted: {self.predicted_flash_bytes:,} B flash, {self.predicted_download_bytes:,} B download{ram}{time}; "
            f"{removed} removed; {self.mean_bits:.2f} bits a weight, {self.sparsity:.1%} zeros"
        )
        return "\n".join([head, *rows, tail])

    def _repr_html_(self) -> str:
        """What notebooks show: what every layer gets, and the predicted sizes."""
        rows = [
            f"<tr><td>{escape(one.key)}</td><td>{one.weights:,}</td><td>{one.bits}</td><td>{one.sparsity:.1%}</td>"
            f"<td>{one.relevance:.3g}</td><td>{one.flash_bytes:,}</td><td>{escape(one.reason)}</td></tr>"
            for one in self.layers
        ]
        titles = "".join(f"<th>{name}</th>" for name in ("layer", "weights", "bits", "zeros", "relevance", "flash B", "why"))
        head = f"{escape(self.recipe)}: {self.predicted_flash_bytes:,} B flash, {self.predicted_download_bytes:,} B download"
        return f"<table><caption>{head}</caption><tr>{titles}</tr>{''.join(rows)}</table>"

    def __repr__(self) -> str:
        return f"<Plan {self.recipe!r} for {self.budget}>\n{self.describe()}"

    __str__ = __repr__


def check_place(out: PathLike, overwrite: bool, inputs: Iterable[Any]) -> None:
    """Makes sure that a plan may be written to `out`, before any work (see `keras_xaic.ownership.check_file`)."""
    try:
        Plan.load(out)
        there = True
    except XaicError:
        there = False
    check_file(out, "a plan", there, overwrite, inputs=inputs)


def find_layer(plan: Plan, key: str) -> Optional[LayerPlan]:
    """Returns the entry for a kernel, or None where the plan leaves it alone."""
    return next((layer for layer in plan.layers if layer.key == key), None)


def check_zeros(pattern: str) -> str:
    """Returns what is wrong with a pattern of zeros that is written as it should be; empty where nothing is.

    >>> check_zeros("2:4"), check_zeros("4:2")
    ('', '4:2 asks for 4 zeros in every 2 weights')
    """
    sizes = [int(part) for part in re.findall(r"\d+", pattern)]
    if ":" in pattern and not 0 < sizes[0] < sizes[1]:
        return f"{pattern} asks for {sizes[0]} zeros in every {sizes[1]} weights"
    return f"{pattern} has no size" if sizes and min(sizes) < 1 else ""


def pattern_sparsity(pattern: str, planned: float) -> float:
    """Returns the fraction of zeros that a pattern gives a kernel: N / M for ``N:M``, else what was planned."""
    zeros, colon, group = pattern.partition(":")
    return int(zeros) / int(group) if colon else planned


def with_grid(plan: Plan, grid: Grid) -> Plan:
    """Returns the plan with every layer on `grid`, and with the bytes that follow from it.

    A codebook's levels may lie anywhere in int8, so a kernel with a codebook takes a byte per weight in `model.tflite`,
    whatever its bit-width; on TensorFlow Lite Micro (lookup tables) and in the download it takes its bit-width and less.

    Args:
        plan: Its bits, sparsities and granularities stay.
        grid: See `LayerPlan.grid`.
    """
    layers, more = [], 0
    for layer in plan.layers:
        if layer.is_float:
            layers.append(layer)
            continue
        update: dict[str, Any] = {"grid": grid}
        if grid == "codebook":
            wider = weight_bytes(layer.weights, "int8", layer.bits)
            wider -= weight_bytes(layer.weights, layer.storage, layer.bits, plan.activations)
            update.update(storage="int8", flash_bytes=layer.flash_bytes + wider)
            more += wider
        layers.append(layer.model_copy(update=update))
    return plan.model_copy(update={"layers": layers, "predicted_flash_bytes": plan.predicted_flash_bytes + more})
