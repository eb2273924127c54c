"""A trial whose process was killed, in a study that others share."""

from __future__ import annotations

import time

import keras_xaic as xaic
from keras_xaic.pipeline.run_settings import RunSettings
from keras_xaic.recipes import RECIPES
from keras_xaic.searching import database, study, trial


def check_that_a_lost_trial_begins_again(optuna, url, folder, monkeypatch):
    """Of two trials at work, the one that shows no life is taken for lost; the other one is left alone."""
    for name, seconds in (("BEAT", 1), ("GRACE", 3)):
        monkeypatch.setattr(database, name, seconds)
    run = RunSettings(RECIPES["auto"], xaic.Budget(), xaic.Training(), xaic.Device(), xaic.DataOptions())
    setting = trial.Setting("m.keras", "d.npz", str(folder), run, ("flash", "metric"))
    storage = database.open_storage(optuna, database.with_driver(url))
    opened = study._study(optuna, storage, setting)
    lost, alive = opened.ask(), opened.ask()
    for number, one in enumerate((lost, alive)):
        one.suggest_int("flash", 100, 200 + number)
        storage.record_heartbeat(one._trial_id)
    until = time.monotonic() + 5.0
    while time.monotonic() < until:
        time.sleep(0.5)
        storage.record_heartbeat(alive._trial_id)
    database.pick_up(optuna, opened, setting, alone=False)
    kept = opened.get_trials(deepcopy=False)
    assert [one.state.name for one in kept] == ["FAIL", "RUNNING", "WAITING"]
    assert kept[2].user_attrs == {"again": lost.number}
    database.pick_up(optuna, opened, setting, alone=False)
    assert len(opened.get_trials()) == 3  # once
    again = opened.ask()
    assert again.suggest_int("flash", 100, 200) == lost.params["flash"]
