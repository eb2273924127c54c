"""What a model's outputs are worth: accuracy, agreement, mse, auc and f1, from arrays alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Callable, Optional

import numpy as np

from keras_xaic.errors import DataError


@dataclass(frozen=True)
class Metric:
    """A named way to judge outputs.

    Attributes:
        name: As in ``--metric`` and report.json.
        function: ``(outputs, targets) -> value``.
        higher_is_better: Whether more is better.
    """

    name: str
    function: Callable[[np.ndarray, np.ndarray], float]
    higher_is_better: bool = True

    def __call__(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """Returns the metric of `outputs` against `targets`.

        Args:
            outputs: (N, ...) what the model said, float.
            targets: (N, ...) what is right.

        Raises:
            DataError: If the two do not belong together.
        """
        outputs, targets = np.asarray(outputs), np.asarray(targets)
        if len(outputs) != len(targets) or len(outputs) == 0:
            raise DataError(f"{self.name} of {len(outputs)} outputs and {len(targets)} targets", "one target per output")
        return self.function(outputs, targets)

    def drop_pp(self, original: Optional[float], compressed: Optional[float]) -> Optional[float]:
        """Returns how much worse `compressed` is; see `drop_pp`."""
        if original is None or compressed is None:
            return None
        if self.higher_is_better:
            return (original - compressed) * 100.0
        return (compressed - original) / original * 100.0 if original > 0 else None


def accuracy(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Returns the share of right top-1 answers.

    Args:
        outputs: (N, ..., classes) scores, or (N,) / (N, 1) one score per sample of a binary classifier: a probability, or a
            logit where any score lies outside [0, 1].
        targets: (N, ...) integer labels, or one-hot labels of the outputs' shape.

    Raises:
        DataError: If the shapes do not belong together.
    """
    answers = classes_of(outputs)
    return float(np.mean(answers == _labels(targets, outputs, answers, "accuracy")))


def agreement(outputs: np.ndarray, reference: np.ndarray) -> float:
    """Returns the share of samples on which `outputs` and `reference` choose the same class.

    Args:
        outputs: (N, ..., classes) or (N,) / (N, 1) scores.
        reference: Scores of the original, same shape.

    Raises:
        DataError: If the shapes differ.
    """
    outputs, reference = np.asarray(outputs), np.asarray(reference)
    if outputs.shape != reference.shape or len(outputs) == 0:
        raise DataError(f"agreement of outputs {outputs.shape} and reference {reference.shape}", "arrays of one shape")
    return float(np.mean(classes_of(outputs) == classes_of(reference)))


def mse(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Returns the mean squared error over all samples and values.

    Raises:
        DataError: If outputs and targets do not hold equally many values.
    """
    outputs, targets = np.asarray(outputs), np.asarray(targets)
    if outputs.size != targets.size:
        raise DataError(f"mse of outputs {outputs.shape} and targets {targets.shape}", "arrays of one shape")
    return float(np.mean(np.square(outputs.astype(np.float64) - targets.reshape(outputs.shape))))


def auc(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Returns the area under the ROC curve; with more than two classes the mean over one-versus-rest.

    Computed as the Mann-Whitney statistic with mid-ranks for ties (Fawcett 2006, "An introduction to ROC analysis", section 7).

    Args:
        outputs: (N,) or (N, 1) scores of the positive class, or (N, classes) scores.
        targets: (N,) integer labels or (N, classes) one-hot labels.

    Raises:
        DataError: If fewer than two classes occur in `targets`.
    """
    outputs = np.asarray(outputs)
    labels = _labels(targets, outputs, classes_of(outputs), "auc")
    if outputs.ndim > 1 and outputs.shape[-1] > 2:
        present = np.unique(labels)
        return float(np.mean([_binary_auc(outputs[:, c], labels == c) for c in present]))
    score = outputs[:, 1] if outputs.ndim > 1 and outputs.shape[-1] == 2 else outputs.reshape(-1)
    return _binary_auc(score, labels == 1)


def f1(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Returns 2 TP / (2 TP + FP + FN) of class 1; with more than two classes the unweighted mean over classes (macro F1).

    Args:
        outputs: (N,) or (N, 1) scores of the positive class, or (N, classes) scores.
        targets: (N,) integer labels or (N, classes) one-hot labels.
    """
    outputs = np.asarray(outputs)
    answers = classes_of(outputs)
    labels = _labels(targets, outputs, answers, "f1")
    many = outputs.ndim > 1 and outputs.shape[-1] > 2
    classes = np.union1d(labels, answers) if many else np.array([1])
    scores = []
    for c in classes:
        hits = np.sum((answers == c) & (labels == c))
        wrong = np.sum((answers == c) != (labels == c))
        scores.append(2.0 * hits / (2.0 * hits + wrong) if hits + wrong else 0.0)
    return float(np.mean(scores))


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "accuracy": Metric("accuracy", accuracy),
        "auc": Metric("auc", auc),
        "f1": Metric("f1", f1),
        "mse": Metric("mse", mse, higher_is_better=False),
    }
)


def get_metric(name: str) -> Metric:
    """Returns the metric called `name`.

    Raises:
        DataError: If there is none.
    """
    if name not in METRICS:
        raise DataError(f"metric {name!r} is not known", ", ".join(METRICS))
    return METRICS[name]


def default_metric(targets: Optional[np.ndarray]) -> Optional[str]:
    """Returns ``accuracy`` for integer or one-hot labels, ``mse`` for other targets and None without targets."""
    if targets is None:
        return None
    targets = np.asarray(targets)
    if np.issubdtype(targets.dtype, np.integer) or targets.dtype == bool:
        return "accuracy"
    one_hot = targets.ndim > 1 and targets.shape[-1] > 1 and np.all((targets == 0) | (targets == 1))
    return "accuracy" if one_hot and np.all(targets.sum(axis=-1) == 1) else "mse"


def drop_pp(original: Optional[float], compressed: Optional[float], metric: str = "accuracy") -> Optional[float]:
    """Returns how much worse `compressed` is than `original`; negative where it is better.

    Args:
        original: Metric of the original model.
        compressed: Metric of the compressed model.
        metric: Name of the metric.

    Returns:
        Percentage points for metrics in [0, 1]; for mse, which has no upper bound, the increase in percent of the original's.
        None where either figure is missing.
    """
    return get_metric(metric).drop_pp(original, compressed)


def classes_of(outputs: np.ndarray) -> np.ndarray:
    """Returns the chosen classes, int64: the arg-max of the last axis, or the side of the threshold of a single score.

    Args:
        outputs: (N, ..., classes), or (N,) / (N, 1) single scores, where the threshold is 0 if any score lies outside [0, 1]
            (logits) and 0.5 otherwise (probabilities).
    """
    outputs = np.asarray(outputs)
    if outputs.ndim > 1 and outputs.shape[-1] > 1:
        return outputs.argmax(axis=-1)
    scores = outputs.reshape(len(outputs), -1)[:, 0] if outputs.ndim <= 2 else outputs[..., 0]
    is_logit = bool(np.any((scores < 0) | (scores > 1)))
    return (scores > (0.0 if is_logit else 0.5)).astype(np.int64)


def _labels(targets: np.ndarray, outputs: np.ndarray, answers: np.ndarray, name: str) -> np.ndarray:
    targets = np.asarray(targets)
    if targets.shape == np.shape(outputs) and np.ndim(outputs) > 1 and targets.shape[-1] > 1:
        return targets.argmax(axis=-1)
    if targets.size != answers.size:
        raise DataError(
            f"{name} of outputs {np.shape(outputs)} and targets {targets.shape}",
            f"integer labels {answers.shape} or one-hot labels of the outputs' shape",
        )
    return targets.reshape(answers.shape).astype(np.int64)


def _binary_auc(score: np.ndarray, positive: np.ndarray) -> float:
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if ones == 0 or zeros == 0:
        raise DataError("auc: all targets are of one class", "at least one sample of each class")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2.0)[inverse.reshape(-1)]
    return float((ranks[positive].sum() - ones * (ones + 1) / 2.0) / (ones * zeros))
