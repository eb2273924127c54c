"""The stage that removes branches and filters (structured pruning), in one step or in several with training in between."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic.files import write_atomic
from keras_xaic.json_files import read_json
from keras_xaic.models.channels import channel_groups
from keras_xaic.models.kernels import weighted_kernels
from keras_xaic.models.statistics import remeasure_batchnorm
from keras_xaic.models.surgery import remove_branches, remove_channels
from keras_xaic.planning import Plan, keep_masks
from keras_xaic.planning.filters import choose_next
from keras_xaic.planning.ram import predict_ram
from keras_xaic.relevance import Relevance, attribute
from keras_xaic.training import Epoch, Schedule, predict
from keras_xaic.training.context import Context

if TYPE_CHECKING:
    from keras_xaic._keras import Model
    from keras_xaic.relevance.choices import Reduce

RUINED, FASTER = 0.5, 3.0
"""Under a limit on time, a model that has lost more than this share of its metric value trains with so many times the learning
rate: it is closer to a new model than to the original (`docs/decisions/018`)."""
BETWEEN = 0.25
"""Share of the epochs that goes into training between steps, all of them together; the small model gets the rest."""


@dataclass(frozen=True)
class Removed:
    """A model with its branches and filters gone.

    Attributes:
        model: The smaller model, flat.
        plan: The plan as it was carried out: `Plan.remove` names what went, in the numbering of the original.
        history: Name of the stage -> what each epoch measured.
    """

    model: Model
    plan: Plan
    history: dict[str, list[Epoch]] = field(default_factory=dict)


def remove_filters(model: Model, plan: Plan, relevance: Optional[Relevance], context: Context, schedule: Schedule) -> Removed:
    """Returns the model without the branches and filters that the plan takes away, trained to do without them.

    Branches go at once, before the first step. Every step scores the filters of the model as it stands, removes the least
    relevant ones (`choose_next`), measures BatchNorm statistics again and trains. Without `Plan.filters` there is one step,
    which removes exactly `Plan.remove`.

    Args:
        model: The trained model; it is not changed.
        plan: What goes.
        relevance: What the first step follows, and by which rule later steps attribute; computed by LRP-epsilon if None.
        context: What training needs.
        schedule: How to train, all steps together; 0 epochs do not train.

    Raises:
        PlanError: If the plan does not fit the model.
    """
    small = whole = remove_branches(model, plan.branches)
    if not plan.branches and not plan.remove and plan.filters is None:
        return Removed(small, plan)
    how = plan.filters
    recoveries = _recoveries(schedule, 1 if how is None else how.steps)
    left = {group.name: np.arange(group.size) for group in channel_groups(small).values()}
    history: dict[str, list[Epoch]] = {}
    for step, recovery in enumerate(recoveries, 1):
        stage = "recover" if len(recoveries) == 1 else f"recover {step}"
        if how is None:
            keep = keep_masks(small, plan.remove)
        else:
            choose = functools.partial(_choose, small, plan, relevance, context, step)
            keep = context.cached(f"{stage} choice", choose, _save_masks, _load_masks)
        small = remove_channels(small, keep) if keep else small
        if keep or (plan.branches and step == 1):
            remeasure_batchnorm(small, context.train)
        left = {name: kept[keep[name]] if name in keep else kept for name, kept in left.items()}
        if recovery.epochs:
            recovery = context.within(recovery, small, stage)
            if plan.budget.in_time and _is_ruined(model, small, context):
                recovery = replace(recovery, learning_rate=FASTER * recovery.learning_rate)
            history[stage] = context.fit(small, recovery, stage)
    return Removed(small, plan if how is None else _carried_out(plan, whole, small, left), history)


def _is_ruined(model: Model, small: Model, context: Context) -> bool:
    """Returns whether removal took most of the metric value on validation data; values below zero have no share to lose."""
    before, after = (context.task.goodness(predict(one, context.held_back), context.held_back) for one in (model, small))
    return bool(before > 0.0 and after < (1.0 - RUINED) * before)


def _save_masks(masks: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    write_atomic(path, json.dumps({name: mask.astype(int).tolist() for name, mask in masks.items()}))


def _load_masks(path: pathlib.Path) -> dict[str, np.ndarray]:
    return {name: np.array(mask, bool) for name, mask in read_json(path).items()}


def _choose(small: Model, plan: Plan, relevance: Optional[Relevance], context: Context, step: int) -> dict[str, np.ndarray]:
    """Returns which channels of the model as it stands stay, by its relevance of now."""
    assert plan.filters is not None
    rule = "lrp.epsilon" if relevance is None else relevance.filter_rule or relevance.rule
    if relevance is None or step > 1:
        reduce: Reduce = "mean_abs" if relevance is None else relevance.filter_reduce or "mean_abs"
        relevance = attribute(
            small, context.calibration, rule=rule, target=context.target, reduce=reduce, allow_approximate=True
        )
    last = step == plan.filters.steps
    return choose_next(small, relevance.filters, plan.filters, plan.layers, last, plan.activations, plan.lookup)


def _recoveries(schedule: Schedule, steps: int) -> list[Schedule]:
    """Returns how to train after each step; less than an epoch passes over a part of the samples."""
    if steps == 1 or schedule.epochs == 0:
        return [schedule] * steps
    each = schedule.epochs * BETWEEN / (steps - 1)
    minutes = None if schedule.minutes is None else schedule.minutes * BETWEEN / (steps - 1)
    epochs, share = (int(each), 1.0) if each >= 1 else (1, each)
    first = replace(schedule, epochs=epochs, share=share, minutes=minutes)
    between = [replace(first, seed=schedule.seed + number) for number in range(1, steps)]
    last = max(1, schedule.epochs - round(epochs * share * (steps - 1)))
    rest = None if schedule.minutes is None else schedule.minutes * (1 - BETWEEN)
    return [*between, replace(schedule, epochs=last, minutes=rest)]


def _carried_out(plan: Plan, model: Model, small: Model, left: Mapping[str, np.ndarray]) -> Plan:
    """Returns the plan with what really went, and sizes in proportion to the weights that are left."""
    remove = {}
    for group in channel_groups(model).values():
        gone = np.setdiff1d(np.arange(group.size), left[group.name])
        if len(gone):
            remove[group.name] = gone.tolist()
    sizes = {kernel.key: kernel.size for kernel in weighted_kernels(small)}
    layers = []
    for layer in plan.layers:
        share = sizes[layer.key] / max(1, layer.weights)
        layers.append(
            layer.model_copy(
                update={
                    "weights": sizes[layer.key],
                    "flash_bytes": round(layer.flash_bytes * share),
                    "download_bytes": round(layer.download_bytes * share),
                }
            )
        )
    changed: dict[str, Any] = {
        f"predicted_{name}": getattr(plan, f"predicted_{name}")
        + sum(getattr(new, name) - getattr(old, name) for new, old in zip(layers, plan.layers))
        for name in ("flash_bytes", "download_bytes")
    }
    if plan.predicted_ram_bytes is not None:
        changed["predicted_ram_bytes"] = predict_ram(small, layers, plan.activations)
    return plan.model_copy(update={"remove": remove, "layers": layers, **changed})
