"""No public call leaves anything changed for the process, and none minds what the user has changed."""

from __future__ import annotations

import concurrent.futures
import contextvars
import logging
import os
import pathlib
import random
import signal
import sys
import tempfile
import threading
import warnings

import numpy as np
import pytest
from tensorflow.python.eager import context
from tensorflow.python.framework import config

import keras_xaic as xaic
from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import XaicWarning
from keras_xaic.objectives import SearchOptions
from keras_xaic.silence import captured_stderr, muted_stdout
from keras_xaic.usual import usual_keras

FEW = xaic.Device("mobile", baselines=())


def keras_generator():
    """The generator that Keras draws seeds from where `set_random_seed` made one."""
    return getattr(sys.modules[keras.backend.clear_session.__module__]._SEED_GENERATOR, "generator", None)


def snapshot():
    loggers = {name: one for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger)}
    return {
        "determinism": config.is_op_determinism_enabled(),
        "seed": context.global_seed(),
        "numpy": repr(np.random.get_state()),
        "numpy errors": np.geterr(),
        "random": random.getstate(),
        "seeds of TensorFlow": context.context()._rng.getstate(),
        "seeds of Keras": keras_generator() and keras_generator().getstate(),
        "policy": keras.mixed_precision.global_policy().name,
        "floatx": keras.backend.floatx(),
        "eagerly": tf.config.functions_run_eagerly(),
        "learning phase": int(keras.backend.learning_phase()),
        "handlers": [list(one.handlers) for one in (logging.root, tf.get_logger())],
        "levels": {name: one.level for name, one in loggers.items() if name.startswith(("tensorflow", "keras", "absl"))},
        "root": logging.root.level,
        "filters": list(warnings.filters),
        "environment": dict(os.environ),
        "place": os.getcwd(),
        "temporary": tempfile.gettempdir(),
        "signals": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)],
        "custom objects": sorted(keras.utils.get_custom_objects()),
    }


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("state")
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dropout(0.1), layers.Dense(3, "softmax")])
    x, y = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32), np.arange(60) % 3
    model.save(folder / "model.keras")
    np.savez(folder / "data.npz", x_train=x, y_train=y)
    relevance = xaic.attribute(model, x, y)
    bundle = xaic.export(model, folder / "bundle", calibration=(x, y), target="mobile", prove=False)
    made = xaic.plan(model, relevance, xaic.Budget(mean_bits=5))
    return {"folder": folder, "model": model, "data": (x, y), "relevance": relevance, "bundle": bundle, "plan": made}


CALLS = {
    "load_model": lambda j, out: xaic.load_model(j["folder"] / "model.keras"),
    "as_data": lambda j, out: xaic.as_data(j["data"]),
    "attribute": lambda j, out: xaic.attribute(j["model"], *j["data"]),
    "plan": lambda j, out: xaic.plan(j["model"], j["relevance"], xaic.Budget(mean_bits=5), data=j["data"]),
    "apply": lambda j, out: xaic.apply(j["model"], j["plan"], j["data"], training=xaic.Training(epochs=1)),
    "explain": lambda j, out: xaic.explain(j["model"], j["data"], out),
    "export": lambda j, out: xaic.export(j["model"], out, calibration=j["data"], target="mobile"),
    "slim": lambda j, out: xaic.slim(j["bundle"].model, out, data=j["data"], target="mobile"),
    "search": lambda j, out: xaic.search(
        j["folder"] / "model.keras",
        j["folder"] / "data.npz",
        out,
        effort=SearchOptions(trials=1),
        training=xaic.Training(epochs=1),
        device=FEW,
    ),
    "verify": lambda j, out: xaic.verify(j["bundle"], j["data"]),
    "compress": lambda j, out: xaic.compress(
        j["model"], j["data"], out=out, recipe="deeplift-mixed", device=FEW, training=xaic.Training(epochs=1)
    ),
}


DEAR = ("slim", "search")


@pytest.mark.parametrize("name", [pytest.param(one, marks=[pytest.mark.slow] if one in DEAR else []) for one in CALLS])
def test_the_process_is_as_before(job, tmp_path, name):
    np.random.seed(7)
    random.seed(7)
    warnings.filters[:] = list(warnings.filters)
    before = snapshot()
    CALLS[name](job, tmp_path / "out")
    after = snapshot()
    assert {key: (before[key], after[key]) for key in before if before[key] != after[key]} == {}


@pytest.fixture
def changed():
    """What users change for the whole process."""
    keras.backend.set_floatx("float64")
    keras.mixed_precision.set_global_policy("mixed_float16")
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
    keras.mixed_precision.set_global_policy("float32")
    keras.backend.set_floatx("float32")


@pytest.mark.parametrize("name", ["attribute", "plan", "apply", pytest.param("compress", marks=pytest.mark.slow)])
def test_what_users_change_for_the_process_does_not_matter(job, tmp_path, name, changed):
    before = snapshot()
    made = CALLS[name](job, tmp_path / "out")
    assert snapshot() == before
    assert made is not None
    if name == "attribute":
        for key, value in made.weights.items():
            np.testing.assert_allclose(value, job["relevance"].weights[key], atol=1e-6)
    if name == "compress":
        assert pathlib.Path(tmp_path / "out" / "model.tflite").is_file()


def one_after_another(block):
    """Has a thread enter a block while another one is in it, which leaves first; returns what the later one found inside."""
    inside, tried, found = threading.Event(), threading.Event(), []

    def first():
        with block():
            inside.set()
            tried.wait(0.5)

    def then():
        inside.wait()
        with block():
            tried.set()
            one.join()
            found.append(snapshot())

    one, two = threading.Thread(target=first), threading.Thread(target=then)
    for thread in (one, two):
        thread.start()
    for thread in (one, two):
        thread.join(60)
    return found[0]


def test_calls_of_several_threads_take_turns(changed):
    before = snapshot()
    within = one_after_another(usual_keras)
    assert (within["floatx"], within["policy"], within["eagerly"]) == ("float32", "float32", False)
    assert snapshot() == before


@pytest.mark.parametrize("block", [captured_stderr, muted_stdout])
def test_streams_come_back_after_several_threads(block):
    before = [os.fstat(number).st_ino for number in (1, 2)]
    one_after_another(block)
    assert [os.fstat(number).st_ino for number in (1, 2)] == before


def test_threads_of_a_call_belong_to_it(job):
    def attributed():
        return xaic.attribute(job["model"], *job["data"])

    with usual_keras(), concurrent.futures.ThreadPoolExecutor() as pool:
        assert pool.submit(contextvars.copy_context().run, attributed).result(60).weights


@pytest.mark.parametrize("name", ["attribute", "apply", "load_model", "export"])
def test_warnings_of_other_packages_are_no_errors_under_W_error(job, tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = snapshot()
        with warnings.catch_warnings(record=True):
            assert CALLS[name](job, tmp_path / "out") is not None
        assert snapshot() == before


def test_our_own_warnings_are_errors_where_users_want_them_to_be():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with usual_keras():
            with pytest.warns(DeprecationWarning, match="theirs"):
                warnings.warn("theirs", DeprecationWarning, stacklevel=1)
            with pytest.raises(XaicWarning, match="ours"):
                warnings.warn("ours", XaicWarning, stacklevel=1)
        with pytest.raises(DeprecationWarning, match="theirs"):
            warnings.warn("theirs", DeprecationWarning, stacklevel=1)


@pytest.mark.parametrize("name", ["attribute", "plan", "apply", "load_model", "explain", "export", "compress"])
def test_calls_where_eager_execution_is_off_say_so(job, tmp_path, name):
    def call():
        CALLS[name](job, tmp_path / "out")

    before = snapshot()
    with tf.Graph().as_default(), pytest.raises(xaic.PlanError, match="eager execution is off here"):
        call()
    with pytest.raises(xaic.PlanError, match="eager execution is off here"):
        tf.function(call, autograph=False)()
    assert snapshot() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("name", ["attribute", "apply", "load_model"])
def test_a_fork_of_a_process_that_used_tensorflow_says_so_and_does_not_hang(job, tmp_path, name):
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            CALLS[name](job, tmp_path / "out")
        except xaic.MachineError as error:
            os._exit(7 if "was forked" in str(error) and "spawn" in str(error) else 8)
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
