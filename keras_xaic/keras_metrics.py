"""Metrics as users ask for them: by name, or as they are in `keras.metrics`, set so that they are the same as ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras_xaic.arguments import shown
from keras_xaic.errors import DataError, PlanError, choices
from keras_xaic.metrics import METRICS, get_metric
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


def metric_names(given: object) -> Any:
    """Returns what is said of metrics with names in place of the metrics of Keras.

    Args:
        given: A metric, a mapping from outputs to metrics, or ``OUTPUT=METRIC,...``; None stays None.

    Raises:
        PlanError: If there is no such metric here.
    """
    if isinstance(given, Mapping):
        return {name: _metric_name(one) for name, one in given.items()}
    if given is None or (isinstance(given, str) and "=" in given):
        for one in said_of_outputs(given):
            _metric_name(one)
        return given
    return _metric_name(given)


def _metric_name(given: Any) -> str:
    """Returns the name of a metric that is a name, or a class, an instance or a function of Keras.

    Raises:
        PlanError: If there is no such metric here.
    """
    if isinstance(given, (list, tuple)) and len(given) == 1:
        given = given[0]
    name = given
    if not isinstance(given, str):
        named = given if hasattr(given, "__name__") else type(given)
        if not str(getattr(named, "__module__", "")).startswith(("keras.", "tf_keras.", "tensorflow.")):
            several = ", or a mapping from outputs to metrics" if isinstance(given, (list, tuple)) else ""
            expected = f"one metric, by its name or as it is in keras.metrics{several}: {', '.join(METRICS)}"
            raise PlanError(f"metric is {shown(given)}", expected)
        name = named.__name__
        if name == "MeanMetricWrapper":
            return _metric_name(given._fn)
    try:
        found = get_metric(name).name
    except DataError as error:
        raise PlanError(error.found, choices(name, METRICS)) from None
    config = given.get_config() if hasattr(given, "get_config") and not isinstance(given, type) else {}
    for key, values in KEPT.get(found, {}).items():
        if config.get(key, values[0]) not in values:
            raise PlanError(f"metric is {name} with {key}={shown(config[key])}", f"{key}={values[0]!r}")
    return found
