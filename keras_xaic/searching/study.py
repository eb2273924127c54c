"""A search with Optuna: every trial is a run of `compress`, judged on validation data."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Callable, Optional

import numpy as np

from keras_xaic.arguments import a_path, an, checked, shown
from keras_xaic.budget import Budget
from keras_xaic.edge.interpreters import check_interpreters
from keras_xaic.errors import DataError, MachineError, PlanError, XaicError
from keras_xaic.files import PathLike, readable, telling, tells_machine_errors
from keras_xaic.locks import held
from keras_xaic.objectives import OBJECTIVES, SearchOptions
from keras_xaic.ownership import Mark, begin, check_continued
from keras_xaic.pipeline.run_settings import RunSettings
from keras_xaic.progress import Progress, silent
from keras_xaic.recipes import RecipeLike, get_recipe, recipe_file
from keras_xaic.report import Found, Front, save_front
from keras_xaic.searching.continuing import check_same_settings, check_same_study
from keras_xaic.searching.database import DATABASE, given_file, open_storage, pick_up, said_by_database, sqlite_url, with_driver
from keras_xaic.searching.trial import (
    TRIALS,
    Hopeless,
    Rival,
    Setting,
    Tried,
    command_of,
    run_trial,
    settings_of,
    smallest_and_largest,
)
from keras_xaic.searching.workers import check_no_worker, work_on_cluster, work_side_by_side
from keras_xaic.settings import DataOptions, Device, Training
from keras_xaic.temporary import sweep
from keras_xaic.usual import in_usual_keras

EPOCHS, MOST_EPOCHS = 2, 120
"""Epochs of a trial where neither epochs nor minutes are given, and the most that are trained in however many minutes."""
STUDY = "keras-xaic"
FIRST = (0.8, 0.5, 0.35, 0.25, 0.15)
"""Flash limits, as shares of the plain int8 file, of the trials that come first: the recipe as it is."""
RULES = ("lrp.epsilon_plus", "deeplift.rescale")
"""Attribution rules that are tried beside the recipe's own."""


@tells_machine_errors
@checked(
    effort=an(SearchOptions),
    budget=an(Budget, words="a Budget, e.g. Budget(download='48kB')"),
    training=an(Training),
    device=an(Device),
    options=an(DataOptions),
    model=a_path,
)
@in_usual_keras
def search(
    model: PathLike,
    data: Any,
    out: PathLike,
    effort: Optional[SearchOptions] = None,
    *,
    budget: Optional[Budget] = None,
    recipe: RecipeLike = "auto",
    training: Optional[Training] = None,
    device: Optional[Device] = None,
    options: Optional[DataOptions] = None,
    progress: Progress = silent,
) -> list[Found]:
    """Compresses a model under many budgets and returns what was found, smallest first.

    Every trial is a run of `compress` with another limit on flash, and with the recipe as it is or with another attribution
    rule, filters kept or removed, other activations. Its bundle stays in ``trials/NUMBER``; ``front.json`` and ``front.html``
    show all of them, each with the command that makes it again. Finished trials are kept in the storage; the same call again
    runs only those that are missing.

    Args:
        model: Path of a Keras model.
        data: Path of the data.
        out: Directory of the search.
        effort: Objectives and number of trials; None: 20 trials, flash against the metric.
        budget: Limits that a model has to meet to be on the front.
        recipe: What trials start from.
        training: How every trial trains; None: 2 epochs. Its seed is that of the sampler, too.
        device: Where the model will run; None: phones, boards and microcontrollers. Baselines are not run.
        options: How data and model are read.
        progress: Told how many trials are done.

    Returns:
        What every finished trial measured, in the order of the first objective.

    Raises:
        XaicError: If Optuna is not installed, if no trial made a model, or of the kind that fits what is wrong.
    """
    check_no_worker()
    wanted, training, options = effort or SearchOptions(), training or Training(), options or DataOptions()
    training = replace(training, epochs=training.effort(EPOCHS, MOST_EPOCHS), minutes=None, seed=training.seed or 0)
    device = replace(device or Device(), baselines=())
    check_interpreters(device.asked)
    for name, path in (("model", model), ("data", data)):
        if not isinstance(path, (str, os.PathLike)) or not os.path.exists(path):
            raise DataError(f"{name} is {shown(path)}, which is no file", "the path of one: every trial reads it again")
    optuna = _optuna()
    run = RunSettings(get_recipe(recipe), budget or Budget(), training, device, options)
    place = check_continued(out, "search", inputs=[model, data, recipe_file(recipe), given_file(wanted.storage, out)])
    for path in (model, data, place):
        if readable(path) != os.fspath(path):
            found = f"{readable(path)} has another name than one in UTF-8, which the commands of trials are written in"
            raise DataError(found, "names in UTF-8", "Rename it; under LC_ALL=C set LC_ALL=C.UTF-8")
    with telling():
        place.parent.mkdir(parents=True, exist_ok=True)
    with held(place.with_name(f".{place.name}.xaic-lock"), pathlib.Path(out)), _quiet():
        if Mark.read(place) is None:
            begin(place, Mark("search"))
        (place / TRIALS).mkdir(exist_ok=True)
        sweep(place / TRIALS)
        url = sqlite_url(place / DATABASE) if wanted.storage is None else with_driver(wanted.storage)
        setting = Setting(str(model), str(data), str(pathlib.Path(out)), run, tuple(wanted.objectives))
        study = _study(optuna, open_storage(optuna, url), setting)
        check_same_settings(study, setting, place, alone=wanted.storage is None)
        check_same_study(study, place)
        sizes = _sizes(study, setting)
        pick_up(optuna, study, setting, alone=wanted.storage is None)
        progress("load", 1, 1)
        work = functools.partial(_work, url, setting, wanted.trials, sizes)
        tell = functools.partial(_tell, study, wanted, progress)
        try:
            if wanted.cluster is not None:
                work_on_cluster(work, wanted, setting, tell)
            elif wanted.workers == 1:
                work(progress=progress)
            else:
                work_side_by_side(work, wanted.workers, tell)
        finally:
            front = front_of(optuna, study, setting)
            if front.points:
                save_front(front, place)
        if not front.points:
            raise PlanError(
                f"none of {wanted.trials} trials made a model; the last one said: {_last_error(study) or 'nothing'}"
            )
        return list(front.points)


def _study(optuna: Any, storage: Any, setting: Setting, begun: int = 0) -> Any:
    """Opens the study in a database, or makes it.

    Args:
        optuna: The package.
        storage: The database.
        setting: What all trials have in common.
        begun: Number of trials there: what the sampler says next depends on it, not on how often a search was continued.
    """
    old: dict[str, Any] = {} if hasattr(optuna.trial.Trial, "set_constraint") else {"constraints_func": _broken}
    sampler = optuna.samplers.TPESampler(seed=setting.run.seed + begun, multivariate=True, **old)
    directions = ["maximize" if OBJECTIVES[name].larger else "minimize" for name in setting.objectives]
    return optuna.create_study(study_name=STUDY, storage=storage, directions=directions, load_if_exists=True, sampler=sampler)


def _broken(trial: Any) -> tuple[float]:
    """What Optuna before 5.0 takes for limits that are broken if it is above 0."""
    return (0.0 if trial.user_attrs.get("meets", True) else 1.0,)


def _sizes(study: Any, setting: Setting) -> tuple[int, int]:
    """Returns the range of flash limits; with it, a new study gets its first trials."""
    known = study.user_attrs.get("sizes")
    if known is None:
        known = smallest_and_largest(setting)
        plain = {name: choices[0] for name, choices in _entries(setting).items()}
        for share in FIRST:
            flash = int(np.clip(round(share * known[1]), *known))
            study.enqueue_trial({"flash": flash, **plain}, skip_if_exists=True)
        study.set_user_attr("sizes", list(known))
    return known[0], known[1]


def _entries(setting: Setting) -> dict[str, Sequence[Any]]:
    """Returns entry of the recipe -> what is tried, its own first; entries that the user has set himself are left alone."""
    recipe = setting.run.recipe
    found: dict[str, Sequence[Any]] = {}
    if recipe.rounds:
        found["filters"] = (recipe.filters, not recipe.filters)
    if isinstance(recipe.rule, str) and recipe.baseline is None:
        found["rule"] = (recipe.rule, *(rule for rule in RULES if rule != recipe.rule))
    if recipe.activations == "auto" and setting.run.device.target == "mobile":
        found["activations"] = ("auto", "float32")
    return found


def _tell(study: Any, wanted: SearchOptions, progress: Progress) -> None:
    """Tells how many trials of all workers are finished."""
    finished = 0
    with contextlib.suppress(Exception):  # the database is out of reach: the workers say so
        finished = _finished(study)
    said = f"{wanted.workers} workers" if wanted.workers > 1 else ""
    progress("search", min(finished, wanted.trials), wanted.trials, said)


class _NoModel(Exception):
    """A trial ended without a model; why is kept with it."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Has Optuna say errors alone; afterwards it says what the user wants to hear."""
    said = _optuna().logging
    before = said.get_verbosity()
    said.set_verbosity(said.ERROR)
    try:
        yield
    finally:
        said.set_verbosity(before)


@_quiet()
def _work(
    url: str,
    setting: Setting,
    trials: int,
    sizes: tuple[int, int],
    run: Optional[Callable[..., Tried]] = None,
    progress: Progress = silent,
) -> None:
    """Runs trials until the study has as many as wanted.

    Args:
        url: Where the study is.
        setting: What all trials have in common.
        trials: How many there are to be.
        sizes: Range of flash limits.
        run: Does one; None: `run_trial` in this process.
        progress: Told how many are done.
    """
    optuna = _optuna()
    storage = open_storage(optuna, url)
    study = _study(optuna, storage, setting)

    def objective(trial: Any) -> tuple[float, ...]:
        flash = trial.suggest_int("flash", *sizes, log=True)
        entries = {name: trial.suggest_categorical(name, choices) for name, choices in _entries(setting).items()}
        try:
            tried = (run or run_trial)(setting, trial.number, flash, entries, _rivals(optuna, study, setting))
        except MachineError:
            raise
        except Hopeless as error:
            trial.set_user_attr("pruned", str(error))
            raise optuna.TrialPruned from None
        except XaicError as error:
            trial.set_user_attr("error", str(error))
            raise _NoModel from None
        trial.set_user_attr("command", command_of(setting, settings_of(setting, flash, entries)))
        for name in ("meets", "shared", "curve"):
            trial.set_user_attr(name, getattr(tried, name))
        if hasattr(trial, "set_constraint"):
            trial.set_constraint("budget", 0.0 if tried.meets else 1.0)
        return tuple(tried.values[name] for name in setting.objectives)

    while (finished := _finished(study)) < trials:
        progress("search", finished, trials)
        study = _study(optuna, storage, setting, begun=len(study.get_trials(deepcopy=False)))
        with said_by_database():
            study.optimize(objective, n_trials=1, catch=(_NoModel,))
    progress("search", trials, trials)


def _finished(study: Any) -> int:
    optuna = _optuna()
    return sum(_is_finished(optuna, one) for one in study.get_trials(deepcopy=False))


def _is_finished(optuna: Any, trial: Any) -> bool:
    states = optuna.trial.TrialState
    return trial.state in (states.COMPLETE, states.PRUNED) or "error" in trial.user_attrs


def _rivals(optuna: Any, study: Any, setting: Setting) -> tuple[Rival, ...]:
    """Returns what a trial is measured by while it trains; nothing where a model may be worth having for another reason."""
    if {*setting.objectives} != {"flash", "metric"}:
        return ()
    found = []
    for one in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
        values = dict(zip(setting.objectives, one.values))
        known = one.user_attrs
        found.append(Rival(values["flash"], values["metric"], known.get("curve", {}), bool(known.get("meets", True))))
    return tuple(found)


def _last_error(study: Any) -> str:
    said = [trial.user_attrs["error"] for trial in study.get_trials(deepcopy=False) if "error" in trial.user_attrs]
    return said[-1] if said else ""


def front_of(optuna: Any, study: Any, setting: Setting) -> Front:
    """Returns what the finished trials of a study found."""
    finished = [one for one in study.get_trials(deepcopy=False) if one.state == optuna.trial.TrialState.COMPLETE]
    points = [
        Found(
            trial=one.number,
            values=dict(zip(setting.objectives, one.values)),
            meets=bool(one.user_attrs.get("meets", True)),
            command=str(one.user_attrs.get("command", "")),
        )
        for one in finished
    ]
    shared = [one.user_attrs["shared"] for one in finished if "shared" in one.user_attrs]
    used, made, saved = (sum(column) for column in zip(*shared)) if shared else (0, 0, 0.0)
    return Front.of(
        setting.objectives,
        points,
        model=setting.model,
        pruned=sum("pruned" in one.user_attrs for one in study.get_trials(deepcopy=False)),
        failed=sum("error" in one.user_attrs for one in study.get_trials(deepcopy=False)),
        last_error=_last_error(study),
        used=used,
        made=made,
        seconds_saved=round(float(saved), 1),
    )


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise XaicError("`xaic search` needs Optuna", "", "pip install 'keras-xaic[search]'") from None
    return optuna
