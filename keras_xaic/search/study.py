"""A search over budgets with Optuna: every trial is one compression, judged on held-back training data."""

from __future__ import annotations

import functools
import json
import multiprocessing
import pathlib
from dataclasses import asdict, dataclass
from typing import Any, Optional

from keras_xaic.errors import XaicError
from keras_xaic.files import PathLike, write_atomic
from keras_xaic.progress import Progress, silent
from keras_xaic.search.chart import save_chart
from keras_xaic.search.trial import Setting, run_trial, smallest_and_largest

STUDY = "keras-xaic"


@dataclass(frozen=True)
class Found:
    """One compressed model of the search.

    Attributes:
        trial: Its number; its files are in ``trials/NUMBER``.
        flash_bytes: Size of its `model.tflite`.
        held_back_accuracy: Its figure on held-back training data, from tflite-runtime; higher is better.
        best: Whether no other model is both smaller and better.
    """

    trial: int
    flash_bytes: int
    held_back_accuracy: float
    best: bool


def search(
    model: Any,
    data: Any,
    out: PathLike,
    *,
    trials: int = 20,
    storage: Optional[str] = None,
    workers: int = 1,
    epochs: int = 2,
    seed: int = 0,
    calibration: int = 256,
    scale: float = 1.0,
    offset: float = 0.0,
    allow_unsafe: bool = False,
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
        epochs: Passes over the training data in each trial.
        seed: Seed of the sampler and of every trial.
        calibration: Number of training samples for relevance and activation ranges.
        scale: The model sees ``x * scale + offset``.
        offset: See `scale`.
        allow_unsafe: Load models with Lambda layers or pickled code.
        progress: Told how many trials are done.

    Raises:
        XaicError: If Optuna is not installed, or of the kind that fits what is wrong.
    """
    optuna = _optuna()
    directory = pathlib.Path(out)
    directory.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{directory.absolute() / 'study.db'}"
    setting = Setting(str(model), str(data), str(directory), epochs, seed, calibration, scale, offset, allow_unsafe)
    low, high = smallest_and_largest(setting)
    progress("load", 1, 1)
    study = optuna.create_study(
        study_name=STUDY,
        storage=url,
        directions=["minimize", "maximize"],
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True),
    )
    work = functools.partial(_work, url, setting, trials, (low, high))
    if workers == 1:
        work(seed, progress)
    else:
        context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
        processes = [context.Process(target=work, args=(seed + number,)) for number in range(workers)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    found = _found(optuna, study)
    write_atomic(directory / "pareto.json", json.dumps([asdict(one) for one in found], indent=1) + "\n")
    save_chart([(one.flash_bytes, one.held_back_accuracy, one.best) for one in found], directory / "pareto.png")
    return found


def _work(url: str, setting: Setting, trials: int, sizes: tuple[int, int], seed: int, progress: Progress = silent) -> None:
    """Runs trials until the study has as many as wanted."""
    optuna = _optuna()
    done = optuna.trial.TrialState.COMPLETE
    study = optuna.load_study(study_name=STUDY, storage=url, sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))

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
