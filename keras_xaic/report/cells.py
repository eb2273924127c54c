"""Values in words that remember which entry of report.json they come from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Optional

from pydantic import BaseModel

from keras_xaic.metrics import METRICS, Metric
from keras_xaic.report.schema import LatencyFacts, MetricFacts, Report
from keras_xaic.units import format_milliseconds, format_size

NONE = "-"


class Cell(str):
    """A text with the JSON Pointer (RFC 6901) of the entry that it words, so that a page can be checked against report.json.

    Attributes:
        pointer: For example ``/compressed/flash_bytes``; empty where the text words no single entry.
        value: That entry.
    """

    pointer: str = ""
    value: Any = None


def cell(report: Report, pointer: str, form: Callable[[Any], str]) -> Cell:
    """Returns the entry at `pointer` in the words of `form`."""
    value = look_up(report, pointer)
    made = Cell(form(value))
    if value is not None:
        made.pointer, made.value = pointer, value.median if isinstance(value, LatencyFacts) else value
        made.pointer += "/median" if isinstance(value, LatencyFacts) else ""
    return made


def escaped(key: str) -> str:
    """Returns a key as part of a JSON Pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def look_up(report: Report, pointer: str) -> Any:
    """Returns the entry at a JSON Pointer; None where a part of the way is missing."""
    found: Any = report
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, BaseModel):
            found = getattr(found, part, None)
        elif isinstance(found, list):
            found = found[int(part)] if int(part) < len(found) else None
        else:
            found = found.get(part) if isinstance(found, dict) else None
    return found


def text(value: object) -> str:
    """Returns a value as it is."""
    return NONE if value is None or value == "" else str(value)


def size(value: Optional[int]) -> str:
    """Returns bytes in words."""
    return NONE if value is None else format_size(value)


def score(value: Optional[float], metric: Optional[MetricFacts]) -> str:
    """Returns a metric value: percent for those in [0, 1], four digits for others."""
    if value is None:
        return NONE
    return f"{100 * value:.2f} %" if in_percent(metric) else f"{value:.4g}"


def in_percent(metric: Optional[MetricFacts]) -> bool:
    """Returns whether values of the metric are shown in percent: those from 0 to 1."""
    return metric is None or (metric.better == "higher" and metric.unit == "1" and metric.name != "r2")


def points(value: Optional[float], metric: Optional[MetricFacts]) -> str:
    """Returns a drop, negative where it is a gain: percentage points, or percent of the original's error.

    Without a metric it is in percent of the variance of the original's outputs.
    """
    if value is None:
        return NONE
    value = 0.0 if abs(value) < 0.005 else value  # no "-0.00"
    return f"{value:.2f} {drop_unit(metric)}"


def drop_unit(metric: Optional[MetricFacts]) -> str:
    """Returns the unit of drops."""
    return "%" if metric is None else _told(metric).drop_unit


def share(value: Optional[float]) -> str:
    """Returns a share in percent."""
    return NONE if value is None else f"{100 * value:.1f} %"


def number(value: Optional[float], digits: int = 0) -> str:
    """Returns a number with thousands separated."""
    return NONE if value is None else f"{value:,.{digits}f}"


def decimal(value: Optional[float]) -> str:
    """Returns a number with two decimals, never "-0.00"."""
    return NONE if value is None else f"{value + 0.0 if abs(value) >= 0.005 else 0.0:.2f}"


def significant(value: Optional[float]) -> str:
    """Returns a number with three significant digits, larger ones whole."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def milliseconds(latency: Optional[LatencyFacts]) -> str:
    """Returns the median."""
    return NONE if latency is None or latency.median is None else format_milliseconds(latency.median)


def slowdown(times: Optional[float]) -> str:
    """Returns how many times as long a layer takes as with a byte a weight."""
    return NONE if times is None else f"{times:.1f}x"


def metric_name(report: Report) -> str:
    """Returns the name of what the ``*_metric`` fields hold, and of which of several outputs."""
    if report.metric is None:
        return "accuracy"
    return report.metric.name.replace("_", " ") + (f" of {report.metric.output}" if report.metric.output else "")


def known_metric(name: Optional[str]) -> Optional[MetricFacts]:
    """Returns what is known of a metric of an output; None where there is none."""
    if name is None:
        return None
    return MetricFacts.model_validate(METRICS[name].facts()) if name in METRICS else MetricFacts(name=name)


def metric_of(report: Report) -> Metric:
    """Returns the metric; one that is not known here only says in which direction it is better."""
    facts = report.metric or MetricFacts()
    return METRICS.get(facts.name, _told(facts))


def _told(facts: MetricFacts) -> Metric:
    """Returns a metric that computes nothing, and says in which direction it is better."""
    return Metric(facts.name, lambda judged: float("nan"), (), facts.better, facts.unit)


def drop_of(report: Report, baseline: str) -> Optional[float]:
    """Returns how much a baseline loses against the original, as `drop_pp` of the compressed model."""
    facts = report.baselines[baseline]
    if facts.drop_pp is not None:
        return facts.drop_pp
    return metric_of(report).drop(look_up(report, reference_pointer(report)), facts.edge_metric)


def reference_pointer(report: Report) -> str:
    """Returns where the metric value of the original is that drops are measured against."""
    return f"/original/{report.reference}_metric"
