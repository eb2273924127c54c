"""report.json, schema version 2: every value that was measured, with its unit in its name."""

from __future__ import annotations

import pathlib
from html import escape
from typing import Annotated, Any, Literal, Optional

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from keras_xaic._version import __version__
from keras_xaic.arguments import a_path, checked
from keras_xaic.errors import DataError
from keras_xaic.files import PathLike, a_place, expanded, write_atomic
from keras_xaic.json_files import read_json
from keras_xaic.metrics import METRICS
from keras_xaic.units import LARGEST
from keras_xaic.written import Made

SCHEMA = 2
LARGEST_VALUE = 1e100
"""What is larger was not measured but overflowed: it is written as null."""
Value = Annotated[float, Field(ge=-LARGEST_VALUE, le=LARGEST_VALUE)]
Positive = Annotated[float, Field(ge=0, le=LARGEST_VALUE)]
Share = Annotated[float, Field(ge=0, le=1)]
Correlation = Annotated[float, Field(ge=-1, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Bits = Annotated[float, Field(ge=0, le=64)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Difference = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
FileBytes = Annotated[int, Field(ge=1, le=LARGEST)]
Reference = Literal["edge", "keras"]
"""Which metric value of the original drops are measured against: that of its float32 file on the edge interpreter, or where an
interpreter computes this file wrongly, that of the Keras model."""


class _Facts(BaseModel, metaclass=Made):
    """Measured values, each in the range it can have: more may be added, none may be NaN (what does not apply is null)."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: object) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        return None if isinstance(value, float) and not abs(value) <= LARGEST_VALUE else value


class MetricFacts(_Facts):
    """What ``*_metric`` fields hold (see `keras_xaic.metrics.Metric`), and of which of several outputs."""

    name: str = "accuracy"
    better: Literal["higher", "lower"] = "higher"
    unit: str = "1"
    output: Optional[str] = None


class ModelFacts(_Facts):
    """The model that came in."""

    name: str = ""
    parameters: Optional[Count] = None
    weighted_layers: Optional[Count] = None
    macs: Optional[Count] = None


class BudgetFacts(_Facts):
    """What was asked for (null: no limit), and whether it was met.

    `latency_ms` and `max_slowdown`, a multiple of plain int8's time, are limits on the interpreter `timed_on`. `max_drop_pp` is
    in percentage points, for errors (mse, mae, ...) in percent of the original's. `min_similarity` is the least
    `explanation_similarity`.
    """

    flash_bytes: Optional[FileBytes] = None
    download_bytes: Optional[FileBytes] = None
    ram_bytes: Optional[Count] = None
    max_drop_pp: Optional[Percent] = None
    macs: Optional[Count] = None
    latency_ms: Optional[Positive] = None
    max_slowdown: Optional[Positive] = None
    min_similarity: Optional[Share] = None
    timed_on: Optional[str] = None
    met: Optional[bool] = None


class LatencyFacts(_Facts):
    """Milliseconds of one invocation after warm-up, and what share of the multiply-adds and operators a delegate computes.

    `least` is the fastest of all. `refused_operator` is the first operator that it leaves over, and why; `ratio_to_int8` the
    least time over that of the plain int8 file, which was run in turn with this one.
    """

    median: Optional[Positive] = None
    p90: Optional[Positive] = None
    least: Optional[Positive] = None
    threads: Count = 1
    delegated_macs: Optional[Share] = None
    delegated_operators: Optional[Share] = None
    refused_operator: Optional[str] = None
    ratio_to_int8: Optional[Positive] = None


class OriginalFacts(_Facts):
    """The model before compression."""

    keras_metric: Optional[Value] = None
    keras_accuracy: Optional[Share] = None
    tflite_fp32_bytes: Optional[FileBytes] = None
    tflite_fp32_gzip_bytes: Optional[FileBytes] = None
    edge_metric: Optional[Value] = None
    edge_accuracy: Optional[Share] = None
    latency_ms: dict[str, LatencyFacts] = Field(default_factory=dict)


class BaselineFacts(_Facts):
    """What a usual method gives for the same model and data."""

    keras_metric: Optional[Value] = None
    keras_accuracy: Optional[Share] = None
    flash_bytes: Optional[FileBytes] = None
    download_bytes: Optional[FileBytes] = None
    edge_metric: Optional[Value] = None
    edge_accuracy: Optional[Share] = None
    drop_pp: Optional[Value] = None
    latency_ms: dict[str, LatencyFacts] = Field(default_factory=dict)


class SimilarityFacts(_Facts):
    """How alike the reasons of original and compressed model are, by several yardsticks.

    `spearman` is the rank correlation of their relevance maps, `cosine` the cosine of these, `top10` the share of the most
    relevant tenth of the positions that is the same; `held_out` the rank correlation of what taking away parts of the input
    does to both, which no training looks at.
    """

    spearman: Optional[Correlation] = None
    cosine: Optional[Correlation] = None
    top10: Optional[Share] = None
    held_out: Optional[Correlation] = None


class CompressedFacts(_Facts):
    """The model after compression; `samples` is how many samples of which `part` of the data judged it.

    `explanation_similarity` is `similarity.spearman`. Of `flash_bytes`, `io_bytes` convert inputs and outputs to another type
    (`--io`), and `metadata_bytes` are TFLite metadata.
    """

    keras_metric: Optional[Value] = None
    keras_accuracy: Optional[Share] = None
    edge_metric: Optional[Value] = None
    edge_accuracy: Optional[Share] = None
    drop_pp: Optional[Value] = None
    flash_bytes: Optional[FileBytes] = None
    io_bytes: Optional[FileBytes] = None
    metadata_bytes: Optional[FileBytes] = None
    micro_flash_bytes: Optional[FileBytes] = None
    download_bytes: Optional[FileBytes] = None
    arena_bytes: Optional[Count] = None
    sparsity: Optional[Share] = None
    mean_bits: Optional[Bits] = None
    macs: Optional[Count] = None
    latency_ms: dict[str, LatencyFacts] = Field(default_factory=dict)
    agreement: Optional[Share] = None
    explanation_similarity: Optional[Correlation] = None
    similarity: Optional[SimilarityFacts] = None
    samples: Optional[Count] = None
    part: Optional[str] = None


class OutputFacts(_Facts):
    """One output of the model. `original` and `compressed` are values of its metric, `drop` is in the unit of that metric.

    `weight` says how much it counted; `agreement` is the share of decisions that are the original's; `baselines` holds the
    values of the baselines; `similarity` compares explanations of this output alone.
    """

    name: str = ""
    task: str = ""
    metric: Optional[str] = None
    weight: Positive = 1.0
    original: Optional[Value] = None
    compressed: Optional[Value] = None
    original_keras: Optional[Value] = None
    compressed_keras: Optional[Value] = None
    drop: Optional[Value] = None
    agreement: Optional[Share] = None
    similarity: Optional[SimilarityFacts] = None
    baselines: dict[str, Optional[Value]] = Field(default_factory=dict)


class JudgeFacts(_Facts):
    """The interpreter whose outputs are the metric values."""

    interpreter: str
    version: Optional[str] = None


class InterpreterFacts(_Facts):
    """What one interpreter made of the file."""

    version: Optional[str] = None
    accuracy: Optional[Share] = None
    metric: Optional[Value] = None
    ran: bool = False
    error: Optional[str] = None


class LayerFacts(_Facts):
    """One weighted layer. `relevance` is its share of all layers' relevance; of its `filters`, `filters_kept` are left:
    none of a layer that went with its residual branch.

    `slowdown` is how many times as long it was predicted to take on LiteRT as with a byte a weight.
    """

    name: str
    kind: str = ""
    relevance: Optional[Share] = None
    weights: Optional[Count] = None
    bits: Optional[Bits] = None
    sparsity: Optional[Share] = None
    filters: Optional[Count] = None
    filters_kept: Optional[Count] = None
    flash_bytes: Optional[Count] = None
    storage: Optional[str] = None
    slowdown: Optional[Positive] = None


class ConfusionFacts(_Facts):
    """How many samples of a class are taken for the class `label`, and how many the original took for it."""

    label: Count
    samples: Count
    original_samples: Count


class ClassFacts(_Facts):
    """The samples of one class. `original_accuracy` is the Keras original's, `accuracy` the edge interpreter's."""

    label: Count
    samples: Count
    original_accuracy: Share
    accuracy: Share
    drop_pp: Annotated[float, Field(ge=-100, le=100)]
    explanation_similarity: Optional[Correlation] = None
    similarity: Optional[SimilarityFacts] = None
    confused_with: list[ConfusionFacts] = Field(default_factory=list)


class ShownFacts(_Facts):
    """A sample whose relevance is in explanations.npz; `similarity` is the rank correlation of both models' maps.

    For `cosine` and `top10` see `SimilarityFacts`.
    """

    sample: Count
    group: str
    truth: Optional[Count] = None
    original_answer: Optional[Count] = None
    answer: Optional[Count] = None
    similarity: Optional[Correlation] = None
    cosine: Optional[Correlation] = None
    top10: Optional[Share] = None


class ExplanationFacts(_Facts):
    """How explanations were compared: by which rule, over how many samples, from which output; and what is shown."""

    rule: str
    samples: Count
    target: str
    shown: list[ShownFacts] = Field(default_factory=list)


class RoundFacts(_Facts):
    """One round of planning and training: what was predicted, and what came out, on validation data.

    `similarity` of explanations is measured where it is limited.
    """

    predicted_flash_bytes: Optional[Count] = None
    flash_bytes: Optional[FileBytes] = None
    predicted_download_bytes: Optional[Count] = None
    download_bytes: Optional[FileBytes] = None
    held_back: Optional[Value] = None
    drop_pp: Optional[Value] = None
    similarity: Optional[Correlation] = None
    epochs: Optional[Count] = None
    seconds: Optional[Positive] = None


class EqualityFacts(_Facts):
    """How a file compared with the original, bit by bit, on one interpreter.

    `differing`, `unsteady` and `skipped` name cases, kinds of inputs: on which the outputs were not the same, on which those of
    the original are not the same twice, and on which it does not run.
    """

    version: Optional[str] = None
    equal: Optional[bool] = None
    samples: Optional[Count] = None
    outcomes: Optional[Count] = None
    differing: list[str] = Field(default_factory=list)
    unsteady: list[str] = Field(default_factory=list)
    skipped: list[str] = Field(default_factory=list)
    refused: Optional[str] = None


class SlimFacts(_Facts):
    """What `xaic slim` did to a .tflite file that was given: bytes by step, and the proof on every interpreter."""

    original_bytes: Optional[FileBytes] = None
    original_gzip_bytes: Optional[FileBytes] = None
    original_sha256: str = ""
    saved_bytes: dict[str, Difference] = Field(default_factory=dict)
    left_out: dict[str, str] = Field(default_factory=dict)
    proof: dict[str, EqualityFacts] = Field(default_factory=dict)


class Report(_Facts):
    """Everything that was measured of one compression; saved as report.json.

    >>> report = Report(recipe="auto", seed=3)
    >>> report.recipe, report.seed, report.warnings
    ('auto', 3, [])

    Attributes:
        schema_version: Version of this format (``schema`` in the file).
        xaic: Version of keras-xaic.
        recipe: Name of the recipe.
        recipe_entries: All of its entries as they were carried out, with the changes by options.
        seed: Seed of the run.
        versions: Package -> version that took part.
        model: The original before compression: parameters, multiply-accumulates, shapes.
        budget: What was asked for, in bytes, multiply-accumulates and points, and whether it was met.
        original: Metric values of the original, in Keras and on the edge interpreter.
        baselines: Recipe -> what it reached within the same budget.
        compressed: Bytes, metric values and multiply-accumulates of the compressed model.
        outputs: One entry per output, the one that lost most first. The other fields are about that one: the drop, and its
            limit, are those of the worst output.
        interpreters: Interpreter -> whether it ran the file, how well and how fast.
        layers: What every kernel got, in network order.
        reference: Which metric value of the original drops are measured against.
        judge: None in reports of older versions.
        task: Kind of the task (see `keras_xaic.metrics.Task`).
        metric: What every ``*_metric`` field holds; None where there are no targets. ``*_accuracy`` fields hold the same
            where it is accuracy, else null.
        classes: By class number; empty where nothing is classified.
        explanations: None where relevance maps could not be compared.
        rounds: What the driver of the recipe did, in order; empty for recipes without one.
        slim: What was done to a .tflite file without its model (`xaic slim`); None otherwise.
        sha256: Of the bundle's files that hold the model, by their path in the bundle.
        seconds: By step.
        verdict: The outcome in one or two sentences.
        warnings: What a user should know.
    """

    schema_version: Count = Field(default=SCHEMA, alias="schema")
    xaic: str = __version__
    recipe: str = ""
    recipe_entries: dict[str, Any] = Field(default_factory=dict)
    seed: Count = 0
    task: Optional[str] = None
    metric: Optional[MetricFacts] = Field(default_factory=MetricFacts)
    reference: Reference = "edge"
    judge: Optional[JudgeFacts] = None
    versions: dict[str, str] = Field(default_factory=dict)
    seconds: dict[str, Positive] = Field(default_factory=dict)
    model: ModelFacts = Field(default_factory=ModelFacts)
    budget: BudgetFacts = Field(default_factory=BudgetFacts)
    original: OriginalFacts = Field(default_factory=OriginalFacts)
    baselines: dict[str, BaselineFacts] = Field(default_factory=dict)
    compressed: CompressedFacts = Field(default_factory=CompressedFacts)
    outputs: list[OutputFacts] = Field(default_factory=list)
    interpreters: dict[str, InterpreterFacts] = Field(default_factory=dict)
    layers: list[LayerFacts] = Field(default_factory=list)
    classes: list[ClassFacts] = Field(default_factory=list)
    explanations: Optional[ExplanationFacts] = None
    rounds: list[RoundFacts] = Field(default_factory=list)
    slim: Optional[SlimFacts] = None
    sha256: dict[str, str] = Field(default_factory=dict)
    verdict: Optional[str] = None
    warnings: list[str] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, values: Any) -> Any:
        """Reads what version 1 called accuracy whatever the metric was."""
        if not isinstance(values, dict) or values.get("schema") != 1:
            return values
        name = values.get("metric", "accuracy")
        metric = METRICS.get(name) if isinstance(name, str) else None
        facts = metric.facts() if metric is not None else None if name is None else {"name": name}
        return {**_metrics_of(values), "schema": SCHEMA, "metric": facts}

    @field_validator("schema_version")
    @classmethod
    def _known_schema(cls, value: int) -> int:
        if value != SCHEMA:
            raise ValueError(f"version {value} is not known, this keras-xaic reads version {SCHEMA}")
        return value

    @model_validator(mode="after")
    def _metric_in_its_limits(self) -> Report:
        """Refuses metric values that a known metric cannot have; of others nothing is known."""
        known = METRICS.get(self.metric.name) if self.metric is not None else None
        if known is None:
            return self
        low, high = known.limits
        places: dict[str, Any] = {"original": self.original, "compressed": self.compressed}
        places |= {f"baselines.{name}": facts for name, facts in self.baselines.items()}
        places |= {f"interpreters.{name}": facts for name, facts in self.interpreters.items()}
        for place, facts in places.items():
            for key in ("edge_metric", "keras_metric", "metric"):
                value = getattr(facts, key, None)
                if isinstance(value, float) and not low <= value <= high:
                    raise ValueError(f"{place}.{key} is {value:.4g}, {known.name} is {low:g} to {high:g}")
        return self

    def __repr__(self) -> str:
        return f"<Report of {self.recipe!r}: {self.verdict or 'no verdict'}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """What notebooks show: the verdict, and original, compressed model and baselines side by side."""
        name = "metric" if self.metric is None else self.metric.name
        small = self.compressed
        rows: list[tuple[Any, ...]] = []
        rows.append(("original, float32", self.original.tflite_fp32_bytes, None, self.original.edge_metric))
        rows.append(("compressed", small.flash_bytes, small.download_bytes, small.edge_metric))
        rows += [(each, one.flash_bytes, one.download_bytes, one.edge_metric) for each, one in self.baselines.items()]
        cells = [
            [escape(who), *("" if size is None else f"{size:,}" for size in sizes), "" if value is None else f"{value:.4g}"]
            for who, *sizes, value in rows
        ]
        titles = "".join(f"<th>{one}</th>" for one in ("", "flash B", "download B", escape(name)))
        body = "".join("<tr>" + "".join(f"<td>{one}</td>" for one in row) + "</tr>" for row in cells)
        return f"<table><caption>{escape(self.verdict or self.recipe)}</caption><tr>{titles}</tr>{body}</table>"

    def to_json(self) -> str:
        """Returns the text of report.json."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    @checked(path=a_path)
    def save(self, path: PathLike) -> pathlib.Path:
        """Writes report.json atomically.

        Args:
            path: The file, or the directory it belongs in.

        Returns:
            The file.
        """
        file = a_place(_file(path))
        write_atomic(file, self.to_json())
        return file

    @classmethod
    @checked(path=a_path)
    def load(cls, path: PathLike) -> Report:
        """Reads report.json.

        Args:
            path: The file, or the bundle's directory.

        Raises:
            DataError: If it is missing, not JSON or not a report; names the key.
        """
        file = _file(path)
        content = read_json(file)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "the file"
            raise DataError(
                f"{file} is not a report: {key}: {first['msg']}", f"report.json of schema {SCHEMA}", "Run xaic again"
            ) from None


def _metrics_of(values: Any) -> Any:
    """Returns facts of version 1 with what its ``*accuracy`` fields held as ``*metric`` fields, too."""
    if not isinstance(values, dict):
        return values
    found = {key: _metrics_of(value) for key, value in values.items()}
    for old, new in (("keras_accuracy", "keras_metric"), ("edge_accuracy", "edge_metric"), ("accuracy", "metric")):
        if old in values and "label" not in values:
            found.setdefault(new, values[old])
    return found


def _file(path: PathLike) -> pathlib.Path:
    where = expanded(path)
    return where / "report.json" if where.is_dir() else where
