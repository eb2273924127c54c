"""Puts what was measured into a report."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from keras_xaic.arguments import keyword_only
from keras_xaic.bundle import Bundle
from keras_xaic.compression import CompressedModel
from keras_xaic.data import Data
from keras_xaic.edge import REGISTRY, Agreement, Verification, checksums, speed_judge
from keras_xaic.keras_metrics import value_if_any
from keras_xaic.metrics import Task
from keras_xaic.models import weighted_kernels
from keras_xaic.models.costs import macs
from keras_xaic.models.kernels import other_weights
from keras_xaic.output_tasks import AnyTask, Tasks
from keras_xaic.pipeline.comparing import Changes
from keras_xaic.pipeline.output_table import OutputTable
from keras_xaic.pipeline.run_settings import RunSettings
from keras_xaic.planning.storages import SLOW, Activations
from keras_xaic.relevance import Relevance
from keras_xaic.report import Reference, Report, budget_misses, verdict
from keras_xaic.tflite import Added, measure_layers
from keras_xaic.training import predict
from keras_xaic.units import format_milliseconds

if TYPE_CHECKING:
    from keras_xaic._keras import Model

PACKAGES = ("tensorflow", "tf_keras", "tensorflow-model-optimization", "innvestigate", "numpy")
"""Whose versions a report holds, beside those of the interpreters that are installed."""
CONVERSION_GAP_PP = 2.0
"""Keras and the edge interpreter may differ by this many points before the report says so."""
MOST_DELEGATED = 0.99
"""Share of the multiply-adds from which on a delegate takes everything that matters."""
MUCH_UNPLANNED, NAMED = 0.2, 3
"""Share of the weights that plans do not reach from which on a report says so, and how many of their layers it names."""


@keyword_only(after=0)
@dataclass(frozen=True)
class Outcome:
    """What a run made, and what was measured of it.

    Attributes:
        original: The facts of the model that came in (see `Original`).
        reference: Whose metric value of the original counts.
        outputs: Of the original, and of the file on the interpreter that judges.
        small: The compressed model.
        bundle: Its bundle.
        added: Bytes of its file that are not what it computes.
        relevance: What it was made by; None for baselines.
        verification: What the interpreters made of the bundle.
        agreement: Interpreter -> how it agrees with Keras.
        arena_bytes: RAM on TensorFlow Lite Micro; None where it cannot have the model.
        changes: How outputs per class and explanations changed.
        raced: The bundle's latency, timed in turn with the other files (see `Job.race`).
    """

    original: Mapping[str, Any]
    reference: Reference
    outputs: tuple[Any, Any]
    small: CompressedModel
    bundle: Bundle
    added: Added
    relevance: Optional[Relevance]
    verification: Verification
    agreement: Mapping[str, Agreement]
    arena_bytes: Optional[int]
    changes: Changes
    raced: Mapping[str, Any]


def build_report(
    model: Model,
    data: Data,
    task: AnyTask,
    settings: RunSettings,
    outcome: Outcome,
    *,
    baselines: Mapping[str, Any],
    warnings: Sequence[str],
    seconds: Mapping[str, float],
    rounds: Sequence[Mapping[str, Any]],
) -> Report:
    """Returns the report of one run; every size in it is read from the file it speaks of.

    Args:
        model: The model that came in.
        data: Its data.
        task: What the model does.
        settings: What the run was to do.
        outcome: What came out.
        baselines: Name -> the facts of its file.
        warnings: What the user should know.
        seconds: Step -> how long it took.
        rounds: The facts of the driver's rounds.
    """
    recipe, budget, test = settings.recipe, settings.budget, data.judging
    reference, small, bundle = outcome.reference, outcome.small, outcome.bundle
    verification, relevance, changes = outcome.verification, outcome.relevance, outcome.changes
    judge = verification.judge
    in_keras = value_if_any(task, predict(small.model, test), test)
    table = OutputTable.of(task, outcome.original, reference, judge, in_keras, outcome.outputs, test.y)
    task, original = table.task, table.headlined(outcome.original)
    weights = sum(kernel.size for kernel in weighted_kernels(small.model))
    compressed = {
        **table.headlined({**metric_facts(task, "keras", in_keras), **table.edge_facts(judge)}),
        "drop_pp": table.drop,
        "flash_bytes": verification.flash_bytes,
        "io_bytes": outcome.added.io or None,
        "metadata_bytes": outcome.added.metadata or None,
        "micro_flash_bytes": verification.micro_flash_bytes,
        "download_bytes": verification.download_bytes,
        "arena_bytes": outcome.arena_bytes,
        "sparsity": small.sparsity if small.kernels else None,
        "mean_bits": sum(k.bits * k.integers.size for k in small.kernels.values()) / weights if small.kernels else None,
        "macs": sum(macs(small.model).values()),
        "latency_ms": {**outcome.raced, **verification.latency_ms(), **outcome.raced},
        "agreement": verification.agreement,
        "explanation_similarity": changes.similarity["spearman"],
        "similarity": changes.similarity,
        "samples": verification.samples,
        "part": verification.part,
    }
    report = Report.model_validate(
        {
            "recipe": recipe.name,
            "recipe_entries": recipe.model_dump(mode="json"),
            "seed": settings.seed,
            "task": task.kind,
            "metric": None if test.y is None else table.metric_facts(),
            "outputs": [{**one, "similarity": changes.outputs.get(one["name"])} for one in table.facts(baselines)],
            "judge": {"interpreter": judge.interpreter, "version": judge.version} if judge is not None else None,
            "versions": _versions(),
            "seconds": dict(seconds),
            "inputs": {"scale": data.train.scale, "offset": data.train.offset},
            "model": {
                "name": model.name,
                "parameters": int(model.count_params()),
                "weighted_layers": len(weighted_kernels(model)),
                "macs": sum(macs(model).values()),
            },
            "budget": {
                "flash_bytes": budget.flash_bytes,
                "download_bytes": budget.download_bytes,
                "ram_bytes": budget.ram_bytes,
                "max_drop_pp": budget.max_drop,
                "macs": budget.macs_limit,
                "latency_ms": budget.latency_ms,
                "max_slowdown": budget.max_slowdown,
                "min_similarity": budget.min_similarity,
                "timed_on": speed_judge() if budget.in_time else None,
            },
            "original": dict(original),
            "reference": reference,
            "baselines": {
                name: {**table.headlined(facts), "drop_pp": table.drop_of(facts)} for name, facts in baselines.items()
            },
            "compressed": compressed,
            "interpreters": {name: run.as_dict(task) for name, run in verification.runs.items()},
            "agreement_with_keras": {name: one.as_dict() for name, one in outcome.agreement.items()},
            "layers": _layers(model, small, relevance, bundle),
            "classes": changes.classes,
            "rounds": [dict(one) for one in rounds],
            "explanations": changes.facts,
            "sha256": checksums(bundle),
        }
    )
    report = report.model_copy(
        update={
            "warnings": [
                *warnings,
                *_warnings(report, table.main, small.plan.activations),
                *unplanned(small.model, small.plan.rounded),
            ]
        }
    )
    met = report.budget.model_copy(update={"met": not budget_misses(report)})
    report = report.model_copy(update={"budget": met})
    return report.model_copy(update={"verdict": verdict(report)})


def metric_facts(task: AnyTask, where: str, value: Any) -> dict[str, Any]:
    """Returns the entries of report.json for a metric value in Keras (``keras``) or on an edge interpreter (``edge``).

    Those of several outputs are kept by name until it is known which is the headline (see `OutputTable`).
    """
    if isinstance(task, Tasks):
        return {f"{where}_values": None if value is None else dict(zip(task.names, value))}
    return {f"{where}_metric": value, f"{where}_accuracy": value if task.metric.name == "accuracy" else None}


def _warnings(report: Report, task: Task, activations: Activations) -> list[str]:
    """What a user should know who reads only the values."""
    found = []
    if report.compressed.part == "train":
        found.append("There is no test data: accuracies are measured on training data and are too good.")
    # Of an original that an interpreter computes wrongly, more is said already.
    judged: list[tuple[str, Any]] = [("original", report.original)] if report.reference == "edge" else []
    for who, facts in (*judged, ("compressed model", report.compressed)):
        gap = task.drop(facts.keras_metric, facts.edge_metric)
        if gap is not None and not task.is_values and abs(gap) > CONVERSION_GAP_PP:
            found.append(
                f"The {who} gives {facts.keras_metric:.4g} in Keras and {facts.edge_metric:.4g} on the edge interpreter: "
                "the conversion to .tflite changes its outputs."
            )
    judge = report.judge.interpreter if report.judge is not None else ""
    before, after = report.original.latency_ms.get(judge), report.compressed.latency_ms.get(judge)
    integers = activations != "float32" and report.reference == "edge"  # a wrong file is no example to follow
    if integers and before and after and before.median and after.median and after.median > 1.1 * before.median:
        found.append(
            f"{judge} takes {format_milliseconds(after.median)}, the float32 original {format_milliseconds(before.median)}: "
            f"it runs {activations} without its fast kernels. Fewer bits save bytes; removing filters saves time; "
            "float32 activations keep weights small, too, and run about as fast as the original."
        )
    paying = [f"{layer.name} ({layer.slowdown:.1f}x)" for layer in report.layers if (layer.slowdown or 0.0) > SLOW]
    if paying and report.budget.flash_bytes is not None:
        ratios = [one.ratio_to_int8 for one in report.compressed.latency_ms.values() if one.ratio_to_int8 is not None]
        whole = f". Measured, the file takes {ratios[0]:.2f} times as long as plain int8" if ratios else ""
        found.append(
            f"To meet the flash limit, layers are packed in a way that {speed_judge() or 'LiteRT'} runs more slowly, by "
            f"prediction: {', '.join(paying)}{whole}. These layers lose the least time; plan.json says how much each one loses."
        )
    for name, latency in report.compressed.latency_ms.items():
        taken = latency.delegated_macs
        if REGISTRY[name].judges_speed and taken is not None and taken < MOST_DELEGATED:
            found.append(
                f"The fast kernels of {name} compute {taken:.0%} of the multiply-adds, others are several times slower; the "
                f"first that is left over is {latency.refused_operator}."
            )
    return found


def unplanned(model: Model, rounded: Optional[Mapping[str, int]] = None) -> list[str]:
    """Returns a sentence on what no kernel holds, where that is much of the model.

    Args:
        model: The compressed model.
        rounded: Layer path -> bits of its matrices (see `Plan.rounded`).
    """
    others, planned = other_weights(model), sum(kernel.size for kernel in weighted_kernels(model))
    left = sum(others.values())
    if left < MUCH_UNPLANNED * (left + planned):
        return []
    most = sorted(others, key=lambda name: -others[name])
    names = ", ".join(most[:NAMED]) + (f" and {len(most) - NAMED} more" if len(most) > NAMED else "")
    if rounded:
        bits = ", ".join(f"{name} {few}" for name, few in rounded.items())
        return [
            f"{left:,} of {left + planned:,} weights get no zeros and a byte each in model.tflite, because they are in no "
            f"convolution or dense layer, but in {names}. For the limit on the download they were rounded; bits: {bits}."
        ]
    return [
        f"{left:,} of {left + planned:,} weights get 8 bits or more and no zeros, because they are in no convolution or dense "
        f"layer, but in {names}. Fewer bits, for the download alone, they get under a limit on it."
    ]


def _layers(model: Model, small: CompressedModel, relevance: Optional[Relevance], bundle: Bundle) -> list[dict[str, Any]]:
    measured = {one.key: one for one in measure_layers(bundle.model.read_bytes(), small.model)}
    planned = {layer.key: layer.relevance for layer in small.plan.layers}
    slowdowns = {layer.key: layer.slowdown for layer in small.plan.layers}
    if relevance is not None and not planned:
        totals = {key: float(abs(values).sum(dtype=float)) for key, values in relevance.weights.items()}
        planned = {key: value / (sum(totals.values()) or 1.0) for key, value in totals.items()}
    left = {kernel.key: kernel for kernel in weighted_kernels(small.model)}
    layers = []
    for original in weighted_kernels(model):
        kernel = left.get(original.key)
        if kernel is None:  # it went with its branch
            gone = {"name": original.key, "kind": original.kind, "filters": original.channels}
            layers.append({**gone, "weights": 0, "filters_kept": 0, "flash_bytes": 0})
            continue
        grid, file = small.kernels.get(kernel.key), measured.get(kernel.key)
        layers.append(
            {
                "name": kernel.key,
                "kind": kernel.kind,
                "relevance": planned.get(kernel.key) if relevance is not None else None,
                "weights": kernel.size,
                "bits": grid.bits if grid is not None else 8,
                "sparsity": grid.sparsity if grid is not None else float((kernel.value == 0).mean()),
                "filters": original.channels,
                "filters_kept": kernel.channels,
                "flash_bytes": file.flash_bytes if file is not None else None,
                "storage": file.storage if file is not None else None,
                "slowdown": slowdowns.get(kernel.key),
            }
        )
    return layers


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, *(one.package for one in REGISTRY.values())):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
