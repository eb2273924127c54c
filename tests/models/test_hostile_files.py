"""Damaged and hostile model files: one line each, soon, without taking the machine's memory."""

from __future__ import annotations

import copy
import cProfile
import gc
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import weakref
import zipfile

import h5py
import numpy as np
import pytest

from keras_xaic import isolation
from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import ModelError
from keras_xaic.hdf5 import clean_copy
from keras_xaic.models import limits, loading
from keras_xaic.models.loading import load_model, save_model

MODULES = str(pathlib.Path(__file__).parents[2])


def sequence_model():
    start = keras.Input((8, 2), name="start")
    one = layers.LSTM(3, return_sequences=True, name="lstm")(start)
    two = layers.Conv1D(3, 3, padding="same", name="conv")(start)
    both = layers.UpSampling1D(2, name="up")(layers.Add(name="add")([one, two]) * 2.0)
    return keras.Model(start, layers.Dense(2, name="dense")(layers.GlobalAveragePooling1D(name="mean")(both)))


def error_of(path, seconds=10.0):
    before = time.process_time()
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert time.process_time() - before < seconds
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edited(path, target, change):
    """Copies a .keras archive with `change` made to its configuration."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(contents["config.json"])
    change(config)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in {**contents, "config.json": json.dumps(config).encode()}.items():
            archive.writestr(name, content)
    return target


def layer_of(config, name):
    return next(layer for layer in config["config"]["layers"] if layer["name"] == name)


def set_call(name, number, value):
    def change(config):
        layer_of(config, name)["inbound_nodes"][0][0][number] = value

    return change


def set_setting(name, key, value):
    def change(config):
        layer_of(config, name)["config"][key] = value

    return change


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("value", [0.5, -1, True, None, "0", 7, 1e300, 10**30])
def test_calls_that_are_no_counting_numbers_are_refused_instead_of_waiting_forever(tmp_path, number, value):
    save_model(sequence_model(), tmp_path / "m.keras")
    error_of(edited(tmp_path / "m.keras", tmp_path / "bad.keras", set_call("add", number, value)))


def test_a_call_index_of_one_half_is_refused_in_h5_files_too(tmp_path):
    sequence_model().save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        config = json.loads(file.attrs["model_config"])
        set_call("add", 1, 0.5)(config)
        file.attrs["model_config"] = json.dumps(config)
    assert "'add' is called with output 0.5 of 'lstm'" in error_of(tmp_path / "m.h5")


def test_tensors_among_settings_that_no_layer_makes_do_not_hang_keras(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 1.0)
    start = keras.Input((4,), name="start")
    model = keras.Model(start, layers.Dense(2)(start + layers.Dense(4, name="other")(start)))
    save_model(model, tmp_path / "m.keras")

    def change(config):
        layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "TFOpLambda")
        layer["inbound_nodes"][0][3]["y"][2] = 9

    error_of(edited(tmp_path / "m.keras", tmp_path / "bad.keras", change))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("dense", "units", 10**10), ("conv", "kernel_size", [10**10]), ("lstm", "units", 10**7), ("conv", "filters", 10**15)],
)
def test_layers_that_claim_more_weights_than_the_file_holds_are_refused_before_memory_is_taken(tmp_path, name, key, value):
    save_model(sequence_model(), tmp_path / "m.keras")
    message = error_of(edited(tmp_path / "m.keras", tmp_path / "bad.keras", set_setting(name, key, value)))
    assert "claim" in message


def test_layers_that_unroll_forever_are_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 0.5)
    save_model(sequence_model(), tmp_path / "m.keras")

    def change(config):
        layer_of(config, "start")["config"]["batch_input_shape"] = [None, 10**5, 2]
        layer_of(config, "lstm")["config"]["unroll"] = True

    assert "more time or memory" in error_of(edited(tmp_path / "m.keras", tmp_path / "bad.keras", change))
    error_of(edited(tmp_path / "m.keras", tmp_path / "bad2.keras", set_setting("up", "size", 10**7)))


def test_graphs_that_ran_out_of_memory_are_never_deleted():
    """TensorFlow may have left them locked: the garbage collector would wait forever."""

    def fail(error):
        graph = tf.Graph()
        kept.append(weakref.ref(graph))
        raise error

    kept = []
    for error in (MemoryError(), ValueError()):
        with pytest.raises(type(error)), limits.bounded("a file", 10):
            fail(error)
    del error
    until = time.monotonic() + 5.0
    while gc.collect() is not None and kept[1]() is not None and time.monotonic() < until:
        time.sleep(0.1)  # it does nothing while another thread collects
    assert [one() is not None for one in kept] == [True, False]


def profiled():
    """In a child: a function is called under a profiler after a block with limits."""
    with limits.bounded("a file", 10):
        pass
    profiler = cProfile.Profile()
    profiler.runcall(len, "abc")
    profiler.runcall(lambda: None)
    return {"calls": len(profiler.getstats())}


def test_after_a_file_was_read_python_can_be_profiled():
    """An exception that was called off would be looked for at every call, which Python 3.11 never comes back from."""
    assert isolation.run_isolated(f"{__name__}:profiled", timeout=60, preload="keras_xaic.pipeline")["calls"] > 1


def test_who_catches_the_end_of_the_time_ends_nevertheless(monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 0.05)

    def busy(seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass

    def stubborn():
        with limits.bounded("a file", 10):
            try:
                busy(20)
            except BaseException as caught:
                kept.append(type(caught))

    kept = []
    with pytest.raises(ModelError, match="more time or memory"):
        stubborn()
    assert kept == [limits._TooMuch]
    busy(2 * limits._AGAIN)  # nothing comes after the end


def test_deep_nesting_is_one_line(tmp_path):
    save_model(sequence_model(), tmp_path / "m.keras")
    path = edited(tmp_path / "m.keras", tmp_path / "bad.keras", lambda config: None)
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    for deep in (b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' * 900 + b"1" + b"}" * 900):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**contents, "config.json": deep}.items():
                archive.writestr(name, content)
        error_of(path)


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5"])
def test_zip_members_that_unpack_to_many_times_the_archive_are_refused(tmp_path, member):
    save_model(sequence_model(), tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    bomb = tmp_path / "bomb.keras"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in {**contents, member: contents[member] + b" " * 90_000_000}.items():
            archive.writestr(name, content)
    assert bomb.stat().st_size < 300_000
    assert "unpacks to" in error_of(bomb)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_unusual_zip_methods_are_refused(tmp_path, method):
    save_model(sequence_model(), tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as old, zipfile.ZipFile(tmp_path / "bad.keras", "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "unusual" in error_of(tmp_path / "bad.keras")


def test_arrays_without_their_bytes_are_refused(tmp_path):
    sequence_model().save(tmp_path / "m.h5")
    for name, options in {"plain": {}, "packed": {"chunks": (1000, 1000), "compression": "gzip"}}.items():
        with h5py.File(tmp_path / "m.h5", "a") as file:
            file.create_dataset(name, (2000, 2000), dtype="f4", **options)
        assert f"/{name} claims 16,000,000 B, 0 B" in error_of(tmp_path / "m.h5")
        with h5py.File(tmp_path / "m.h5", "a") as file:
            del file[name]
    load_model(tmp_path / "m.h5")


def test_weights_that_are_no_numbers_are_named(tmp_path):
    model = sequence_model()
    model.get_layer("dense").set_weights([np.full((3, 2), np.nan), np.zeros(2)])
    model.save(tmp_path / "m.h5")
    assert "dense" in error_of(tmp_path / "m.h5")


def test_optimizer_states_are_not_read(tmp_path):
    model = sequence_model()
    model.compile("adam", "mse")
    model.fit(np.zeros((4, 8, 2)), np.zeros((4, 2)), verbose=0)
    model.save(tmp_path / "m.h5")
    values = clean_copy(tmp_path / "m.h5", tmp_path / "clean.h5", "m.h5")
    assert values == model.count_params()
    with h5py.File(tmp_path / "clean.h5") as file:
        assert set(file) == {"model_weights"}
    np.testing.assert_array_equal(
        load_model(tmp_path / "m.h5").predict(np.ones((1, 8, 2)), verbose=0), model(np.ones((1, 8, 2)))
    )


@pytest.mark.parametrize("death", [pytest.param("SIGXCPU", marks=pytest.mark.slow), "SIGSEGV", "MemoryError"])
def test_a_file_that_kills_its_reader_is_one_line(tmp_path, monkeypatch, death):
    (tmp_path / "m.h5").write_bytes(b"anything")
    ends = {
        "SIGXCPU": "while True: pass",
        "SIGSEGV": f"__import__('os').kill(__import__('os').getpid(), {int(signal.SIGSEGV)})",
        "MemoryError": "bytearray(4 * 1024**3)",
    }
    # The library's own faults are not ours to reproduce: a reader that ends the same way stands for them.
    stub = tmp_path / "h5py.py"
    stub.write_text(f"class File:\n    def __init__(self, *_):\n        {ends[death]}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(isolation, "_workers", {})  # a worker looks for modules where its parent did when it was started
    try:
        with pytest.raises(ModelError) as caught:
            clean_copy(tmp_path / "m.h5", tmp_path / "clean.h5", "m.h5")
    finally:
        isolation._close()
    assert ("more memory" if death == "MemoryError" else death) in str(caught.value)


VALUES = [
    -1,
    0,
    1,
    0.5,
    1e308,
    10**9,
    2**63,
    10**30,
    True,
    None,
    "",
    "x",
    [],
    [[]],
    {},
    ["lstm", 0.5, 0],
    ["lstm", 0, 7],
    "\x00",
]


def places(value, path=()):
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from places(part, (*path, key))


def light_model():
    """As `sequence_model`, but quick to build."""
    start = keras.Input((8, 2), name="start")
    both = layers.Add(name="add")([layers.Conv1D(3, 3, padding="same", name=name)(start) for name in ("conv", "lstm")]) * 2.0
    return keras.Model(start, layers.Dense(2)(layers.Flatten()(layers.UpSampling1D(2)(both))))


def mutate_configurations(directory, monkeypatch, count, seed):
    """Loads `count` files with one wrong value each in the configuration, and returns how many were refused."""
    monkeypatch.setattr(limits, "SECONDS", 3.0)
    save_model(light_model(), directory / "m.keras")
    values = clean_copy_of(directory / "m.keras")
    # The weights of all of them are the same, sound ones, so they need no child process each.
    monkeypatch.setattr(loading, "clean_copy", lambda old, new, name: new.write_bytes(old.read_bytes()) and values)
    chance, refused = random.Random(seed), []
    for _ in range(count):

        def change(config):
            path = chance.choice(list(places(config)))
            inner = config
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = copy.deepcopy(chance.choice(VALUES))

        bad = edited(directory / "m.keras", directory / "bad.keras", change)
        before = time.process_time()
        try:
            load_model(bad)
        except ModelError as error:
            refused.append(str(error))
        assert time.process_time() - before < 10
    assert not any("\n" in message for message in refused)
    return len(refused)


def clean_copy_of(path):
    with zipfile.ZipFile(path) as archive:
        (path.parent / "weights.h5").write_bytes(archive.read("model.weights.h5"))
    return clean_copy(path.parent / "weights.h5", path.parent / "clean.h5", "weights")


READER = """
import os, pathlib, random, resource, sys
from keras_xaic.errors import ModelError
from keras_xaic.hdf5 import copy_here
name, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
content = pathlib.Path(name).read_bytes()
chance = random.Random(seed)
for number in range(count):
    bad = bytearray(content)
    for _ in range(chance.choice([1, 1, 3, 20])):
        bad[chance.randrange(len(bad))] = chance.choice([0, 255, chance.randrange(256)])
    pathlib.Path(name + ".bad").write_bytes(bad)
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (2 * 1024**3, 2 * 1024**3))
        try:
            copy_here(name + ".bad", name + ".clean", "bad")
        except ModelError as error:
            os._exit(1 if "\\n" not in str(error) else 3)
        except BaseException:
            os._exit(2)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status))
"""


def mutate_bytes(path, count, seed):
    """Copies `count` files with wrong bytes, each in a process of its own, and returns how they ended."""
    environment = {**os.environ, "PYTHONPATH": MODULES}
    done = subprocess.run(
        [sys.executable, "-c", READER, str(path), str(count), str(seed)], capture_output=True, env=environment, check=True
    )
    return [int(line) for line in done.stdout.split()]


def test_wrong_values_anywhere_in_a_configuration_are_one_line_each(tmp_path, monkeypatch):
    assert 15 < mutate_configurations(tmp_path, monkeypatch, 40, seed=5) < 40


def test_wrong_bytes_anywhere_in_hdf5_are_one_line_each(tmp_path):
    sequence_model().save(tmp_path / "m.h5")
    ends = mutate_bytes(tmp_path / "m.h5", 150, seed=1)
    assert len(ends) == 150
    assert ends.count(1) > 10
    assert not {2, 3} & set(ends)  # no other error than ours; a signal is what `clean_copy` is for


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(4))
def test_thousands_of_wrong_values_and_bytes(tmp_path, monkeypatch, seed):
    sequence_model().save(tmp_path / "m.h5")
    ends = mutate_bytes(tmp_path / "m.h5", 2000, seed)
    assert len(ends) == 2000
    assert not {2, 3} & set(ends)
    mutate_configurations(tmp_path, monkeypatch, 500, seed)


def test_damaged_saved_models_are_one_line(tmp_path):
    model = keras.Sequential([layers.Input((2,)), layers.Dense(3)])
    model.save(tmp_path / "sound")
    variables = tmp_path / "sound" / "variables"
    index = next(variables.glob("*.index"))
    content = index.read_bytes()
    index.write_bytes(content[: len(content) // 2])
    error_of(tmp_path / "sound")
    index.write_bytes(content)
    data = next(variables.glob("*.data*"))
    data.write_bytes(data.read_bytes()[:-9])
    error_of(tmp_path / "sound")
