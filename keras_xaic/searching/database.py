"""The database of a study: how it is opened, shared by several processes, and freed of what lost ones were at."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import os
import pathlib
import urllib.parse
import warnings
from collections.abc import Iterator
from typing import Any, Optional

from keras_xaic.errors import MachineError, PlanError
from keras_xaic.files import PathLike, machine_error
from keras_xaic.ownership import remove_work
from keras_xaic.searching.trial import TRIALS, Setting

DATABASE = "study.db"
DRIVERS = {
    "postgresql": ("postgresql", "psycopg2"),
    "postgres": ("postgresql", "psycopg2"),
    "mysql": ("mysql", "pymysql"),
}
"""Beginning of a storage URL -> the database that it names, and the driver for it in the extra `cluster`."""
BEAT, GRACE = 30, 180
"""Seconds between two signs of life of a trial, and after which, without one, it is taken for lost and begins once more."""
PATIENCE = 120
"""Seconds that a process waits for others to be done with a file of SQLite."""


def sqlite_url(path: pathlib.Path) -> str:
    """Returns the storage URL of a SQLite file, whatever characters its path has."""
    from sqlalchemy.engine import make_url

    quoted = urllib.parse.quote(str(path))
    for wanted, url in ((str(path), f"sqlite:///{path}"), (str(path), f"sqlite:///{quoted}")):
        if not set(url) & set("{}") and make_url(url).database == wanted and not make_url(url).query:
            return url
    return f"sqlite:///file:{quoted}?uri=true"  # of a SQLAlchemy that takes the path as it stands


def with_driver(url: str) -> str:
    """Returns a storage URL that names the driver of the extra `cluster`, where it is installed and the URL names none.

    What SQLAlchemy takes by itself differs between its releases.

    >>> with_driver("sqlite:///study.db")
    'sqlite:///study.db'
    """
    scheme, _, rest = url.partition("://")
    database, driver = DRIVERS.get(scheme, ("", ""))
    return f"{database}+{driver}://{rest}" if driver and importlib.util.find_spec(driver) else url


def given_file(storage: Optional[str], out: PathLike) -> Optional[str]:
    """Returns the file that a storage URL of the user names; None if it is none, or the one that is used anyway."""
    path = storage[len("sqlite:///") :].partition("?")[0] if storage and storage.startswith("sqlite:///") else ""
    return path if path and os.path.realpath(path) != os.path.realpath(pathlib.Path(out) / DATABASE) else None


def open_storage(optuna: Any, url: str) -> Any:
    """Opens the database at a storage URL; in it, trials at work show every `BEAT` seconds that they live.

    Raises:
        MachineError: If the database cannot be reached, or what speaks to it is not installed.
        PlanError: If it is in memory.
    """
    kind, scheme = optuna.storages.RDBStorage, url.partition(":")[0]
    names = ("heartbeat_stale_trial_callback", "failed_trial_callback")  # since, and before Optuna 4.9
    callback = next(name for name in names if name in inspect.signature(kind).parameters)
    try:
        is_sqlite = _is_sqlite(url)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls heartbeats experimental
            how: dict[str, Any] = {"heartbeat_interval": BEAT, "grace_period": GRACE, callback: _begin_again}
            if not is_sqlite:
                return _beating(kind(url, **how))
            storage = kind(url, engine_kwargs={"connect_args": {"timeout": PATIENCE}}, **how)
        from sqlalchemy import event

        # Else two processes may read that a trial waits before one of them writes that it runs: both would run it.
        event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return _beating(storage)
    except ImportError:
        raise MachineError(
            f"the storage {scheme}://... needs a driver that is not installed", "", "pip install 'keras-xaic[cluster]'"
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise MachineError(f"the storage {scheme}://... cannot be used ({error})", "a URL such as sqlite:///study.db") from None


def _is_sqlite(url: str) -> bool:
    from sqlalchemy.engine import make_url

    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return False
    if not parsed.database or ":memory:" in parsed.database or "memory" in parsed.query.values():
        found = f"the storage {url} is in memory, where every process has another one"
        raise PlanError(found, "a file, e.g. sqlite:///study.db", "Leave out {storage}, or name a file")
    return True


def _beating(storage: Any) -> Any:
    """Has signs of life that cannot be written be left out: the work itself says that the database is out of reach."""
    beat = storage.record_heartbeat

    def record_heartbeat(trial: int) -> None:
        with contextlib.suppress(Exception):
            beat(trial)

    storage.record_heartbeat = record_heartbeat
    return storage


@contextlib.contextmanager
def said_by_database() -> Iterator[None]:
    """Has what a database says at the end of a trial be heard, where Optuna asserts that this cannot happen.

    Raises:
        MachineError: If the database cannot be written.
    """
    try:
        yield
    except AssertionError as error:
        cause: Optional[BaseException] = error
        while cause is not None:
            said = machine_error(cause)
            if said is not None:
                raise said from error
            cause = cause.__context__
        raise


def pick_up(optuna: Any, study: Any, setting: Setting, alone: bool) -> None:
    """Has the trials that a dead or interrupted process was at begin once more."""
    states = optuna.trial.TrialState
    if not alone:  # others may be at work: only what shows no life is dead
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optuna.storages.fail_stale_trials(study)
    trials = study.get_trials(deepcopy=False)
    again = {one.user_attrs["again"] for one in trials if "again" in one.user_attrs}
    for trial in trials:
        if trial.state == states.RUNNING and alone:
            study.tell(trial.number, state=states.FAIL)
        elif trial.state != states.FAIL or "error" in trial.user_attrs or trial.number in again:
            continue
        if alone:
            remove_work(pathlib.Path(setting.out) / TRIALS / str(trial.number))
        _begin_again(study, trial)


def _begin_again(study: Any, trial: Any) -> None:
    """Enqueues what a trial tried whose process is lost."""
    if trial.params:
        study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
