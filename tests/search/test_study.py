from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import errno
import multiprocessing
import os
import pathlib
import pickle
import random
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from typer.testing import CliRunner

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.cli.app import app
from keras_xaic.cluster import received, sendable
from keras_xaic.ownership import Mark
from keras_xaic.pipeline.run_settings import RunSettings
from keras_xaic.pipeline.workspace import Shared
from keras_xaic.recipes import RECIPES
from keras_xaic.report import read_front
from keras_xaic.searching import continuing, database, pick, search, study, trial, workers
from keras_xaic.searching.database import sqlite_url
from keras_xaic.searching.study import STUDY
from tests.nets import saved
from tests.search.lost import check_that_a_lost_trial_begins_again

optuna = pytest.importorskip("optuna")
sqlalchemy = pytest.importorskip("sqlalchemy")
QUICK = {"training": xaic.Training(epochs=0), "device": xaic.Device("mobile")}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    saved(folder, epochs=10)
    return folder


@pytest.fixture(scope="module")
def found(place):
    """Two real trials; only tests that are slow use it."""
    return search(place / "m.keras", place / "d.npz", place / "front", xaic.SearchOptions(trials=2), **QUICK)


def again(place, trials, **options):
    return search(place / "m.keras", place / "d.npz", place / "front", xaic.SearchOptions(trials=trials), **QUICK, **options)


@pytest.mark.parametrize(
    ("limit", "other"),
    [
        ({"latency": "1ms"}, {"latency_ms": {"litert": {"median": 1.1, "ratio_to_int8": 1.1}}}),
        ({"max_slowdown": 1.0}, {"latency_ms": {"litert": {"median": 1.1, "ratio_to_int8": 1.1}}}),
        ({"flash": 1000}, {"flash_bytes": 1001}),
        ({"download": 1000}, {"download_bytes": 1001}),
        ({"ram": 1000}, {"arena_bytes": None}),
        ({"macs": 1000}, {"macs": 1001}),
        ({"min_similarity": 0.9}, {"explanation_similarity": 0.89}),
        ({"mean_bits": 4.0}, {"mean_bits": 4.01}),
    ],
)
def test_every_limit_of_the_budget_counts_in_a_search(limit, other):
    facts = {"flash_bytes": 1000, "download_bytes": 1000, "arena_bytes": 1000, "macs": 1000, "mean_bits": 4.0}
    facts |= {"explanation_similarity": 0.9, "latency_ms": {"litert": {"median": 1.0, "ratio_to_int8": 1.0}}}
    budget = xaic.Budget(**limit)
    asked = {"flash_bytes": 500, "download_bytes": budget.download_bytes, "ram_bytes": budget.ram_bytes, "timed_on": "litert"}
    asked |= {"macs": budget.macs_limit, "latency_ms": budget.latency_ms, "max_slowdown": budget.max_slowdown}
    asked |= {"min_similarity": budget.min_similarity, "max_drop_pp": 1.0}
    for values, meets in ((facts, True), ({**facts, **other}, False)):
        assert trial._meets(xaic.Report(budget=asked, compressed=values), budget, 50.0) is meets, values
    assert not trial._meets(xaic.Report(compressed=facts), xaic.Budget(max_drop=2.0), 2.1)


@pytest.mark.slow
def test_a_search_finds_a_front_and_continues(place, found):
    assert len(found) == 2
    more = again(place, 3)
    assert len(more) == 3
    assert {one.trial for one in found} < {one.trial for one in more}
    front = read_front(place / "front" / "front.json")
    assert list(front.points) == more
    assert front.used >= 2  # the second trial took relevance and the original's file from the first
    for one in more:
        beaten = any(
            (other.values["flash"], -other.values["metric"]) != (one.values["flash"], -one.values["metric"])
            and other.values["flash"] <= one.values["flash"]
            and other.values["metric"] >= one.values["metric"]
            for other in more
        )
        assert one.best != beaten
        assert (place / "front" / "trials" / str(one.trial) / "model.tflite").stat().st_size == one.values["flash"]
    page = (place / "front" / "front.html").read_text(encoding="utf-8")
    assert page.count("report.html") == 3
    assert "http" not in page


@pytest.mark.slow
def test_the_printed_command_makes_the_same_bytes(place, found, monkeypatch):
    monkeypatch.chdir(place)
    last = max(found, key=lambda one: one.trial)  # the model that it compressed was in use before
    words = shlex.split(last.command)
    assert words[:2] == ["xaic", "compress"]
    done = CliRunner().invoke(app, [*words[1:], "--baselines", "", "--quiet"])
    assert done.exit_code in (0, 3), done.output
    ours = place / "front" / "trials" / str(last.trial) / "model.tflite"
    assert (place / "again" / "model.tflite").read_bytes() == ours.read_bytes()


@pytest.mark.slow
def test_a_model_is_taken_out_and_proved_again(place, found, monkeypatch):
    smallest, largest = (int(found[at].values["flash"]) for at in (0, -1))
    result = pick(place / "front", place / "d.npz", place / "best", f"flash<={largest}")
    assert result.runs
    assert (place / "best" / "model.tflite").is_file()
    given = [str(place / "front"), "--data", str(place / "d.npz"), "--out", str(place / "small")]
    done = CliRunner().invoke(app, ["search", *given, "--pick", f"flash<={smallest}"])
    assert done.exit_code == 0, done.output
    assert (place / "small" / "model.tflite").stat().st_size == smallest
    options = ["--trials", "2", "--epochs", "0", "--target", "mobile", "--pick", f"flash<={smallest}"]
    done = CliRunner().invoke(app, ["search", str(place / "m.keras"), *given[1:-1], str(place / "front"), *options])
    assert done.exit_code == 0, done.output
    assert (place / "front" / "picked" / "model.tflite").stat().st_size == smallest
    done = CliRunner().invoke(app, ["search", *given[:-1], str(place / "none"), "--pick", "flash<1kB"])
    assert done.exit_code == 2
    assert "none of" in done.output
    assert not (place / "none").exists()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("flash", "conditions on"),
        ("flsh<3", "'flash'"),
        ("flash<big", "not a size"),
        ("metric>x", "a number"),
        ("", "conditions"),
    ],
)
def test_rules_that_are_none_are_one_line(place, rule, said):
    with pytest.raises(xaic.PlanError, match=said):
        pick(place, place, place / "x", rule)


def test_a_directory_of_ours_that_is_no_search_is_named(tmp_path):
    Mark("bundle").write(tmp_path)
    np.savez(tmp_path.with_suffix(".npz"), x_train=np.zeros((4, 2)))
    given = ["search", str(tmp_path), "--data", str(tmp_path.with_suffix(".npz")), "--out", str(tmp_path.with_suffix(".new"))]
    done = CliRunner().invoke(app, [*given, "--pick", "flash<3kB"])
    assert done.exit_code == 2
    assert "holds no search" in done.output


def test_what_is_picked_is_best_in_what_the_rule_leaves_free():
    from keras_xaic.objectives import best_of, parse_conditions
    from keras_xaic.report import Found

    points = [Found(trial=n, values={"flash": 10 + n, "metric": 0.5 + n / 10}) for n in range(4)]
    assert best_of(points, parse_conditions("flash<12")).trial == 1
    assert best_of(points, parse_conditions("metric>=0.6")).trial == 1
    assert best_of(points, parse_conditions("metric > 60%, flash<=13B")).trial == 3  # nothing is free: the metric comes first
    assert best_of(points, parse_conditions("flash<9")) is None
    for written in ("latency<300us", "latency<300 µs", "latency<0.3", "latency<0.0003s"):
        assert parse_conditions(written)[0].limit == pytest.approx(0.3)


@pytest.fixture
def quick(place, tmp_path, monkeypatch):
    """A search whose trials only say what they were asked for: the smaller, the worse."""

    def tried(setting, number, flash, entries, rivals):
        (tmp_path / "front" / "trials" / str(number)).mkdir()
        return trial.Tried({"flash": float(flash), "metric": flash / 1e6}, flash > 500, (1, 2, 0.5))

    monkeypatch.setattr(study, "run_trial", tried)
    monkeypatch.setattr(study, "smallest_and_largest", lambda setting: (200, 2000))
    return lambda trials, **how: search(
        place / "m.keras", place / "d.npz", tmp_path / "front", **{"effort": xaic.SearchOptions(trials=trials), **QUICK, **how}
    )


def test_the_same_search_continues_and_marks_what_no_other_beats(quick, tmp_path):
    assert [one.values["flash"] for one in quick(2)] == [1000, 1600]  # the first ones: shares of plain int8
    points = quick(9)
    assert len(points) == 9
    assert all(one.best == (one.values["flash"] > 500) for one in points)  # smaller ones miss a limit
    front = read_front(tmp_path / "front" / "front.json")
    assert (front.points, front.used, front.made, front.seconds_saved) == (tuple(points), 9, 18, 4.5)
    page = (tmp_path / "front" / "front.html").read_text(encoding="utf-8")
    assert page.count("report.html") == 9
    assert "http" not in page


def test_a_search_with_edited_code_of_layers_is_another_one(quick, tmp_path):
    code = tmp_path / "own.py"
    how = {"options": xaic.DataOptions(custom_objects=str(code), allow_unsafe=True)}
    code.write_text("FACTOR = 1.0\n")
    quick(1, **how)
    code.write_text("FACTOR = 2.0\n")
    with pytest.raises(xaic.PlanError, match="another model, other data or other settings"):
        quick(2, **how)


def test_models_of_another_study_are_not_taken_for_its_own(quick, tmp_path):
    quick(2)
    (tmp_path / "front" / "study.db").rename(tmp_path / "moved.db")
    with pytest.raises(xaic.PlanError, match=r"front holds the models of another study .* the storage that it was begun with"):
        quick(4)
    other = xaic.SearchOptions(trials=4, storage=sqlite_url(tmp_path / "other.db"))
    with pytest.raises(xaic.PlanError, match="another study"):
        quick(4, effort=other)
    moved = dataclasses.replace(other, storage=sqlite_url(tmp_path / "moved.db"))
    assert len(quick(4, effort=moved)) == 4


def test_a_search_is_not_continued_by_another_version(quick, monkeypatch):
    quick(2)
    monkeypatch.setattr(continuing, "__version__", "9.9")
    with pytest.raises(xaic.PlanError, match=r"was begun with keras-xaic .* and TensorFlow .* Expected keras-xaic 9\.9"):
        quick(4)


def test_what_was_wrong_before_the_first_trial_may_be_mended(quick, monkeypatch):
    def wrong(_):
        raise xaic.DataError("this data has no labels")

    with monkeypatch.context() as first:
        first.setattr(study, "smallest_and_largest", wrong)
        with pytest.raises(xaic.DataError, match="no labels"):
            quick(2)
    assert len(quick(2, budget=xaic.Budget(max_drop=3))) == 2
    with pytest.raises(xaic.PlanError, match="other settings"):
        quick(3)


def test_front_and_page_say_why_trials_ended_without_a_model(quick, tmp_path, monkeypatch):
    whole = study.run_trial

    def tried(setting, number, *asked):
        if number == 1:
            raise xaic.ExportError("no <operator> for it")
        return whole(setting, number, *asked)

    monkeypatch.setattr(study, "run_trial", tried)
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    quick(3)
    assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    front = read_front(tmp_path / "front" / "front.json")
    assert (front.failed, front.last_error) == (1, "no <operator> for it.")
    page = (tmp_path / "front" / "front.html").read_text(encoding="utf-8")
    assert "1 trial ended without a model (the last one said: no &lt;operator&gt; for it.)" in page


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite+pysqlite:///file:x?mode=memory&uri=true"])
def test_a_database_in_memory_is_refused(quick, url):
    with pytest.raises(xaic.PlanError, match="is in memory"):
        quick(2, effort=xaic.SearchOptions(trials=2, storage=url))


def test_a_sign_of_life_that_cannot_be_written_is_no_error(tmp_path):
    storage = database.open_storage(optuna, sqlite_url(tmp_path / "study.db"))
    trial = optuna.create_study(storage=storage).ask()
    storage.record_heartbeat(trial._trial_id)
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE trial_heartbeats")
    storage.record_heartbeat(trial._trial_id)


def test_what_trials_share_is_made_again_where_it_was_deleted(tmp_path):
    shared = Shared(tmp_path)
    how = {"save": lambda made, path: path.write_text(made), "load": pathlib.Path.read_text}
    for _ in range(2):
        assert shared.cached("one.txt", "this", lambda: "made", **how) == "made"
        next(tmp_path.glob("*/one.txt")).unlink()
    assert (shared.made, shared.used) == (2, 0)


@pytest.mark.slow
def test_a_search_that_was_continued_tries_what_a_whole_one_tries(quick, tmp_path):
    quick(6)
    continued = quick(8)
    (tmp_path / "front").rename(tmp_path / "before")
    assert quick(8) == continued


@pytest.mark.slow
def test_a_trial_of_a_machine_that_died_is_taken_for_lost(tmp_path, monkeypatch):
    check_that_a_lost_trial_begins_again(optuna, sqlite_url(tmp_path / "study.db"), tmp_path, monkeypatch)


@pytest.mark.slow
def test_two_that_ask_at_the_same_moment_never_get_the_same_trial(place, tmp_path):
    run = RunSettings(RECIPES["auto"], xaic.Budget(), QUICK["training"], QUICK["device"], xaic.DataOptions())
    setting = trial.Setting(str(place / "m.keras"), str(place / "d.npz"), str(tmp_path), run, ("flash", "metric"))
    studies = [
        study._study(optuna, database.open_storage(optuna, sqlite_url(tmp_path / "study.db")), setting) for _ in range(3)
    ]
    for number in range(12):
        studies[0].enqueue_trial({"flash": number})
    start = threading.Barrier(len(studies))

    def ask(opened):
        start.wait()
        return [opened.ask().number for _ in range(4)]

    with concurrent.futures.ThreadPoolExecutor(len(studies)) as pool:
        asked = [number for numbers in pool.map(ask, studies) for number in numbers]
    assert sorted(asked) == list(range(12))


def test_a_trial_is_hopeless_where_a_smaller_model_is_better_than_it_can_become():
    from keras_xaic.progress import Note

    when = "prune, epoch 1"
    known = [trial.Rival(flash, 0.9, {when: 0.8}) for flash in (500, 600, 700, 810)]
    watch = trial.Watch(1000, known)
    watch("prune", 3, 9, Note.of("", 1, 0.1))  # too few are known
    assert watch.curve == {when: 0.1}
    known.append(trial.Rival(900, 0.95, {when: 0.7}))  # gained 0.25
    for value, flash, lost in ((0.64, 1000, True), (0.66, 1000, False), (0.64, 600, False)):  # 500 > 0.8 * 600
        watch = trial.Watch(flash, known)
        watch("prune", 1, 9, "before the first epoch")
        watch("prune", 2, 9, Note.of("", 0, None))
        if lost:
            with pytest.raises(trial.Hopeless, match=r"epoch 1: 0.6400 .* 0.2500 from there; .* has 0.9000"):
                watch("prune", 3, 9, Note.of("", 1, value))
        else:
            watch("prune", 3, 9, Note.of("", 1, value))
    missed = [dataclasses.replace(one, meets=False) for one in known]
    trial.Watch(1000, missed)("prune", 3, 9, Note.of("", 1, 0.1))  # none of them may be on the front


@pytest.mark.slow
def test_a_hopeless_trial_is_ended_early_and_the_study_and_the_page_say_so(quick, tmp_path, monkeypatch):
    whole, seen = study.run_trial, []

    def tried(setting, number, flash, entries, rivals):
        seen.append(rivals)
        if number == 3:
            raise trial.Hopeless("hopeless after prune, epoch 1")
        return dataclasses.replace(whole(setting, number, flash, entries, rivals), curve={"prune, epoch 1": 0.5})

    monkeypatch.setattr(study, "run_trial", tried)
    assert len(quick(5)) == 4
    assert seen[2][1] == trial.Rival(1000.0, 0.001, {"prune, epoch 1": 0.5}, True)
    opened = optuna.load_study(study_name=STUDY, storage=sqlite_url(tmp_path / "front" / "study.db"))
    ended = opened.get_trials(deepcopy=False)[3]
    assert ended.state.name == "PRUNED"
    assert ended.user_attrs["pruned"].startswith("hopeless after")
    front = read_front(tmp_path / "front" / "front.json")
    assert (front.pruned, front.failed) == (1, 0)
    assert "1 were ended early" in (tmp_path / "front" / "front.html").read_text(encoding="utf-8")
    quick(6)
    assert len(seen) == 6  # it is not tried again


def test_a_search_that_another_process_is_at_is_refused(quick, tmp_path):
    waits = (
        "import pathlib, sys, time\nfrom keras_xaic.locks import held\n"
        "with held(pathlib.Path(sys.argv[1]), pathlib.Path('x')): print(1, flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", waits, str(tmp_path / ".front.xaic-lock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        try:
            with pytest.raises(xaic.ExportError, match="being written by another process"):
                quick(2)
        finally:
            other.kill()


def test_a_disk_that_is_full_at_the_first_file_or_the_end_of_a_trial_is_said_and_the_same_search_continues(quick, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as first:
        first.setattr(Mark, "write", full)
        with pytest.raises(xaic.MachineError, match="the disk is full"):
            quick(2)
    write = optuna.storages.RDBStorage.set_trial_state_values

    def refused(self, number, state, values=None):
        if state.is_finished():
            raise sqlalchemy.exc.OperationalError("", {}, sqlite3.OperationalError("database or disk is full"))
        return write(self, number, state, values)

    with monkeypatch.context() as last:
        last.setattr(optuna.storages.RDBStorage, "set_trial_state_values", refused)
        with pytest.raises(xaic.MachineError, match=r"^the disk is full\. .*it continues"):
            quick(2)
    assert len(quick(2)) == 2
    with pytest.raises(AssertionError, match="mine"), database.said_by_database():
        raise AssertionError("mine")


def test_a_trial_that_a_killed_search_was_at_begins_once_more(quick, tmp_path):
    quick(2)
    opened = optuna.load_study(study_name=STUDY, storage=sqlite_url(tmp_path / "front" / "study.db"))
    lost = opened.ask()
    lost.suggest_int("flash", 200, 2000, log=True)
    quick(6)
    trials = opened.get_trials(deepcopy=False)
    assert [one.state.name for one in trials].count("COMPLETE") == 6
    assert trials[lost.number].state.name == "FAIL"
    assert lost.params["flash"] in [one.params["flash"] for one in trials if one.state.name == "COMPLETE"]
    quick(7)
    again = [one.user_attrs["again"] for one in opened.get_trials(deepcopy=False) if "again" in one.user_attrs]
    assert again == [lost.number]  # once


def test_trials_of_a_process_share_what_is_loaded_and_other_processes_load_it_themselves(place, tmp_path, monkeypatch):
    loads, given = [], []

    def load_both(*asked):
        loads.append(asked)
        return keras.Sequential([layers.Input((12,)), layers.Dense(3)]), "data", "task"

    def carry_out(*_, shared):
        given.append(shared.loaded)
        raise xaic.ExportError("enough")

    monkeypatch.setattr(trial, "load_both", load_both)
    monkeypatch.setattr(trial, "carry_out", carry_out)
    run = RunSettings(RECIPES["auto"], xaic.Budget(), QUICK["training"], QUICK["device"], xaic.DataOptions())
    setting = trial.Setting(str(place / "m.keras"), str(place / "d.npz"), str(tmp_path), run, ("flash", "metric"))
    for number in range(2):
        with pytest.raises(xaic.ExportError, match="enough"):
            trial.run_trial(setting, number, 1000, {})
    assert len(loads) == 1
    assert given[0] is given[1] is setting.loaded
    other = pickle.loads(pickle.dumps(setting))
    assert other == setting
    assert "loaded" not in vars(other)


def test_a_setting_that_other_processes_cannot_get_is_named_before_they_start(place, monkeypatch):
    monkeypatch.setattr(study, "smallest_and_largest", lambda setting: (200, 2000))
    options, own = xaic.SearchOptions(trials=2, workers=2), xaic.DataOptions(metric=lambda truth, said: 0.5)
    with pytest.raises(xaic.PlanError, match=r"a setting cannot be sent .*lambda.*top level of a module"):
        search(place / "m.keras", place / "d.npz", place / "unsent", options, options=own, **QUICK)


def test_a_daemon_of_multiprocessing_which_may_start_no_workers_says_so(monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(xaic.PlanError, match=r"2 workers in a process of a pool.* Leave out workers, or use concurrent"):
        workers.work_side_by_side(print, 2, print)


def test_what_another_process_cannot_find_is_one_line():
    sent = sendable(read_front).replace(b"read_front", b"read_forms")
    with pytest.raises(xaic.PlanError, match=r"AttributeError.*read_forms"):
        received(sent)


@pytest.mark.slow
def test_a_script_that_searches_when_it_is_imported_is_told_how_to(place, tmp_path):
    (tmp_path / "script.py").write_text(
        SCRIPT.format(model=str(place / "m.keras"), data=str(place / "d.npz"), out=str(tmp_path / "out"))
    )
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.startswith("workers cannot begin"), done
    assert "__main__" in done.stdout
    assert "Traceback" not in done.stderr


SCRIPT = """
import keras_xaic as xaic
try:
    xaic.search({model!r}, {data!r}, {out!r}, xaic.SearchOptions(trials=2, workers=2), training=xaic.Training(epochs=0))
except xaic.XaicError as error:
    print(error)
"""


def test_a_search_whose_trials_all_fail_says_why(place, monkeypatch):
    def fails(*_, **__):
        raise xaic.ExportError("no operator for it", "", "Use another layer")

    monkeypatch.setattr(trial, "carry_out", fails)
    monkeypatch.setattr(study, "smallest_and_largest", lambda setting: (200, 2000))
    options = xaic.SearchOptions(trials=2)
    with pytest.raises(xaic.PlanError, match=r"none of 2 trials made a model; the last one said: no operator for it"):
        search(place / "m.keras", place / "d.npz", place / "fails", options, **QUICK)


def test_the_database_is_reached_by_the_driver_that_is_installed(monkeypatch):
    monkeypatch.setattr(database.importlib.util, "find_spec", lambda name: name == "psycopg2" or None)
    assert database.with_driver("postgresql://me@host/db") == "postgresql+psycopg2://me@host/db"
    assert database.with_driver("postgres://me@host/db") == "postgresql+psycopg2://me@host/db"
    for other in ("mysql://me@host/db", "postgresql+psycopg://me@host/db", "sqlite:///study.db"):
        assert database.with_driver(other) == other


def test_options_of_a_group_within_a_group_are_said():
    assert trial.flags_of(xaic.Device()) == []
    assert trial.flags_of(xaic.Device(file=xaic.FileOptions(io="float32", metadata=True))) == ["--io", "float32", "--metadata"]


def test_options_of_the_command_line_say_what_settings_say():
    said = [*trial.flags_of(xaic.Budget(flash="48kB")), *trial.flags_of(xaic.DataOptions(scale=1 / 255, image_size="8x9"))]
    assert said == ["--flash", "48000", "--scale", repr(1 / 255), "--image-size", "8x9"]
    assert dataclasses.replace(xaic.Device(), baselines=()) != xaic.Device()
    with pytest.raises(TypeError):
        trial.flags_of(xaic.Training(batch_size=3))


def test_a_database_out_of_reach_is_left_to_the_workers_to_say():
    said = []
    study._tell(None, xaic.SearchOptions(trials=3, workers=2), lambda *words: said.append(words))
    assert said == [("search", 0, 3, "2 workers")]


@pytest.mark.slow
def test_two_workers_and_five_objectives(place, tmp_path):
    options = xaic.SearchOptions(("download", "metric", "flash", "latency", "similarity"), trials=3, workers=2)
    said = []
    points = search(
        place / "m.keras", place / "d.npz", tmp_path / "out", options, **QUICK, progress=lambda *words: said.append(words[:3])
    )
    assert said[-1] == ("search", 3, 3)
    assert {("search", 1, 3), ("search", 2, 3)} & {*said}, "workers are silent"
    assert len(points) in (3, 4)  # each worker ends the trial that it is at
    assert all(len(one.values) == 5 for one in points)


KILLS = max(2, int(os.environ.get("XAIC_FAULTS", "9")) // 3)


def workers_of(process):
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and "spawn_main" in (entry / "cmdline").read_text():
                found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_killed_at_random_moments_the_same_command_completes(place, tmp_path):
    out, trials, chance = tmp_path / "out", KILLS + 1, random.Random(0)
    given = [place / "m.keras", "--data", place / "d.npz", "--out", out, "--trials", trials, "--epochs", "0", "--workers", 2]
    words = [sys.executable, "-m", "keras_xaic.cli", "search", *map(str, given), "--target", "mobile"]
    for number in range(KILLS):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        until = time.monotonic() + 60
        while number % 2 and not workers_of(process) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(1, 20))
        victims = workers_of(process) if number % 2 else [process.pid]
        killed = bool(victims) and process.poll() is None
        if killed:
            os.kill(chance.choice(victims), signal.SIGKILL)
        said, _ = process.communicate(timeout=600)
        assert process.returncode in ((4, 0) if number % 2 else (-signal.SIGKILL, 0)), said
        assert "Traceback" not in said
        assert process.returncode != 4 or "Run the same command again" in said
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    kept = optuna.load_study(study_name=STUDY, storage=sqlite_url(out / "study.db")).get_trials(deepcopy=False)
    assert {one.state.name for one in kept} <= {"COMPLETE", "FAIL", "WAITING"}  # of the first ones some may be left
    values = {}
    for one in kept:
        if one.state.name == "COMPLETE":
            assert values.setdefault(str(sorted(one.params.items())), one.values) == one.values
            assert (out / "trials" / str(one.number) / "model.tflite").stat().st_size == one.values[0]
    lost = {one.number for one in kept if one.state.name == "FAIL" and one.params}
    assert lost == {one.user_attrs["again"] for one in kept if "again" in one.user_attrs}  # each began once more
    assert len(read_front(out / "front.json").points) == sum(one.state.name == "COMPLETE" for one in kept) >= trials
    names = sorted(one.name for one in (out / "trials").iterdir())
    assert [name for name in names if name.endswith((".partial", ".xaic-lock"))] == []
