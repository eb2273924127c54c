"""Metrics as users ask for them: by name, as they are in `keras.metrics`, or as functions of their own."""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np

from keras_xaic.arguments import shown
from keras_xaic.errors import DataError, PlanError, XaicError, XaicWarning, choices
from keras_xaic.metrics import KINDS, METRICS, OWN_UNIT, Better, Metric, NoValue, get_metric
from keras_xaic.output_tasks import said_of_outputs

KEPT: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "auc": {"curve": ("ROC",)},
    "f1": {"threshold": (None, 0.5), "average": (None, "macro")},
    "r2": {"class_aggregation": ("uniform_average",), "num_regressors": (0,)},
    "mean_iou": {"ignore_class": (None,)},
    "top5": {"k": (5,)},
    "label_accuracy": {"threshold": (0.5,)},
}
"""Metric -> what a metric of Keras must be set to, to be the same."""


WORSE_HIGHER = frozenset(
    re.findall(
        r"\w+", "error loss cost distance deviation divergence entropy crossentropy perplexity hinge poisson mse mae rmse mape"
    )
)
"""Words in names of metrics that are better the lower they are."""


def metric_names(given: object) -> Any:
    """Returns what is said of metrics with names in place of those of Keras that are the same as ours.

    Other metrics and functions of the user's become a `Metric` of their own.

    Args:
        given: A metric, a mapping from outputs to metrics, or ``OUTPUT=METRIC,...``; None stays None.

    Raises:
        PlanError: If there is no such metric here.
    """
    if isinstance(given, Mapping):
        return {name: _metric(one) for name, one in given.items()}
    if given is None or (isinstance(given, str) and "=" in given):
        for one in said_of_outputs(given):
            _metric(one)
        return given
    return _metric(given)


def _metric(given: Any) -> Union[str, Metric]:
    """Returns the name of a metric that is a name, or a class, an instance or a function of Keras; others as they are.

    Raises:
        PlanError: If there is no such metric.
    """
    if isinstance(given, (list, tuple)) and len(given) == 1:
        given = given[0]
    if isinstance(given, Metric):
        return given
    if isinstance(given, str):
        try:
            return get_metric(given).name
        except DataError as error:
            raise PlanError(error.found, choices(given, METRICS)) from None
    if not callable(given) and not hasattr(given, "update_state"):
        several = ", or a mapping from outputs to metrics" if isinstance(given, (list, tuple)) else ""
        expected = (
            f"one metric, by its name, as it is in keras.metrics or a function of your own{several}: {', '.join(METRICS)}"
        )
        raise PlanError(f"metric is {shown(given)}", expected)
    if type(given).__name__ == "MeanMetricWrapper":
        return _metric(given._fn)
    return _usual(given) or _own(given)


def _usual(given: Any) -> Optional[str]:
    """Returns the name of the metric here that is the same as a metric of Keras; None where none is."""
    named = given if hasattr(given, "__name__") else type(given)
    if not str(getattr(named, "__module__", "")).startswith(("keras.", "tf_keras.", "tensorflow.")):
        return None
    try:
        found = get_metric(named.__name__).name
    except DataError:
        return None
    config = given.get_config() if hasattr(given, "get_config") and not isinstance(given, type) else {}
    same = all(config.get(key, values[0]) in values for key, values in KEPT.get(found, {}).items())
    return found if same else None


def _own(given: Any) -> Metric:
    """Returns the metric that a function of targets and outputs, or an object with `update_state` and `result`, is.

    It is better the higher it is, unless its attribute ``better`` says ``lower``, or a word in its name does.

    Raises:
        PlanError: If it is a class that cannot be made without arguments, or takes something else than two arguments.
    """
    if isinstance(given, type):
        try:
            given = given()
        except Exception as error:
            raise PlanError(f"metric is {shown(given)}, and making one failed: {error}", "an object of it") from None
    keeps = hasattr(given, "update_state") and hasattr(given, "result")
    if not keeps:
        try:
            inspect.signature(given).bind(None, None)
        except TypeError:
            raise PlanError(f"metric is {shown(given)}", "a function of two arguments: targets and outputs") from None
        except ValueError:  # of native code nothing is known
            pass
    function = getattr(given, "func", given)  # functools.partial
    own = getattr(given, "name", None) if keeps else None
    name = re.sub(r"\W+", "_", str(own or getattr(function, "__name__", type(function).__name__))).strip("_")
    both = f"{name} {type(given).__name__}" if keeps else name
    words = set(re.split(r"[\W_\d]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", both).lower()))
    said = getattr(given, "better", None) or getattr(given, "_direction", None)
    if said is None and ".losses" in str(getattr(function, "__module__", "")):  # of Keras
        said = "lower"
    better: Better = "lower" if said in ("lower", "down") or (said is None and words & WORSE_HIGHER) else "higher"
    try:
        get_metric(name)
        name = f"own_{name}"
    except DataError:
        pass
    return Metric(name, OwnFunction(name, given), KINDS, better, OWN_UNIT)


@dataclass(frozen=True)
class OwnFunction:
    """A function of the user's, or an object with `update_state` and `result`, that judges outputs.

    Attributes:
        name: For messages.
        given: The function or the object.
    """

    name: str
    given: Any

    def __call__(self, targets: np.ndarray, outputs: np.ndarray) -> float:
        """Returns its value.

        Args:
            targets: As the user has them; numbers beside outputs of shape (N, ..., 1) get that shape, as in `fit`.
            outputs: As the model gives them.

        Raises:
            DataError: If it fails, or gives no number.
        """
        if outputs.shape == (*targets.shape, 1):
            targets = targets.reshape(outputs.shape)
        try:
            value = self._of_object(targets, outputs) if hasattr(self.given, "update_state") else self._of(targets, outputs)
            number = float(np.mean(np.asarray(value, np.float64)))
        except XaicError:
            raise
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            found = f"metric {self.name} failed on targets {targets.shape} of {targets.dtype} and outputs {outputs.shape}"
            expected = "a function of targets and outputs that returns a number"
            raise DataError(f"{found}: {type(error).__name__}: {lines[0][:200]}", expected) from error
        if not np.isfinite(number):
            found, fix = (
                f"metric {self.name} is {number} of {len(targets)} samples",
                "Return a number for whatever a model gives",
            )
            raise NoValue(found, "a finite number", fix)
        return number

    def _of(self, targets: np.ndarray, outputs: np.ndarray) -> Any:
        """Calls the function with arrays, or, where it is made for them alone, with tensors, as Keras does."""
        try:
            return self.given(targets, outputs)
        except Exception:
            try:
                tf = importlib.import_module("keras_xaic._keras").tf  # commands that need no TensorFlow read this file, too
                return self.given(tf.constant(targets, tf.float32), tf.constant(outputs, tf.float32))
            except Exception:
                pass
            raise

    def _of_object(self, targets: np.ndarray, outputs: np.ndarray) -> Any:
        """Asks the object, and leaves it as it was."""
        before = [np.array(one) for one in getattr(self.given, "variables", [])]
        reset = getattr(self.given, "reset_state", None) or self.given.reset_states
        try:
            reset()
            self.given.update_state(targets, outputs)
            return self.given.result()
        finally:
            reset()
            for variable, value in zip(getattr(self.given, "variables", []), before):
                variable.assign(value)


def value_if_any(task: Any, outputs: Any, samples: Any) -> Any:
    """Returns a task's metric value, as `Task.value` does; None, and a warning, where one of the user's own has none.

    What took hours to make is not lost because nothing can be said of how good it is.
    """
    try:
        return task.value(outputs, samples)
    except NoValue as error:
        if task.own_metrics() is None:
            raise
        warnings.warn(str(error), XaicWarning, stacklevel=2)
        return None
