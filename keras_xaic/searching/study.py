"""A search over budgets with Optuna: every trial is one compression, judged on validation data."""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
import signal
import urllib.parse
from dataclasses import asdict, dataclass, replace
from typing import Any, Callable, Optional

from keras_xaic.arguments import a_path, a_text, an, checked, shown, whole
from keras_xaic.errors import DataError, EdgeError, MachineError, PlanError, XaicError
from keras_xaic.files import PathLike, machine_error, telling, tells_machine_errors, write_atomic
from keras_xaic.identity import facts_of
from keras_xaic.ownership import Mark, check_continued
from keras_xaic.progress import Progress, silent
from keras_xaic.searching.chart import save_chart
from keras_xaic.searching.trial import Setting, run_trial, smallest_and_largest
from keras_xaic.settings import DataOptions, Training
from keras_xaic.temporary import sweep
from keras_xaic.usual import in_usual_keras

EPOCHS, MOST_EPOCHS = 2, 120
"""Epochs of a trial where neither epochs nor minutes are given, and the most that are trained in however many minutes."""
STUDY = "keras-xaic"
DATABASE = "study.db"


@dataclass(frozen=True)
class Found:
    """One compressed model of the search.

    Attributes:
        trial: Its number; its files are in ``trials/NUMBER``.
        flash_bytes: Size of its `model.tflite`.
        held_back_accuracy: Its metric value on validation data, from the interpreter that judges; higher is better.
        best: Whether no other model is both smaller and better.
    """

    trial: int
    flash_bytes: int
    held_back_accuracy: float
    best: bool


@tells_machine_errors
@checked(training=an(Training), options=an(DataOptions), trials=whole(1), workers=whole(1), model=a_path, storage=a_text)
@in_usual_keras
def search(
    model: PathLike,
    data: Any,
    out: PathLike,
    *,
    trials: int = 20,
    storage: Optional[str] = None,
    workers: int = 1,
    training: Optional[Training] = None,
    options: Optional[DataOptions] = None,
    progress: Progress = silent,
) -> list[Found]:
    """Compresses a model under many budgets and returns what was found, smallest first.

    Finished trials are kept in the storage; the same call again runs only those that are missing.

    Args:
        model: Path of a Keras model.
        data: Path of the data.
        out: Directory for the trials, ``pareto.json`` and ``pareto.png``.
        trials: Number of trials, finished ones included.
        storage: An Optuna storage URL that several machines can share; by default a SQLite file in `out`.
        workers: Processes on this machine.
        training: How every trial trains; None: 2 epochs. Its seed is that of the sampler, too.
        options: How data and model are read; the metric is the second objective.
        progress: Told how many trials are done.

    Returns:
        Bytes and metric value of every trial that was finished, smallest first, and whether it is on the front.

    Raises:
        XaicError: If Optuna is not installed, or of the kind that fits what is wrong.
    """
    training, options = training or Training(), options or DataOptions()
    training = replace(training, epochs=training.effort(EPOCHS, MOST_EPOCHS), seed=training.seed or 0)
    seed = training.seed or 0
    for name, path in (("model", model), ("data", data)):
        if not isinstance(path, (str, os.PathLike)) or not os.path.exists(path):
            raise DataError(f"{name} is {shown(path)}, which is no file", "the path of one: every trial reads it again")
    optuna = _optuna()
    directory = pathlib.Path(out)
    check_continued(out, "search", inputs=[model, data, _sqlite_file(storage, pathlib.Path(out))])
    with telling():
        (directory / "trials").mkdir(parents=True, exist_ok=True)
    Mark("search").write(directory)
    sweep(directory / "trials")
    url = storage or sqlite_url(directory.absolute() / DATABASE)
    setting = Setting(str(model), str(data), str(directory), training, options)
    study = _study(optuna, url, seed)
    _same_settings(study, setting, directory)
    low, high = smallest_and_largest(setting)
    progress("load", 1, 1)
    work = functools.partial(_work, url, setting, trials, (low, high))
    if workers == 1:
        work(seed, progress)
    else:
        _work_side_by_side(work, seed, workers)
    found = _found(optuna, study)
    write_atomic(directory / "pareto.json", json.dumps([asdict(one) for one in found], indent=1) + "\n")
    save_chart([(one.flash_bytes, one.held_back_accuracy, one.best) for one in found], directory / "pareto.png")
    return found


def sqlite_url(path: pathlib.Path) -> str:
    """Returns the storage URL of a SQLite file, whatever characters its path has."""
    from sqlalchemy.engine import make_url

    quoted = urllib.parse.quote(str(path))
    for wanted, url in ((str(path), f"sqlite:///{path}"), (str(path), f"sqlite:///{quoted}")):
        if not set(url) & set("{}") and make_url(url).database == wanted and not make_url(url).query:
            return url
    return f"sqlite:///file:{quoted}?uri=true"  # of a SQLAlchemy that takes the path as it stands


def _sqlite_file(storage: Optional[str], out: pathlib.Path) -> Optional[str]:
    """Returns the file that a storage URL of the user names; None if it is none, or the one that is used anyway."""
    path = storage[len("sqlite:///") :].partition("?")[0] if storage and storage.startswith("sqlite:///") else ""
    return path if path and os.path.realpath(path) != os.path.realpath(out / DATABASE) else None


def _study(optuna: Any, url: str, seed: int) -> Any:
    """Opens the study at a storage URL, or makes it.

    Raises:
        MachineError: If the database cannot be reached, or what speaks to it is not installed.
    """
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    directions = ["minimize", "maximize"]
    try:
        return optuna.create_study(study_name=STUDY, storage=url, directions=directions, load_if_exists=True, sampler=sampler)
    except ImportError:
        scheme = url.partition(":")[0]
        raise MachineError(
            f"the storage {scheme}://... needs a driver that is not installed", "", "pip install 'keras-xaic[cluster]'"
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        scheme = url.partition(":")[0]
        raise MachineError(f"the storage {scheme}://... cannot be used ({error})", "a URL such as sqlite:///study.db") from None


def _same_settings(study: Any, setting: Setting, directory: pathlib.Path) -> None:
    """Keeps trials of different settings apart.

    Raises:
        PlanError: If the study was begun with another model, other data or other settings.
    """
    facts = [facts_of(setting.training), facts_of(setting.options)]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for given in (pathlib.Path(setting.model), pathlib.Path(setting.data)):
        for path in sorted(given.rglob("*")) if given.is_dir() else [given]:
            if path.is_file():
                with open(path, "rb") as file:
                    for part in iter(lambda: file.read(1 << 20), b""):
                        digest.update(part)
    known = study.user_attrs.get("settings")
    if known is None:
        study.set_user_attr("settings", digest.hexdigest())
    elif known != digest.hexdigest():
        raise PlanError(
            f"the search in {directory} was begun with another model, other data or other settings",
            "the same ones, to continue it",
            "Choose another {out}, and another {storage} if you gave one",
        )


def _work_side_by_side(work: Callable[[int], None], seed: int, workers: int) -> None:
    """Runs trials in several processes.

    Raises:
        XaicError: What the first of them that failed said.
    """
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    said = context.SimpleQueue()
    processes = [context.Process(target=_told, args=(work, seed + number, said), daemon=True) for number in range(workers)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.terminate() if process.is_alive() else None
    if not said.empty():
        raise said.get()
    broken = [process.exitcode for process in processes if process.exitcode]
    if broken:
        raise EdgeError(f"a worker of the search crashed (code {broken[0]})", "", "Run the same command again: it continues")


def _told(work: Callable[[int], None], seed: int, said: Any) -> None:
    """Does the work of one process, whose errors go to the first one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    try:
        work(seed)
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        said.put(error if isinstance(error, XaicError) else machine_error(error) or XaicError(words))


def _work(url: str, setting: Setting, trials: int, sizes: tuple[int, int], seed: int, progress: Progress = silent) -> None:
    """Runs trials until the study has as many as wanted."""
    optuna = _optuna()
    done = optuna.trial.TrialState.COMPLETE
    study = _study(optuna, url, seed)

    def objective(trial: Any) -> tuple[float, float]:
        flash = trial.suggest_int("flash", *sizes, log=True)
        zeros = trial.suggest_float("zeros", 0.0, 0.9)
        return run_trial(setting, trial.number, flash, zeros)

    while (finished := sum(one.state == done for one in study.get_trials(deepcopy=False))) < trials:
        progress("search", finished, trials)
        study.optimize(objective, n_trials=1)
    progress("search", trials, trials)


def _found(optuna: Any, study: Any) -> list[Found]:
    best = {trial.number for trial in study.best_trials}
    finished = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    return sorted(
        (Found(trial.number, int(trial.values[0]), float(trial.values[1]), trial.number in best) for trial in finished),
        key=lambda one: (one.flash_bytes, -one.held_back_accuracy),
    )


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise XaicError("`xaic search` needs Optuna", "", "pip install 'keras-xaic[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
