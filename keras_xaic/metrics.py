"""What a model does, and what its outputs are worth: tasks and metrics, from arrays alone.

A `Task` is decided once for a model and its data (see `keras_xaic.tasks`); training, the driver, the report, verification and
the check on the device all judge through it. This file needs nothing but numpy and also travels to the device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Callable, Literal, Optional, Union, get_args

import numpy as np

try:
    from keras_xaic.errors import DataError
except ImportError:  # on a device, where this file stands alone

    class DataError(ValueError):  # type: ignore[no-redef]
        """The data cannot be judged."""


class NoValue(DataError):
    """A metric has no value for some samples: an area under a curve of one class, a precision where nothing is predicted."""


EXACT = 1e-6
"""A squared error below this share of the variance of the targets is rounding: the targets are the model's outputs."""
TaskKind = Literal["classification", "binary", "multi-label", "segmentation", "regression", "reconstruction"]
KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
"""All kinds of tasks."""
Family = Literal["classes", "yes_no", "values"]
Better = Literal["higher", "lower"]
"""Which way a metric gets better."""
SHUFFLES = 8
"""Random orders of the targets that tell what chance gives."""
MANY_VALUES = 32
"""More values than this side by side are one signal, of which the mean over all counts; of fewer, each counts."""
IGNORED = -1
"""Class of positions that do not count."""
OWN_UNIT = "that of a function of your own"
"""The unit of metrics that are functions, or Keras objects, of the user's."""


@dataclass(frozen=True)
class Judged:
    """Outputs and targets of one task, brought into the form that metrics take.

    Attributes:
        scores: (M, classes) for classes, (M, labels) for outputs that say yes or no, (M, values) for values.
        truth: (M,) class numbers, (M, labels) of 0 and 1, or (M, values).
        chosen: What the outputs decide, shaped as `truth`; None for values.
    """

    scores: np.ndarray
    truth: np.ndarray
    chosen: Optional[np.ndarray]


@dataclass(frozen=True)
class Metric:
    """A named way to judge outputs.

    Attributes:
        name: As in ``--metric`` and report.json.
        function: What computes it: of `Judged`, or, if it is the user's own, of targets and outputs.
        tasks: Kinds of tasks that it judges.
        better: ``higher`` or ``lower``.
        unit: ``1``, or what the unit of the targets makes of it.
    """

    name: str
    function: Callable[..., float]
    tasks: tuple[TaskKind, ...]
    better: Better = "higher"
    unit: str = "1"

    @property
    def is_error(self) -> bool:
        """Whether it is an error without an upper bound."""
        return self.better == "lower"

    @property
    def is_own(self) -> bool:
        """Whether it is a function of the user's, of whose values nothing is known."""
        return self.unit == OWN_UNIT

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest value that it can have."""
        infinite = float("inf")
        if self.is_own:
            return -infinite, infinite
        return (0.0, infinite) if self.is_error else (-infinite if self.name == "r2" else 0.0, 1.0)

    @property
    def drop_unit(self) -> str:
        """The unit of drops: percentage points, or percent of the original's value where that may be any number."""
        return "%" if self.is_error or self.is_own else "pp"

    def drop(self, original: Optional[float], compressed: Optional[float]) -> Optional[float]:
        """Returns how much worse `compressed` is than `original`, in `drop_unit`; negative where it is better.

        None where a value is missing, and where something was lost of an original of 0, of which nothing is any percent.
        """
        if original is None or compressed is None:
            return None
        lost = compressed - original if self.is_error else original - compressed
        if not self.is_error and not self.is_own:
            return _told(lost * 100.0)
        if original != 0 and (self.is_own or original > 0):
            return _told(lost / abs(original) * 100.0)
        return 0.0 if lost <= 0 else None

    def facts(self) -> dict[str, str]:
        """Returns what report.json says about the metric."""
        return {"name": self.name, "better": self.better, "unit": self.unit}


def _told(drop: float) -> float:
    """Returns a drop without what floats add: 1.0 - 0.95 is a little more than 0.05, and no limit is missed by that."""
    return round(drop, 9)


def _accuracy(judged: Judged) -> float:
    return float(np.mean(judged.chosen == judged.truth))


def _top5(judged: Judged) -> float:
    own = np.take_along_axis(judged.scores, judged.truth[:, None], axis=1)
    return float(np.mean((judged.scores > own).sum(axis=1) < 5))


def _auc(judged: Judged) -> float:
    """Area under the ROC curve; of several classes or labels the mean over those of which both sides occur.

    The Mann-Whitney statistic with mid-ranks for ties (Fawcett 2006, "An introduction to ROC analysis", section 7).
    """
    scores, truth = judged.scores, judged.truth
    if truth.ndim == 1 and scores.shape[1] == 2:
        pairs = [(scores[:, 1] - scores[:, 0], truth == 1)]
    elif truth.ndim == 1:
        pairs = [(scores[:, one], truth == one) for one in np.unique(truth)]
    else:
        pairs = [(scores[:, one], truth[:, one] == 1) for one in range(scores.shape[1])]
    areas = [_binary_auc(score, positive) for score, positive in pairs if 0 < positive.sum() < len(positive)]
    if not areas:
        raise NoValue("auc: all targets are of one class", "at least one sample of each class")
    return float(np.mean(areas))


def _binary_auc(score: np.ndarray, positive: np.ndarray) -> float:
    ones, zeros = int(positive.sum()), int((~positive).sum())
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse.reshape(-1)]
    return float((ranks[positive].sum() - ones * (ones + 1) / 2.0) / (ones * zeros))


def _overlaps(judged: Judged) -> np.ndarray:
    """(classes or labels, 2): true positives, and false positives and negatives together; of classes only those that occur."""
    chosen, truth = np.asarray(judged.chosen), judged.truth
    if truth.ndim > 1:
        counts = [((chosen == 1) & (truth == 1)).sum(axis=0), (chosen != truth).sum(axis=0)]
        return np.asarray(np.stack(counts, axis=1), float)
    classes = int(max(chosen.max(), truth.max())) + 1
    hits = np.bincount(truth[chosen == truth], minlength=classes)
    both = np.bincount(truth, minlength=classes) + np.bincount(chosen, minlength=classes)
    return np.asarray(np.stack([hits, both - 2 * hits], axis=1)[both > 0], float)


def _f1(judged: Judged) -> float:
    """2 TP / (2 TP + FP + FN): of class 1 where there are two, else the unweighted mean over classes or labels."""
    if judged.truth.ndim == 1 and judged.scores.shape[1] == 2:
        yes = (judged.truth == 1)[:, None].astype(int), (np.asarray(judged.chosen) == 1)[:, None].astype(int)
        judged = Judged(judged.scores, *yes)
    hits, wrong = _overlaps(judged).T
    return float(np.mean(np.divide(2 * hits, 2 * hits + wrong, out=np.zeros_like(hits), where=2 * hits + wrong > 0)))


def _mean_iou(judged: Judged) -> float:
    """TP / (TP + FP + FN), counted over all samples together, as a mean over the classes that occur."""
    if judged.truth.ndim > 1:  # one output that says yes or no: the background is a class, too
        judged = Judged(judged.scores, judged.truth.reshape(-1), np.asarray(judged.chosen).reshape(-1))
    hits, wrong = _overlaps(judged).T
    return float(np.mean(hits / (hits + wrong)))


def _mse(judged: Judged) -> float:
    return float(np.mean(np.square(judged.scores - judged.truth)))


def _mae(judged: Judged) -> float:
    return float(np.mean(np.abs(judged.scores - judged.truth)))


def _r2(judged: Judged) -> float:
    """1 - squared error / variance of the targets, as a mean over outputs; a constant target is worth 1 if met, else 0."""
    left = np.square(judged.scores - judged.truth).sum(axis=0)
    all_ = np.square(judged.truth - judged.truth.mean(axis=0)).sum(axis=0)
    ratio = np.divide(left, all_, out=(left > 0).astype(float), where=all_ > 0)
    return float(np.mean(1.0 - ratio))


CLASSES: tuple[TaskKind, ...] = ("classification", "binary", "segmentation")
VALUES: tuple[TaskKind, ...] = ("regression", "reconstruction")
METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        one.name: one
        for one in (
            Metric("accuracy", _accuracy, ("classification", "binary")),
            Metric("top5", _top5, ("classification",)),
            Metric("auc", _auc, ("classification", "binary", "multi-label")),
            Metric("f1", _f1, (*CLASSES, "multi-label")),
            Metric("label_accuracy", _accuracy, ("multi-label",)),
            Metric("mean_iou", _mean_iou, ("segmentation",)),
            Metric("pixel_accuracy", _accuracy, ("segmentation",)),
            Metric("mae", _mae, VALUES, "lower", "unit of the targets"),
            Metric("mse", _mse, VALUES, "lower", "unit of the targets, squared"),
            Metric("rmse", lambda judged: _mse(judged) ** 0.5, VALUES, "lower", "unit of the targets"),
            Metric("r2", _r2, VALUES),
        )
    }
)
DEFAULT: Mapping[TaskKind, str] = MappingProxyType(
    {
        "classification": "accuracy",
        "binary": "accuracy",
        "multi-label": "label_accuracy",
        "segmentation": "mean_iou",
        "regression": "mse",
        "reconstruction": "mse",
    }
)
"""Kind of task -> its metric where none is asked for."""
_ALSO = {
    "acc": "accuracy",
    "top1": "accuracy",
    "categoricalaccuracy": "accuracy",
    "sparsecategoricalaccuracy": "accuracy",
    "binaryaccuracy": "label_accuracy",
    "topkcategoricalaccuracy": "top5",
    "sparsetopkcategoricalaccuracy": "top5",
    "f1score": "f1",
    "iou": "mean_iou",
    "miou": "mean_iou",
    "onehotmeaniou": "mean_iou",
    "meansquarederror": "mse",
    "meanabsoluteerror": "mae",
    "rootmeansquarederror": "rmse",
    "r2score": "r2",
    **{name.replace("_", ""): name for name in METRICS},
}
"""Other names, those of Keras among them, in small letters -> name of the metric."""


def plain_name(name: str) -> str:
    """Returns a name without what does not matter in names of metrics: capitals, hyphens and underscores."""
    return name.lower().replace("-", "").replace("_", "")


def get_metric(name: Union[str, Metric]) -> Metric:
    """Returns the metric called `name`, as here or as in Keras; hyphens, underscores and capitals do not matter.

    One that is a `Metric` already is given back.

    >>> get_metric("mean_squared_error").name, get_metric("SparseCategoricalAccuracy").name
    ('mse', 'accuracy')

    Raises:
        DataError: If there is none.
    """
    if isinstance(name, Metric):
        return name
    found = _ALSO.get(plain_name(str(name)))
    if found is None:
        raise DataError(f"metric {name!r} is not known", ", ".join(METRICS))
    return METRICS[found]


def metric_of(name: str, kind: TaskKind, outputs: int) -> Metric:
    """Returns the metric called `name` for a task: the accuracy of labels and positions has a name of its own.

    Args:
        name: See `get_metric`; empty: the task's usual one.
        kind: Of the task.
        outputs: Size of the last axis.

    Raises:
        DataError: If it does not judge the task.
    """
    metric = get_metric(name or DEFAULT[kind])
    same: dict[str, dict[TaskKind, str]] = {
        "accuracy": {"multi-label": "label_accuracy", "segmentation": "pixel_accuracy"},
        "label_accuracy": {"binary": "accuracy", **({"segmentation": "pixel_accuracy"} if outputs == 1 else {})},
    }
    metric = METRICS[same.get(metric.name, {}).get(kind, metric.name)]
    if kind not in metric.tasks:
        fitting = ", ".join(one.name for one in METRICS.values() if kind in one.tasks)
        raise DataError(f"metric {metric.name} does not judge the task {kind}", f"one of {fitting}")
    return metric


@dataclass(frozen=True)
class Task:
    """What one output of a model does, and how it is judged.

    Attributes:
        kind: ``classification`` (one class per sample), ``binary`` (one output, yes or no), ``multi-label`` (several outputs,
            each yes or no), ``segmentation`` (a class per position), ``regression`` or ``reconstruction`` (of the input).
        outputs: Size of the last axis where outputs are decisions, else the number of values per sample.
        activation: What the output ends in: ``softmax``, ``sigmoid``, ``linear``, ...
        metric_name: Name of the metric; empty: the task's usual one.
        own: The metric, where it is a function of the user's: `metric_name` is its name.
        missing: Name of a function of the user's that judged, and that is not here: another metric judges in its place.
        first: What the user calls class 0, where data has shown it (see `keras_xaic.tasks.first_class`).
    """

    kind: TaskKind
    outputs: int
    activation: str = "linear"
    metric_name: str = ""
    own: Optional[Metric] = None
    missing: str = ""
    first: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"task {self.kind!r} is not known", ", ".join(KINDS))
        if self.outputs < 1:
            raise DataError(f"a task with {self.outputs} outputs", "at least one")
        if self.own is not None:
            object.__setattr__(self, "metric_name", self.own.name)
            return
        metric = metric_of(self.metric_name, self.kind, self.outputs)
        if metric.name == "top5" and self.outputs <= 5:
            raise DataError(f"top5 of a model with {self.outputs} classes is always 1", "more than 5 classes, or accuracy")
        object.__setattr__(self, "metric_name", metric.name)

    @property
    def metric(self) -> Metric:
        """What judges."""
        return self.own or METRICS[self.metric_name]

    def judged_by(self, metric: Union[str, Metric]) -> Task:
        """Returns the same with another metric: one of the user's own, or a name, empty for the task's usual one."""
        own = metric if isinstance(metric, Metric) and metric.is_own else None
        name = metric.name if isinstance(metric, Metric) else metric
        return replace(self, metric_name=name, own=own, missing="")

    def own_metrics(self) -> Any:
        """Returns what files cannot say of how it judges: the user's own function, or None."""
        return self.own

    @property
    def logits(self) -> bool:
        """Whether decisions come as logits: neither softmax nor sigmoid ends the model."""
        return not self.is_values and self.activation not in ("softmax", "sigmoid")

    @property
    def is_values(self) -> bool:
        """Whether outputs are values, not decisions."""
        return self.kind in VALUES

    def counts_each(self, width: int) -> bool:
        """Whether each of `width` values that stand side by side counts by itself, and not the mean over all alone."""
        return self.kind == "regression" and 1 < width <= MANY_VALUES

    @property
    def classifies(self) -> bool:
        """Whether each sample as a whole gets one class."""
        return self.kind in ("classification", "binary")

    @property
    def family(self) -> Family:
        """How outputs are read: ``classes`` that exclude each other, ``yes_no`` for each output by itself, or ``values``."""
        if self.is_values:
            return "values"
        return "yes_no" if self.kind in ("binary", "multi-label") or self.outputs == 1 else "classes"

    @property
    def loss_family(self) -> Family:
        """How outputs are trained: as `family`, but classes that end in a sigmoid each for itself."""
        return "yes_no" if self.family == "classes" and self.activation == "sigmoid" else self.family

    def decisions(self, outputs: np.ndarray) -> Optional[np.ndarray]:
        """Returns what outputs decide, int64: (N,) classes, (N, labels) of 0 and 1, (N, ...) per position; None for values."""
        outputs = np.asarray(outputs)
        if self.is_values:
            return None
        if self.family == "classes":
            return np.asarray(outputs.argmax(axis=-1))
        yes = (outputs > (0.0 if self.logits else 0.5)).astype(np.int64)
        return yes if self.kind == "multi-label" else yes.reshape(yes.shape[:-1] if yes.ndim > 1 else yes.shape)

    def truth(self, targets: np.ndarray, outputs_shape: tuple[int, ...]) -> np.ndarray:
        """Returns targets in the form of `decisions`, or as values.

        Args:
            targets: (N, ...) as the user has them: class numbers, one-hot, 0 and 1, or values.
            outputs_shape: (N, ...) of the outputs that they belong to.

        Raises:
            DataError: If they do not belong together.
        """
        targets, shape = np.asarray(targets), tuple(outputs_shape)
        if self.family == "values" or self.kind == "multi-label":
            wanted = shape
        elif self.family == "classes" and targets.shape == shape:
            return np.asarray(targets.argmax(axis=-1))
        else:
            wanted = shape[:-1] if len(shape) > 1 else shape
        if len(targets) != shape[0] or targets.size != int(np.prod(wanted)):
            raise DataError(
                f"{self.metric_name} of outputs {shape} and targets {targets.shape}", f"targets for the task {self.kind}"
            )
        targets = targets.reshape(wanted)
        if self.family == "values":
            return targets.astype(np.float64)
        return (targets > 0.5).astype(np.int64) if self.family == "yes_no" else targets.astype(np.int64)

    @property
    def ignores(self) -> bool:
        """Whether positions may be left out, by the class `IGNORED`."""
        return self.kind == "segmentation" and self.family == "classes"

    def score(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """Returns the metric of outputs (N, ...) against targets (N, ...).

        Raises:
            DataError: If the two do not belong together.
        """
        outputs = np.asarray(outputs)
        if len(outputs) != len(targets) or len(outputs) == 0:
            raise DataError(f"{self.metric_name} of {len(outputs)} outputs and {len(targets)} targets", "one target per output")
        truth = self.truth(targets, outputs.shape)
        if self.own is not None:
            return self.own.function(np.asarray(targets), outputs)
        return self.metric.function(self._judged(outputs, truth))

    def _judged(self, outputs: np.ndarray, truth: np.ndarray) -> Judged:
        if self.is_values:
            return Judged(outputs.reshape(len(outputs), -1).astype(np.float64), truth.reshape(len(outputs), -1), None)
        width = self.outputs if self.family == "classes" or self.kind == "multi-label" else 1
        if outputs.size % width or (width > 1 and outputs.shape[-1] != width):
            raise DataError(f"outputs of shape {outputs.shape}", f"{width} values, as the task {self.kind} says")
        decisions = np.asarray(self.decisions(outputs))
        if self.family == "classes":
            scores, truth, decisions = outputs.reshape(-1, width), truth.reshape(-1), decisions.reshape(-1)
            counts = truth != IGNORED
            if counts.all():
                return Judged(scores, truth, decisions)
            if not counts.any():
                raise DataError(f"{self.metric_name}: all positions have class {IGNORED}", "some that count")
            return Judged(scores[counts], truth[counts], decisions[counts])
        return Judged(outputs.reshape(-1, width), truth.reshape(-1, width), decisions.reshape(-1, width))

    def shown(self, value: Optional[float]) -> Optional[float]:
        """Returns a metric value as it is; of several outputs it would be one of them."""
        return value

    def value(self, outputs: np.ndarray, samples: Any) -> Optional[float]:
        """Returns the metric of outputs against the targets of `samples`; None where they have none."""
        return None if samples.y is None else self.score(outputs, samples.y)

    def goodness(self, outputs: np.ndarray, samples: Any) -> float:
        """Returns the metric as a number that is better the higher it is; NaN without targets.

        One of the user's own that has no value for these outputs, though it may for others, is worse than any.
        """
        try:
            value = self.value(outputs, samples)
        except NoValue:
            if self.own is None:
                raise
            return -math.inf
        return float("nan") if value is None else -value if self.metric.is_error else value

    def drop(self, original: Optional[float], compressed: Optional[float], targets: Any = None) -> Optional[float]:
        """Returns how much worse `compressed` is than `original`, both values of the metric, in the unit of ``--max-drop``.

        Args:
            original: Of the original.
            compressed: Of the compressed model.
            targets: What both were judged on. Where the original has no error but rounding - its own outputs are the targets -
                the error of the best constant is the measure.
        """
        lost = self.metric.drop(original, compressed)
        if original is None or compressed is None or targets is None or self.own or not self.metric.is_error:
            return lost
        constant = self.constant_error(targets)
        if original > constant * (EXACT if self.metric_name == "mse" else EXACT**0.5):
            return lost
        return _told(100.0 * (compressed - original) / max(constant, 1e-30))

    def agreement(self, outputs: np.ndarray, reference: np.ndarray) -> Optional[float]:
        """Returns the share of decisions that are the same in `outputs` and `reference`; None for values.

        Raises:
            DataError: If the shapes differ.
        """
        outputs, reference = np.asarray(outputs), np.asarray(reference)
        if outputs.shape != reference.shape or len(outputs) == 0:
            raise DataError(f"agreement of outputs {outputs.shape} and reference {reference.shape}", "arrays of one shape")
        if self.is_values:
            return None
        return float(np.mean(self.decisions(outputs) == self.decisions(reference)))

    def labelled(self, samples: Any, answers: np.ndarray) -> Any:
        """Returns the samples with targets: their own, else what `answers`, the outputs of a model on them, decide."""
        if samples.y is not None:
            return samples
        decisions = self.decisions(answers)
        return replace(samples, y=answers if decisions is None else decisions)

    def explained(self, samples: Any) -> Literal["true", "predicted", "all"]:
        """Returns where attributions start: the true class, the predicted one without labels, else all outputs."""
        if not self.classifies:
            return "all"
        return "true" if samples.y is not None else "predicted"

    def doubt(self, outputs: np.ndarray, targets: np.ndarray, whose: str = "The original model's") -> Optional[str]:
        """Returns a warning where outputs are worth no more than chance: targets and outputs may not fit; else None.

        `whose` they are begins it.

        Decisions are compared with what they are worth against the same targets in random order, values with the error of the
        best constant.
        """
        if self.own is not None:  # of its values nothing is known
            usual = self.judged_by("").doubt(outputs, targets, whose)
            return usual or self._wrong_way(outputs, np.asarray(targets), whose)
        value, name = self.score(outputs, targets), self.metric_name
        if self.is_values:
            limit = 0.0 if name == "r2" else self.constant_error(targets)
            if (value > limit) if name == "r2" else (value < limit or limit == 0.0):
                return None
            than = f"the best constant gives {limit:.4g}"
        else:
            random, targets = np.random.default_rng(0), np.asarray(targets)
            by_chance = [self.score(outputs, targets[random.permutation(len(targets))]) for _ in range(SHUFFLES)]
            middle, most = float(np.mean(by_chance)), 1.0
            if value > middle + min(2 * float(np.std(by_chance)), (most - middle) / 2):
                return None
            same = np.ptp(self.truth(targets, np.shape(outputs)).reshape(len(targets), -1), axis=0).max() == 0
            if same and value > 0:  # targets that are all alike say nothing about chance
                return None
            than = f"targets in random order give {middle:.4g}"
        return (
            f"{whose} {name} is {value:.4g}, no better than chance ({than}). "
            "Do the targets and the scaling of the inputs fit the model, and is the task right?"
        )

    def _wrong_way(self, outputs: np.ndarray, targets: np.ndarray, whose: str) -> Optional[str]:
        """Returns a warning where the user's own metric is better with targets in random order."""
        value, random = self.score(outputs, targets), np.random.default_rng(0)
        middle = float(np.mean([self.score(outputs, targets[random.permutation(len(targets))]) for _ in range(SHUFFLES)]))
        if not (value > middle if self.metric.is_error else value < middle):
            return None
        better, other = ("lower", "higher") if self.metric.is_error else ("higher", "lower")
        return (
            f"{whose} {self.metric_name} is {value:.4g}, targets in random order give {middle:.4g}, and {better} "
            f"counts as better. If {other} is better, say so: an attribute of the function, better = {other!r}."
        )

    def constant_error(self, targets: np.ndarray) -> float:
        """Returns the error of the best constant in the task's metric (in mse where that is no error)."""
        values = np.asarray(targets, np.float64).reshape(len(targets), -1)
        if self.metric_name == "mae":
            return float(np.mean(np.abs(values - np.median(values, axis=0))))
        spread = float(np.mean(values.var(axis=0)))
        return spread**0.5 if self.metric_name == "rmse" else spread

    def facts(self) -> dict[str, Any]:
        """Returns the task as plain values, for report.json and the check kit."""
        facts = {"task": self.kind, "metric": self.metric.facts(), "outputs": self.outputs, "activation": self.activation}
        return {**facts, "first": self.first} if self.first else facts

    @classmethod
    def of(cls, facts: Any) -> Optional[Task]:
        """Returns the task that `facts` described; None where they describe none."""
        try:
            name, own = facts["metric"]["name"], facts["metric"].get("unit") == OWN_UNIT
            missing = str(name) if own else ""
            what = facts["task"], int(facts["outputs"]), str(facts["activation"])
            return cls(*what, "" if own else name, missing=missing, first=int(facts.get("first", 0)))
        except (AttributeError, KeyError, TypeError, ValueError, DataError):
            return None
