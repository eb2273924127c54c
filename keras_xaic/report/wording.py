"""Values and outcomes in words: the same in the console and on the page."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from keras_xaic.arguments import an, checked
from keras_xaic.metrics import METRICS
from keras_xaic.report.cells import (
    NONE,
    Cell,
    cell,
    decimal,
    drop_of,
    drop_unit,
    escaped,
    known_metric,
    look_up,
    metric_name,
    metric_of,
    milliseconds,
    number,
    points,
    reference_pointer,
    score,
    share,
    size,
    text,
)
from keras_xaic.report.schema import Report
from keras_xaic.units import format_bytes, format_milliseconds, format_size

NOISE = 0.05
"""A time counts as kept if it is longer by no more than this share: two measurements of one file differ by as much."""
ALIKE_PP = 0.4
"""Accuracies closer than this many points are called alike, on however many samples they were measured."""

PACKED = 1.25
"""A layer is slow because it is packed if it takes more than this multiple of its time in plain int8."""
UNLIKE = 0.7
"""Below this rank correlation of relevance maps, explanations are worth a look."""
CONTROL = "auto-magnitude"
"""The baseline that differs from `auto` in nothing but relevance."""


@dataclass(frozen=True)
class Row:
    """One line of the comparison: a quantity, and its value for each model."""

    label: str
    values: tuple[Cell, ...]


def columns(report: Report) -> tuple[str, ...]:
    """Returns the compared models: the original, every baseline, the compressed one."""
    return ("original", *report.baselines, report.recipe or "compressed")


def rows(report: Report) -> list[Row]:
    """Returns the comparison; quantities that nobody has are left out."""
    scored = functools.partial(score, metric=report.metric)
    dropped = functools.partial(points, metric=report.metric)
    baselines, metric = list(report.baselines), metric_name(report)

    def row(label: str, form: Callable[[Any], str], original: str, baseline: str, compressed: str) -> Row:
        places = [original and f"/original/{original}"]
        places += [baseline and f"/baselines/{name}/{baseline}" for name in baselines]
        places += [f"/compressed/{compressed}"]
        return Row(label, tuple(cell(report, place, form) if place else Cell(NONE) for place in places))

    drops = row("drop", dropped, "", "drop_pp", "drop_pp")
    worked = [own if own != NONE else Cell(dropped(drop_of(report, name))) for name, own in zip(baselines, drops.values[1:])]
    table = [
        row("flash (model.tflite)", size, "tflite_fp32_bytes", "flash_bytes", "flash_bytes"),
        row("... of it conversion of inputs and outputs", size, "", "", "io_bytes"),
        row("... of it metadata", size, "", "", "metadata_bytes"),
        row("flash (micro)", size, "", "", "micro_flash_bytes"),
        row("download", size, "tflite_fp32_gzip_bytes", "download_bytes", "download_bytes"),
        row(f"{metric} (edge)", scored, "edge_metric", "edge_metric", "edge_metric"),
        row(f"{metric} (Keras)", scored, "keras_metric", "keras_metric", "keras_metric"),
        Row(
            "drop" if report.reference == "edge" else "drop (against the Keras original)",
            (drops.values[0], *worked, drops.values[-1]),
        ),
        row("agreement with the original", share, "", "", "agreement"),
        row("similarity of explanations", decimal, "", "", "explanation_similarity"),
        row("... by the cosine of relevance maps", decimal, "", "", "similarity/cosine"),
        row("... by their most relevant tenth", share, "", "", "similarity/top10"),
        row("... by what taking parts away does", decimal, "", "", "similarity/held_out"),
        row("RAM (TFLite Micro arena)", size, "", "", "arena_bytes"),
        row("zeros among the weights", share, "", "", "sparsity"),
        row("bits per weight", decimal, "", "", "mean_bits"),
        Row("multiplications (MACs)", (cell(report, "/model/macs", number), *row("", number, "", "", "macs").values[1:])),
    ]
    for interpreter, latency in report.compressed.latency_ms.items():
        label = f"latency ({interpreter}, {latency.threads} thread{'s' if latency.threads != 1 else ''})"
        table.append(row(label, milliseconds, *[f"latency_ms/{interpreter}"] * 3))
        table.append(row(f"computed by its delegate ({interpreter})", share, *[f"latency_ms/{interpreter}/delegated_macs"] * 3))
        table.append(row(f"latency, times int8's ({interpreter})", decimal, *[f"latency_ms/{interpreter}/ratio_to_int8"] * 3))
    return [row for row in table if any(value != NONE for value in row.values)]


def output_columns(report: Report) -> tuple[str, ...]:
    """Returns the columns of the table of outputs."""
    return ("output", "task", "metric", "original", *report.baselines, report.recipe or "compressed", "drop", "agreement")


def output_rows(report: Report) -> list[Row]:
    """Returns one row per output, the one that lost most first; empty where there is one output only."""
    if len(report.outputs) < 2:
        return []
    found = []
    for place, one in enumerate(report.outputs):
        metric, here = known_metric(one.metric), f"/outputs/{place}"
        scored = functools.partial(score, metric=metric)
        values = [cell(report, f"{here}/{name}", form) for name, form in (("task", text), ("metric", text))]
        values.append(cell(report, f"{here}/original", scored))
        for name in report.baselines:
            values.append(cell(report, f"{here}/baselines/{escaped(name)}", scored))
        values.append(cell(report, f"{here}/compressed", scored))
        values.append(cell(report, f"{here}/drop", functools.partial(points, metric=metric)))
        values.append(cell(report, f"{here}/agreement", share))
        found.append(Row(one.name, tuple(values)))
    return found


@checked(report=an(Report))
def budget_misses(report: Report) -> list[str]:
    """Returns one phrase for each budget that was not met."""
    return [miss for _, miss in _limits(report) if miss is not None]


def budget_kept(report: Report) -> list[str]:
    """Returns the names of the limits that were kept."""
    return list(dict.fromkeys(name for name, miss in _limits(report) if miss is None))


def _limits(report: Report) -> list[tuple[str, Optional[str]]]:
    """Returns for each limit its name, and what is to say if it was not kept."""
    budget, small = report.budget, report.compressed
    found: list[tuple[str, Optional[str]]] = []
    for what, limit, value in (
        ("flash", budget.flash_bytes, small.flash_bytes),
        ("download", budget.download_bytes, small.download_bytes),
        ("RAM", budget.ram_bytes, small.arena_bytes),
    ):
        if limit is None:
            continue
        if value is None:  # what nobody measured cannot count as kept
            found.append((what, f"{what} was not measured, the budget is {size(limit)}"))
        else:
            found.append((what, f"{what} is {_beside(value, limit)}" if value > limit else None))
    if budget.macs is not None and small.macs is not None:
        said = f"multiply-accumulates are {number(small.macs)}, the budget {number(budget.macs)}"
        found.append(("multiply-accumulates", said if small.macs > budget.macs else None))
    found += [("time", late) for late in _late(report)]
    least, similarity = budget.min_similarity, small.explanation_similarity
    if least is not None and similarity is None:
        found.append(("explanations", f"similarity of explanations could not be measured, at least {least:g} was asked for"))
    elif least is not None and similarity is not None:
        said = f"similarity of explanations is {decimals(similarity, least)}, at least {least:g} was asked for"
        found.append(("explanations", said if similarity < least else None))
    limit_pp = budget.max_drop_pp
    if limit_pp is None:
        return found
    if report.metric is None and small.agreement is not None:  # without labels the original is right
        lost = METRICS["accuracy"].drop(1.0, small.agreement)
        kept = f"{decimals(100 * small.agreement, 100 - limit_pp, 1)} %, at least {100 - limit_pp:g} % was asked for"
        said = f"agreement with the original is {kept}"
        found.append(("agreement", said if lost is not None and lost > limit_pp else None))
    what, unit = "agreement of values" if report.metric is None else metric_name(report), drop_unit(report.metric)
    allowed = f"at most {limit_pp:g} {unit} was allowed"
    if small.drop_pp is not None:
        said = f"{what} drops by {decimals(small.drop_pp, limit_pp)} {unit}, {allowed}"
        found.append((what, said if small.drop_pp > limit_pp else None))
    elif small.edge_metric is not None:  # what nobody can tell cannot count as kept either
        values = [score(one, report.metric) for one in (small.edge_metric, look_up(report, reference_pointer(report)))]
        said = f"{what} is {values[0]}, the original's {values[1]}, of which no drop in {unit} can be told: {allowed}"
        found.append((what, said))
    elif report.metric is not None or small.agreement is None:
        found.append((what, f"{what} was not measured, {allowed}"))
    return found


def _beside(value: int, limit: int) -> str:
    """Returns bytes and their limit, to the byte where they are alike in larger units."""
    texts = [format_size(one) for one in (value, limit)]
    texts = texts if texts[0] != texts[1] else [format_bytes(one) for one in (value, limit)]
    return f"{texts[0]}, the budget {texts[1]}"


def decimals(value: float, limit: float, least: int = 2) -> str:
    """Returns a value with as many decimals, at least `least`, as show on which side of a limit it is.

    >>> decimals(0.71, 0.9), decimals(0.8997, 0.9), decimals(1.002, 1.0)
    ('0.71', '0.8997', '1.002')
    """
    texts = [f"{value:.{digits}f}" for digits in range(least, 10)]
    return next((text for text in texts if np.sign(float(text) - limit) == np.sign(value - limit)), f"{value:g}")


def reasons_kept(report: Report) -> Optional[str]:
    """Returns how similar explanations are beside the limit; None where there is none, or nothing was measured."""
    least, found = report.budget.min_similarity, report.compressed.explanation_similarity
    if least is None or found is None:
        return None
    return f"similarity of explanations {decimals(found, least)} (at least {least:g})"


def time_taken(report: Report) -> Optional[str]:
    """Returns how fast the file is where time is limited, beside the limits; None where it is not, or was not measured."""
    budget = report.budget
    timed = report.compressed.latency_ms.get(budget.timed_on or "")
    if timed is None or timed.median is None:
        return None
    of_latency = "" if budget.latency_ms is None else f" (at most {format_milliseconds(budget.latency_ms)})"
    said = f"{format_milliseconds(timed.median)}{of_latency} on {budget.timed_on}"
    if timed.ratio_to_int8 is not None:
        of_ratio = "" if budget.max_slowdown is None else f" (at most {budget.max_slowdown:g})"
        said += f", {timed.ratio_to_int8:.2f} times plain int8's time{of_ratio}"
    return said


def _late(report: Report) -> list[Optional[str]]:
    """Returns for each limit of time what is to say if it was not kept, by the file as it was measured."""
    budget = report.budget
    found: list[Optional[str]] = []
    timed = report.compressed.latency_ms.get(budget.timed_on or "")
    on = f"on {budget.timed_on}" if budget.timed_on else "anywhere"
    if budget.latency_ms is not None:
        asked, taken = f"the budget {format_milliseconds(budget.latency_ms)}", None if timed is None else timed.median
        if taken is None:
            found.append(f"latency was not measured {on}, {asked}")
        else:
            said = f"latency is {format_milliseconds(taken)} {on}, {asked}"
            found.append(said if taken > budget.latency_ms * (1 + NOISE) else None)
    if budget.max_slowdown is not None:
        ratio = None if timed is None else timed.ratio_to_int8
        if ratio is None:
            found.append(f"time was not compared with plain int8's {on}, the budget is {budget.max_slowdown:g} times that")
        else:
            times = decimals(ratio, budget.max_slowdown)
            said = f"time is {times} times plain int8's {on}, the budget {budget.max_slowdown:g} times"
            found.append(said if ratio > budget.max_slowdown * (1 + NOISE) else None)
    return found


def needed(report: Report) -> Optional[str]:
    """Returns about how much flash, download or time, where that alone is limited, would keep the drop in its limit.

    Between this model and the smallest larger file that is accurate enough, the drop is taken to fall in proportion to the
    logarithm of the bytes; likewise of the time. None where nothing is needed, or nothing measured tells.
    """
    limit, small, budget = report.budget.max_drop_pp, report.compressed, report.budget
    if limit is None or small.drop_pp is None or not small.flash_bytes or small.drop_pp <= limit:
        return None
    if budget.latency_ms is None and budget.max_slowdown is None:
        loaded = budget.download_bytes is not None and budget.flash_bytes is None
        field, what = ("download_bytes", "to download") if loaded else ("flash_bytes", "of flash")
        others = [(getattr(one, field), drop_of(report, name), name) for name, one in report.baselines.items()]
        if report.reference == "edge":  # else its file is not accurate either
            original = report.original
            others.append((original.tflite_fp32_gzip_bytes if loaded else original.tflite_fp32_bytes, 0.0, "the original"))
        found = _between(getattr(small, field), small.drop_pp, limit, others)
        return found and f"Needed: more training, or about {size(round(found[0]))} {what} (between this model and {found[1]})"
    if (budget.flash_bytes, budget.download_bytes, budget.ram_bytes, budget.macs) != (None,) * 4:
        return "Needed: more training, more time, or more of what else is limited"
    timed = budget.timed_on or ""
    raced = {name: one.latency_ms.get(timed) for name, one in report.baselines.items()}
    ratios = [(one.ratio_to_int8, drop_of(report, name), name) for name, one in raced.items() if one is not None]
    own = small.latency_ms.get(timed)
    found = None if own is None else _between(own.ratio_to_int8, small.drop_pp, limit, ratios)
    if found is None:
        return "Needed: more training, or more time"
    return f"Needed: more training, or about {found[0]:.2f} times plain int8's time (between this model and {found[1]})"


def _least_download(report: Report) -> Optional[str]:
    """Returns the size of the smallest plan where even that is above the limit on the download; None where it is not."""
    limit = report.budget.download_bytes
    planned = [one.predicted_download_bytes for one in report.rounds if one.predicted_download_bytes]
    if limit is None or not planned or min(planned) <= limit or (report.compressed.download_bytes or 0) <= limit:
        return None
    return f"No plan within this recipe was smaller than {size(min(planned))} to download: raise that limit"


def _between(own: Optional[float], drop: float, limit: float, others: Sequence[Any]) -> Optional[tuple[float, str]]:
    """Returns what would do, and the name of the next one (amount, drop, name) of `others` that is larger and good enough."""
    enough = [one for one in others if own and one[0] and one[0] > own and one[1] is not None and one[1] <= limit]
    if not own or not enough:
        return None
    larger, lost, name = min(enough)
    return own * (larger / own) ** ((drop - limit) / (drop - lost)), name


@checked(report=an(Report))
def verdict(report: Report) -> str:
    """Returns the outcome in plain words, honest about what the baselines do as well."""
    small, original = report.compressed, report.original
    parts = [f"{size(small.flash_bytes)} of flash"]
    if small.flash_bytes and original.tflite_fp32_bytes:
        parts[0] += f", {original.tflite_fp32_bytes / small.flash_bytes:.1f} times smaller than the original"
    if small.edge_metric is not None:
        judge = report.judge.interpreter if report.judge is not None else "the edge interpreter"
        parts.append(f"{metric_name(report)} {score(small.edge_metric, report.metric)} on {judge}")
        if small.drop_pp is not None:
            against = "" if report.reference == "edge" else " against the Keras original"
            parts[-1] += f" (drop {points(small.drop_pp, report.metric)}{against})"
    elif small.agreement is not None:
        parts.append(f"{share(small.agreement)} agreement with the original")
    elif small.drop_pp is not None:
        parts.append(f"values that differ from the original's by {points(small.drop_pp, report.metric)} of their variance")
    sentences = [", ".join([*parts, *filter(None, [time_taken(report), reasons_kept(report)])])]
    misses = budget_misses(report)
    if misses:
        kept = f" (kept: {', '.join(budget_kept(report))})" if budget_kept(report) else ""
        sentences.append("Budget not met: " + "; ".join(misses) + kept)
        sentences += [s for s in (_least_download(report), needed(report)) if s]
    sentences += [s for s in (_against(report, name) for name in report.baselines) if s]
    return ". ".join(sentences) + "."


def _against(report: Report, name: str) -> Optional[str]:
    """Compares with a baseline that is not larger: there it has to earn its place."""
    baseline, small = report.baselines[name], report.compressed
    if None in (baseline.flash_bytes, small.flash_bytes, baseline.edge_metric, small.edge_metric):
        return None
    assert baseline.flash_bytes is not None
    assert small.flash_bytes is not None
    gain = metric_of(report).drop(small.edge_metric, baseline.edge_metric)
    if gain is None:
        return None
    unit = "%" if drop_unit(report.metric) == "%" else "points"
    ratio = baseline.flash_bytes / small.flash_bytes
    where = "at the same size" if 0.98 <= ratio <= 1.02 else f"at {ratio:.2f} times the size"
    alike = _alike(report)
    if abs(gain) <= alike:
        quality = "is as accurate"
    else:
        quality = f"is {abs(gain):.1f} {unit} {'worse' if gain > 0 else 'better'}"
    helped = "helped" if gain > alike else "did not help"
    if name == CONTROL:
        return f"The same method without relevance {quality} {where} - relevance {helped} on this model"
    plain = f" - relevance {helped} on this model" if name == "magnitude" and ratio <= 1.02 and gain < alike else ""
    return f"Baseline {name} {quality} {where}{plain}"


def next_steps(report: Report) -> list[str]:
    """Returns what to do next, as far as something that was measured asks for it; the check on the device always."""
    small, steps = report.compressed, []
    if needed(report) is not None:
        steps.append("Train longer, or raise the limit to about what the verdict says.")
    elif budget_misses(report):
        steps.append("Raise the limit that was missed, or allow a larger drop: the verdict says which limit, and by how much.")
    better = next((name for name in report.baselines if name != CONTROL and _is_better(report, name)), None)
    if better is not None:
        steps.append(f"Take the recipe {better}: it is better here, and no larger.")
    if report.metric is None and small.agreement is not None:
        steps.append("Give labels of test data: agreement says how often the class stayed the same, not how often it is right.")
    if small.part == "train":
        steps.append("Give test data: the model may have learned from the samples that judged it.")
    if any(one.drop_pp > max(0.0, small.drop_pp or 0.0) + _doubt(one.accuracy, one.samples) for one in report.classes):
        steps.append("Look at the classes: at least one lost more than the mean says, and more than chance explains.")
    if any(layer.slowdown is not None and layer.slowdown > PACKED for layer in report.layers):
        steps.append("If time matters, give more flash: some layers are packed, which takes time; their table says which.")
    if small.explanation_similarity is not None and small.explanation_similarity < UNLIKE:
        steps.append("Look at the samples that are explained least alike: the model decides by other parts of the input now.")
    if any(not one.ran and one.error for one in report.interpreters.values()):
        steps.append("An interpreter did not run the file: if you deploy on it, read its message.")
    return [*steps, "Copy check/ and model.tflite to the device, and run check/edge_check.py there."]


def _is_better(report: Report, name: str) -> bool:
    """Whether a baseline is no larger and more accurate, by more than chance explains."""
    baseline, small = report.baselines[name], report.compressed
    if not baseline.flash_bytes or not small.flash_bytes or baseline.edge_metric is None or small.edge_metric is None:
        return False
    gain = metric_of(report).drop(small.edge_metric, baseline.edge_metric)
    return gain is not None and gain < -_alike(report) and baseline.flash_bytes <= small.flash_bytes


def _doubt(accuracy: float, samples: int) -> float:
    """Returns points that an accuracy may be lower by chance: two standard errors of a difference."""
    return 200 * math.sqrt(2 * accuracy * (1 - accuracy) / samples) if samples else math.inf


def _alike(report: Report) -> float:
    """Returns the difference in points below which two accuracies are alike: 1.5 standard errors, sqrt(2 p (1-p) / n) each."""
    accuracy, samples = report.compressed.edge_accuracy, report.compressed.samples
    if accuracy is None or not samples:
        return ALIKE_PP
    return max(ALIKE_PP, 150 * math.sqrt(2 * accuracy * (1 - accuracy) / samples))
