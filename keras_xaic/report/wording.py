"""Figures and outcomes in words: the same in the console and on the page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

from keras_xaic.metrics import get_metric
from keras_xaic.report.schema import LatencyFacts, Report
from keras_xaic.units import format_size

NONE = "-"
ALIKE_PP = 0.4
"""Accuracies closer than this many points are called alike, on however many samples they were measured."""


@dataclass(frozen=True)
class Row:
    """One line of the comparison: a quantity, and its value for each model."""

    label: str
    values: tuple[str, ...]


def size(value: Optional[int]) -> str:
    """Returns bytes in words."""
    return NONE if value is None else format_size(value)


def score(value: Optional[float], metric: Optional[str]) -> str:
    """Returns a metric: percent for those in [0, 1], four digits for mse."""
    if value is None:
        return NONE
    return f"{value:.4g}" if metric == "mse" else f"{100 * value:.2f} %"


def points(value: Optional[float], metric: Optional[str]) -> str:
    """Returns a drop, negative where it is a gain: percentage points, or percent of the original's mse."""
    if value is None:
        return NONE
    value = 0.0 if abs(value) < 0.005 else value  # no "-0.00"
    return f"{value:.2f} {'%' if metric == 'mse' else 'pp'}"


def share(value: Optional[float]) -> str:
    """Returns a share in percent."""
    return NONE if value is None else f"{100 * value:.1f} %"


def number(value: Optional[float], digits: int = 0) -> str:
    """Returns a number with thousands separated."""
    return NONE if value is None else f"{value:,.{digits}f}"


def milliseconds(latency: Optional[LatencyFacts]) -> str:
    """Returns the median."""
    return NONE if latency is None or latency.median is None else f"{latency.median:.3g} ms"


def metric_name(report: Report) -> str:
    """Returns the name of what the ``*accuracy`` fields hold."""
    return report.metric or "accuracy"


def columns(report: Report) -> tuple[str, ...]:
    """Returns the compared models: the original, every baseline, the compressed one."""
    return ("original", *report.baselines, report.recipe or "compressed")


def rows(report: Report) -> list[Row]:
    """Returns the comparison; quantities that nobody has are left out."""
    original, small, metric = report.original, report.compressed, report.metric
    baselines = list(report.baselines.values())
    blank = [NONE] * len(baselines)
    table = [
        Row(
            "flash (model.tflite)",
            (size(original.tflite_fp32_bytes), *(size(b.flash_bytes) for b in baselines), size(small.flash_bytes)),
        ),
        Row("flash (micro)", (NONE, *blank, size(small.micro_flash_bytes))),
        Row(
            "download",
            (size(original.tflite_fp32_gzip_bytes), *(size(b.download_bytes) for b in baselines), size(small.download_bytes)),
        ),
        Row(
            f"{metric_name(report)} (edge)",
            (
                score(original.edge_accuracy, metric),
                *(score(b.edge_accuracy, metric) for b in baselines),
                score(small.edge_accuracy, metric),
            ),
        ),
        Row(
            f"{metric_name(report)} (Keras)",
            (score(original.keras_accuracy, metric), *blank, score(small.keras_accuracy, metric)),
        ),
        Row(
            "drop", (NONE, *(points(drop_of(report, name), metric) for name in report.baselines), points(small.drop_pp, metric))
        ),
        Row("agreement with the original", (NONE, *blank, share(small.agreement))),
        Row("similarity of explanations", (NONE, *blank, number(small.explanation_similarity, 3))),
        Row("RAM (TFLite Micro arena)", (NONE, *blank, size(small.arena_bytes))),
        Row("zeros among the weights", (NONE, *blank, share(small.sparsity))),
        Row("bits per weight", (NONE, *blank, number(small.mean_bits, 2))),
        Row("multiplications (MACs)", (number(report.model.macs), *blank, number(small.macs))),
    ]
    for interpreter, latency in small.latency_ms.items():
        label = f"latency ({interpreter}, {latency.threads} thread{'s' if latency.threads != 1 else ''})"
        table.append(
            Row(
                label,
                (
                    milliseconds(original.latency_ms.get(interpreter)),
                    *(milliseconds(b.latency_ms.get(interpreter)) for b in baselines),
                    milliseconds(latency),
                ),
            )
        )
    return [row for row in table if any(value != NONE for value in row.values)]


def drop_of(report: Report, baseline: str) -> Optional[float]:
    """Returns how much a baseline loses against the original, as `drop_pp` of the compressed model."""
    metric = get_metric(metric_name(report))
    return metric.drop_pp(report.original.edge_accuracy, report.baselines[baseline].edge_accuracy)


def budget_misses(report: Report) -> list[str]:
    """Returns one phrase for each budget that was not met."""
    budget, small = report.budget, report.compressed
    misses = []
    for what, limit, value in (
        ("flash", budget.flash_bytes, small.flash_bytes),
        ("download", budget.download_bytes, small.download_bytes),
        ("RAM", budget.ram_bytes, small.arena_bytes),
    ):
        if limit is None:
            continue
        if value is None:  # what nobody measured cannot count as kept
            misses.append(f"{what} was not measured, the budget is {size(limit)}")
        elif value > limit:
            misses.append(f"{what} is {size(value)}, the budget {size(limit)}")
    if budget.macs is not None and small.macs is not None and small.macs > budget.macs:
        misses.append(f"multiply-accumulates are {small.macs:,}, the budget {budget.macs:,}")
    if budget.max_drop_pp is not None and small.drop_pp is not None and small.drop_pp > budget.max_drop_pp:
        misses.append(f"{metric_name(report)} drops by {small.drop_pp:.2f}, at most {budget.max_drop_pp:g} was allowed")
    return misses


def verdict(report: Report) -> str:
    """Returns the outcome in plain words, honest about what the baselines do as well."""
    small, original = report.compressed, report.original
    parts = [f"{size(small.flash_bytes)} of flash"]
    if small.flash_bytes and original.tflite_fp32_bytes:
        parts[0] += f", {original.tflite_fp32_bytes / small.flash_bytes:.1f} times smaller than the original"
    if small.edge_accuracy is not None:
        parts.append(f"{metric_name(report)} {score(small.edge_accuracy, report.metric)} on the edge interpreter")
        if small.drop_pp is not None:
            parts[-1] += f" (drop {points(small.drop_pp, report.metric)})"
    elif small.agreement is not None:
        parts.append(f"{share(small.agreement)} agreement with the original")
    sentences = [", ".join(parts)]
    misses = budget_misses(report)
    if misses:
        sentences.append("Budget not met: " + "; ".join(misses))
    sentences += [s for s in (_against(report, name) for name in report.baselines) if s]
    return ". ".join(sentences) + "."


def _against(report: Report, name: str) -> Optional[str]:
    """Compares with a baseline that is not larger: there it has to earn its place."""
    baseline, small = report.baselines[name], report.compressed
    if None in (baseline.flash_bytes, small.flash_bytes, baseline.edge_accuracy, small.edge_accuracy):
        return None
    assert baseline.flash_bytes is not None
    assert small.flash_bytes is not None
    gain = get_metric(metric_name(report)).drop_pp(small.edge_accuracy, baseline.edge_accuracy)
    if gain is None:
        return None
    unit = "%" if report.metric == "mse" else "points"
    ratio = baseline.flash_bytes / small.flash_bytes
    where = "at the same size" if 0.98 <= ratio <= 1.02 else f"at {ratio:.2f} times the size"
    alike = _alike(report)
    if abs(gain) <= alike:
        quality = "is as accurate"
    else:
        quality = f"is {abs(gain):.1f} {unit} {'worse' if gain > 0 else 'better'}"
    plain = " - relevance did not help on this model" if name == "magnitude" and ratio <= 1.02 and gain < alike else ""
    return f"Baseline {name} {quality} {where}{plain}"


def _alike(report: Report) -> float:
    """Returns the difference in points below which two accuracies are alike: 1.5 standard errors, sqrt(2 p (1-p) / n) each."""
    accuracy, samples = report.compressed.edge_accuracy, report.compressed.samples
    if report.metric == "mse" or accuracy is None or not samples:
        return ALIKE_PP
    return max(ALIKE_PP, 150 * math.sqrt(2 * accuracy * (1 - accuracy) / samples))
