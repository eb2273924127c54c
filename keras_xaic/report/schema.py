"""report.json, schema version 2: every value that was measured, with its unit in its name."""

from __future__ import annotations

import math
import pathlib
from typing import Any, Literal, Optional

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from keras_xaic._version import __version__
from keras_xaic.errors import DataError
from keras_xaic.files import PathLike, write_atomic
from keras_xaic.json_files import read_json
from keras_xaic.metrics import METRICS

SCHEMA = 2
Reference = Literal["edge", "keras"]
"""Which metric value of the original drops are measured against: that of its float32 file on the edge interpreter, or where an
interpreter computes this file wrongly, that of the Keras model."""


class _Facts(BaseModel):
    """Measured values: more may be added, none may be NaN (what does not apply is null)."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        return None if isinstance(value, float) and not math.isfinite(value) else value

    @field_validator("*")
    @classmethod
    def _bounded(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("a whole number beyond 64 bits")
        return value


class MetricFacts(_Facts):
    """What ``*_metric`` fields hold (see `keras_xaic.metrics.Metric`)."""

    name: str = "accuracy"
    better: Literal["higher", "lower"] = "higher"
    unit: str = "1"


class ModelFacts(_Facts):
    """The model that came in."""

    name: str = ""
    parameters: Optional[int] = None
    weighted_layers: Optional[int] = None
    macs: Optional[int] = None


class BudgetFacts(_Facts):
    """What was asked for (null: no limit), and whether it was met.

    `max_drop_pp` is in percentage points, for errors (mse, mae, ...) in percent of the original's.
    """

    flash_bytes: Optional[int] = None
    download_bytes: Optional[int] = None
    ram_bytes: Optional[int] = None
    max_drop_pp: Optional[float] = None
    macs: Optional[int] = None
    met: Optional[bool] = None


class LatencyFacts(_Facts):
    """Milliseconds of one invocation after warm-up."""

    median: Optional[float] = None
    p90: Optional[float] = None
    threads: int = 1


class OriginalFacts(_Facts):
    """The model before compression."""

    keras_metric: Optional[float] = None
    keras_accuracy: Optional[float] = None
    tflite_fp32_bytes: Optional[int] = None
    tflite_fp32_gzip_bytes: Optional[int] = None
    edge_metric: Optional[float] = None
    edge_accuracy: Optional[float] = None
    latency_ms: dict[str, LatencyFacts] = Field(default_factory=dict)


class BaselineFacts(_Facts):
    """What a usual method gives for the same model and data."""

    flash_bytes: Optional[int] = None
    download_bytes: Optional[int] = None
    edge_metric: Optional[float] = None
    edge_accuracy: Optional[float] = None
    drop_pp: Optional[float] = None
    latency_ms: dict[str, LatencyFacts] = Field(default_factory=dict)


class CompressedFacts(_Facts):
    """The model after compression; `samples` is how many samples of which `part` of the data judged it."""

    keras_metric: Optional[float] = None
    keras_accuracy: Optional[float] = None
    edge_metric: Optional[float] = None
    edge_accuracy: Optional[float] = None
    drop_pp: Optional[float] = None
    flash_bytes: Optional[int] = None
    micro_flash_bytes: Optional[int] = None
    download_bytes: Optional[int] = None
    arena_bytes: Optional[int] = None
    sparsity: Optional[float] = None
    mean_bits: Optional[float] = None
    macs: Optional[int] = None
    latency_ms: dict[str, LatencyFacts] = Field(default_factory=dict)
    agreement: Optional[float] = None
    explanation_similarity: Optional[float] = None
    samples: Optional[int] = None
    part: Optional[str] = None


class JudgeFacts(_Facts):
    """The interpreter whose outputs are the metric values."""

    interpreter: str
    version: Optional[str] = None


class InterpreterFacts(_Facts):
    """One interpreter's answer."""

    version: Optional[str] = None
    accuracy: Optional[float] = None
    metric: Optional[float] = None
    ran: bool = False
    error: Optional[str] = None


class LayerFacts(_Facts):
    """One weighted layer. `relevance` is its share of all layers' relevance; of its `filters`, `filters_kept` are left."""

    name: str
    kind: str = ""
    relevance: Optional[float] = None
    weights: Optional[int] = None
    bits: Optional[float] = None
    sparsity: Optional[float] = None
    filters: Optional[int] = None
    filters_kept: Optional[int] = None
    flash_bytes: Optional[int] = None
    storage: Optional[str] = None


class ConfusionFacts(_Facts):
    """How many samples of a class are taken for the class `label`, and how many the original took for it."""

    label: int
    samples: int
    original_samples: int


class ClassFacts(_Facts):
    """The samples of one class. `original_accuracy` is the Keras original's, `accuracy` the edge interpreter's."""

    label: int
    samples: int
    original_accuracy: float
    accuracy: float
    drop_pp: float
    explanation_similarity: Optional[float] = None
    confused_with: list[ConfusionFacts] = Field(default_factory=list)


class ShownFacts(_Facts):
    """A sample whose relevance is in explanations.npz; `similarity` is the rank correlation of both models' maps."""

    sample: int
    group: str
    truth: Optional[int] = None
    original_answer: Optional[int] = None
    answer: Optional[int] = None
    similarity: Optional[float] = None


class ExplanationFacts(_Facts):
    """How explanations were compared: by which rule, over how many samples, from which output; and what is shown."""

    rule: str
    samples: int
    target: str
    shown: list[ShownFacts] = Field(default_factory=list)


class RoundFacts(_Facts):
    """One round of planning and training: what was predicted, and what came out, on validation data."""

    predicted_flash_bytes: Optional[int] = None
    flash_bytes: Optional[int] = None
    predicted_download_bytes: Optional[int] = None
    download_bytes: Optional[int] = None
    held_back: Optional[float] = None
    drop_pp: Optional[float] = None
    epochs: Optional[int] = None
    seconds: Optional[float] = None


class Report(_Facts):
    """Everything that was measured of one compression; saved as report.json.

    >>> report = Report(recipe="auto", seed=3)
    >>> report.recipe, report.seed, report.warnings
    ('auto', 3, [])

    Attributes:
        schema_version: Version of this format (``schema`` in the file).
        xaic: Version of keras-xaic.
        recipe: Name of the recipe.
        recipe_entries: All of its entries as they were carried out, those included that options changed.
        seed: Seed of the run.
        versions: Package -> version that took part.
        model: The original before compression: parameters, multiply-accumulates, shapes.
        budget: What was asked for, in bytes, multiply-accumulates and points, and whether it was met.
        original: Metric values of the original, in Keras and on the edge interpreter.
        baselines: Recipe -> what it reached within the same budget.
        compressed: Bytes, metric values and multiply-accumulates of the compressed model.
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
        sha256: Of the bundle's files, by their path in the bundle.
        seconds: By step.
        verdict: The outcome in one or two sentences.
        warnings: What a user should know.
    """

    schema_version: int = Field(default=SCHEMA, alias="schema")
    xaic: str = __version__
    recipe: str = ""
    recipe_entries: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    task: Optional[str] = None
    metric: Optional[MetricFacts] = Field(default_factory=MetricFacts)
    reference: Reference = "edge"
    judge: Optional[JudgeFacts] = None
    versions: dict[str, str] = Field(default_factory=dict)
    seconds: dict[str, float] = Field(default_factory=dict)
    model: ModelFacts = Field(default_factory=ModelFacts)
    budget: BudgetFacts = Field(default_factory=BudgetFacts)
    original: OriginalFacts = Field(default_factory=OriginalFacts)
    baselines: dict[str, BaselineFacts] = Field(default_factory=dict)
    compressed: CompressedFacts = Field(default_factory=CompressedFacts)
    interpreters: dict[str, InterpreterFacts] = Field(default_factory=dict)
    layers: list[LayerFacts] = Field(default_factory=list)
    classes: list[ClassFacts] = Field(default_factory=list)
    explanations: Optional[ExplanationFacts] = None
    rounds: list[RoundFacts] = Field(default_factory=list)
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

    def to_json(self) -> str:
        """Returns the text of report.json."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    def save(self, path: PathLike) -> pathlib.Path:
        """Writes report.json, whole or not at all.

        Args:
            path: The file, or the directory it belongs in.

        Returns:
            The file.
        """
        file = _file(path)
        write_atomic(file, self.to_json())
        return file

    @classmethod
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
    where = pathlib.Path(path)
    return where / "report.json" if where.is_dir() else where
