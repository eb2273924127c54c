"""One trial of a search: a run of `compress`, and what its file is worth on validation data."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import pathlib
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic import tflite
from keras_xaic.budget import Budget
from keras_xaic.bundle import Bundle
from keras_xaic.cluster import LARGEST, own_place, pack, received, unpack
from keras_xaic.compression import CompressedModel
from keras_xaic.edge.installed import judge, speed_judge
from keras_xaic.errors import MachineError, PlanError, XaicError
from keras_xaic.models import canonicalize
from keras_xaic.objectives import OBJECTIVES
from keras_xaic.ownership import output, remove_work
from keras_xaic.pipeline.compressing import carry_out
from keras_xaic.pipeline.inputs import check_judged, load_both, moved
from keras_xaic.pipeline.judging import Judge, judging_parts
from keras_xaic.pipeline.reasons import check_reasons
from keras_xaic.pipeline.run_settings import RunSettings
from keras_xaic.pipeline.workspace import Loaded, Shared
from keras_xaic.planning import Plan
from keras_xaic.recipes import RECIPES
from keras_xaic.report import budget_misses
from keras_xaic.temporary import temporary_directory
from keras_xaic.units import format_value

if TYPE_CHECKING:
    from keras_xaic.report import Report

SMALLEST = 0.1
"""The smallest flash limit that is tried, as a share of the plain int8 file."""
SMALLER, ENOUGH = 0.8, 5
"""A model of at most this share of a trial's limit counts as smaller; finished trials to be known before one is ended early."""
TRIALS, SHARED, RECIPE_FILES = "trials", "shared", "recipes"
"""Directories of a search: bundles by number, what trials share, and recipes that are no named ones."""


@dataclass(frozen=True)
class Setting:
    """What all trials have in common; it reaches other processes as pickle, without what it has loaded.

    Attributes:
        model: Path of the model.
        data: Path of the data.
        out: Directory of the search.
        run: What a run is asked for, but for what trials choose.
        objectives: Names of what is measured.
    """

    model: str
    data: str
    out: str
    run: RunSettings
    objectives: tuple[str, ...]

    @functools.cached_property
    def loaded(self) -> Loaded:
        """Model, data and task, loaded once in a process."""
        return load_both(self.model, self.data, self.run.options)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Tried:
    """What came out of a trial.

    Attributes:
        values: Objective -> value.
        meets: Whether the limits of the user's budget hold: bytes, time, multiply-accumulates, mean bits, similarity of
            explanations, and, if it is not the default, what the metric may lose on validation data.
        shared: How often other trials' work was used, how often not, and the seconds that it saved.
        curve: Stage and epoch -> metric value on validation data while it trained.
    """

    values: dict[str, float]
    meets: bool
    shared: tuple[int, int, float]
    curve: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Rival:
    """What is known of a finished trial when another one begins.

    Attributes:
        flash: Bytes of its file.
        metric: Metric value on validation data of its file.
        curve: See `Tried`.
        meets: See `Tried`.
    """

    flash: float
    metric: float
    curve: Mapping[str, float]
    meets: bool = True


class Hopeless(XaicError):
    """A trial was ended early: a smaller model is better than it can become."""


@dataclass
class Watch:
    """A `Progress` that notes how training goes, and ends a trial that is hopeless.

    No finished trial gained more from the same epoch on than this one would have to, to reach a model that is smaller.

    Attributes:
        flash: Limit for model.tflite, in bytes.
        rivals: Finished trials; none: nothing is ended.
        curve: What was noted (see `Tried`).
    """

    flash: int
    rivals: Sequence[Rival] = ()
    curve: dict[str, float] = dataclasses.field(default_factory=dict)

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """See `Progress`."""
        value, when = getattr(note, "validation", None), f"{stage}, epoch {getattr(note, 'epoch', 0)}"
        if value is None or when in self.curve:
            return
        self.curve[when] = value
        gains = [one.metric - one.curve[when] for one in self.rivals if when in one.curve]
        smaller = [one.metric for one in self.rivals if one.meets and one.flash <= SMALLER * self.flash]
        if len(gains) >= ENOUGH and smaller and value + max(gains) < max(smaller):
            most, best = format_value(max(gains)), format_value(max(smaller))
            gained = f"no trial gained more than {most} from there; a smaller model has {best}"
            raise Hopeless(f"hopeless after {when}: {format_value(value)} on validation data; {gained}")


def smallest_and_largest(setting: Setting) -> tuple[int, int]:
    """Returns the range of flash limits: a tenth of the plain int8 file up to all of it, or to the user's own limit."""
    model, data, task = setting.loaded
    check_judged(task, data, setting.run.seed)
    check_reasons(model, task, data.judging, setting.run.budget)
    plain = CompressedModel(canonicalize(model).model, {}, Plan(), {})
    size = len(tflite.build_tflite(plain, data.calibration(setting.run.options.calibration, setting.run.seed)))
    low, high = max(1, round(SMALLEST * size)), size
    given = setting.run.budget.flash_bytes
    high = high if given is None else min(given, high)
    return min(low, high), high


def run_trial(setting: Setting, number: int, flash: int, entries: dict[str, Any], rivals: Sequence[Rival] = ()) -> Tried:
    """Compresses the model and measures the file; the bundle stays in ``trials/NUMBER``.

    Args:
        setting: What all trials have in common.
        number: Number of the trial.
        flash: Limit for model.tflite, in bytes.
        entries: Entries of the recipe in place of its own.
        rivals: Finished trials that may show this one to be hopeless.

    Raises:
        Hopeless: If it was ended early.
        XaicError: As `compress` does.
    """
    out, asked = pathlib.Path(setting.out), setting.run
    settings = settings_of(setting, flash, entries)
    shared = Shared(out / SHARED, loaded=setting.loaded)
    watch = Watch(flash, rivals)
    try:
        with output(out / TRIALS / str(number), "bundle", inputs=[setting.model, setting.data]) as place:
            report = carry_out(setting.model, setting.data, settings, place, watch, shared=shared)
    except Hopeless:
        remove_work(out / TRIALS / str(number))
        raise
    path = Bundle(out / TRIALS / str(number)).model
    model, data, task = setting.loaded
    _, held_back = judging_parts(data, settings)
    worth, lost, _ = Judge.of(model, task, held_back)(path)
    values = {name: worth if name == "metric" else _measured(report, name) for name in setting.objectives}
    return Tried(
        values,
        _meets(report, asked.budget, lost),
        (shared.used, shared.made, shared.seconds_saved),
        watch.curve,
    )


def settings_of(setting: Setting, flash: int, entries: dict[str, Any]) -> RunSettings:
    """Returns what a trial asks of `compress` (see `run_trial`)."""
    asked = setting.run
    return replace(asked, recipe=asked.recipe.changed(**entries), budget=replace(asked.budget, flash=flash))


def run_sent(
    places: dict[str, str], sent: bytes, number: int, flash: int, entries: dict[str, Any], rivals: Sequence[Rival]
) -> tuple[Tried, np.ndarray, dict[str, np.ndarray]]:
    """Does `run_trial` on a node of a cluster, where the files lie at `places`.

    Returns:
        What it returns, the bundle, and what this trial made that others need, too: address -> a packed directory.
    """
    lead = f"{SHARED}/"
    here = _here(sent, tuple(sorted(one for one in places.items() if not one[0].startswith(lead))))
    made, shared = pathlib.Path(here.out) / TRIALS / str(number), pathlib.Path(here.out) / SHARED
    for name, place in places.items():
        if name.startswith(lead) and not (pathlib.Path(here.out) / name).exists():
            shutil.copytree(place, pathlib.Path(here.out) / name)
    before = {one.name for one in shared.glob("*")}
    try:
        tried, bundle = run_trial(here, number, flash, entries, rivals), pack(made, LARGEST)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    fresh = {}
    for one in sorted(shared.glob("*")):
        if one.name not in before:
            with contextlib.suppress(MachineError):  # too large: other nodes make it themselves
                fresh[one.name] = pack(one, LARGEST)
    return tried, bundle, fresh


@functools.lru_cache(maxsize=1)  # with the model and the data that it has loaded
def _here(sent: bytes, places: tuple[tuple[str, str], ...]) -> Setting:
    setting: Setting = received(sent)
    at = dict(places)
    options, out = moved(setting.run.options, at), own_place() / hashlib.sha256(sent).hexdigest()[:12]
    (out / TRIALS).mkdir(parents=True)
    return replace(setting, model=at["model"], data=at["data"], out=str(out), run=replace(setting.run, options=options))


def receive(setting: Setting, number: int, bundle: np.ndarray) -> None:
    """Keeps the bundle of a trial that ran elsewhere."""
    place = pathlib.Path(setting.out) / TRIALS / str(number)
    with (
        output(place, "bundle", inputs=[setting.model, setting.data]) as made,
        temporary_directory(place.parent, "sent") as sent,
    ):
        unpack(bundle, sent)
        made.publish(sent / str(number))


def _measured(report: Report, name: str) -> float:
    small = report.compressed
    times = small.latency_ms.get(speed_judge() or judge()) or small.latency_ms.get(judge())
    found: Optional[float] = {
        "flash": small.flash_bytes,
        "download": small.download_bytes,
        "ram": small.arena_bytes,
        "latency": None if times is None else times.median,
        "similarity": small.explanation_similarity,
    }[name]
    if found is None:
        raise PlanError(f"no {name} was measured ({OBJECTIVES[name].words})", "", "Choose other {objectives}")
    return float(found)


def _meets(report: Report, budget: Budget, lost: float) -> bool:
    # Every trial has a limit on flash of its own, and what the metric may lose is judged on validation data.
    asked = report.budget.model_copy(update={"flash_bytes": budget.flash_bytes, "max_drop_pp": None})
    within = not budget_misses(report.model_copy(update={"budget": asked}))
    accurate = budget.max_drop == Budget().max_drop or lost <= budget.max_drop  # a front trades accuracy, unless told how far
    bits = report.compressed.mean_bits or 0.0
    return within and accurate and (budget.mean_bits is None or bits <= budget.mean_bits)


def command_of(setting: Setting, settings: RunSettings) -> str:
    """Returns the `xaic compress` that does what a run did; empty where an option exists in Python alone."""
    method = []
    if settings.recipe != RECIPES["auto"]:
        named = RECIPES.get(settings.recipe.name) == settings.recipe
        method = ["--recipe", settings.recipe.name if named else str(_kept(setting, settings))]
    try:
        device = replace(settings.device, baselines=setting.run.device.baselines)
        groups = (settings.budget, settings.training, device, settings.options)
        chosen = [word for group in groups for word in flags_of(group)]
    except TypeError:
        return ""
    return shlex.join(["xaic", "compress", setting.model, "--data", setting.data, *method, *chosen, "--out", "again/"])


def _kept(setting: Setting, settings: RunSettings) -> pathlib.Path:
    """Returns the file of a recipe that is no named one."""
    text = settings.recipe.to_json()
    path = pathlib.Path(setting.out) / RECIPE_FILES / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        settings.recipe.save(path)
    return path


def flags_of(group: Any) -> list[str]:
    """Returns the options of the command line that say what a group of settings says.

    >>> from keras_xaic.settings import Training
    >>> flags_of(Training(epochs=3, train_frozen=True))
    ['--epochs', '3', '--train-frozen']

    Raises:
        TypeError: If there are none for it.
    """
    words: list[str] = []
    for field in fields(group):
        value = getattr(group, field.name)
        if value == field.default:
            continue
        if is_dataclass(value):  # a group in a group, whose options stand beside the others
            words += flags_of(value)
            continue
        if "help" not in field.metadata:
            raise TypeError(field.name)
        flag = field.metadata["flag"] or "--" + field.name.replace("_", "-")
        words += [flag] if value is True else [one for text in _texts(field, value) for one in (flag, text)]
    return words


def _texts(field: Any, value: Any) -> list[str]:
    """Returns what follows the option of a field, once for every time that it is said."""
    if isinstance(value, (str, int, float, pathlib.Path)):
        return [str(value)]
    if isinstance(value, Mapping):
        return [",".join(f"{name}={one}" for name, one in value.items())]
    if not isinstance(value, (tuple, list)) or not all(isinstance(one, (str, int)) for one in value):
        raise TypeError(field.name)
    parts = [str(one) for one in value]
    return parts if field.metadata["kind"] is list else [("x" if field.name == "image_size" else ",").join(parts)]
