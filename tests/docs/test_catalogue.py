"""Every message of docs/errors.md is known to a test; those that no other file provokes are provoked here."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import sys
import types

import numpy as np
import pytest
from PIL import Image

import keras_xaic as xaic
from keras_xaic import cluster
from keras_xaic._keras import keras, layers, tf
from keras_xaic.data import images
from keras_xaic.errors import DataError, MachineError, ModelError, PlanError, XaicError
from keras_xaic.models.losses import check_loss
from keras_xaic.models.operations import Operations
from keras_xaic.models.savedmodels import read_variables
from keras_xaic.pipeline.activations import chosen_activations
from keras_xaic.planning import Plan, PlanOptions, plan
from keras_xaic.recipes import RECIPES
from keras_xaic.relevance.magnitude import magnitude
from keras_xaic.searching import study
from tools import error_catalogue

TESTS = pathlib.Path(__file__).parents[1]


def net():
    return keras.Sequential([layers.Input((3,)), layers.Dense(2, name="body"), layers.Dense(2, "sigmoid", name="head")])


def photos(folder, colours):
    """Images of two classes; gray ones to train on, and test images with or without colours."""
    for part, shape in (("train", (4, 4)), ("test", (4, 4, 3) if colours else (4, 4))):
        for name in "ab":
            (folder / part / name).mkdir(parents=True)
            pixels = np.random.default_rng(len(name)).integers(0, 255, shape).astype(np.uint8)
            Image.fromarray(pixels).save(folder / part / name / "1.png")
    return folder


class Free(keras.Model):
    """A model of its own code."""

    def call(self, inputs):
        return inputs


def recipe_of_a_list(folder):
    (folder / "mine.json").write_text(json.dumps([1]))
    return xaic.Recipe.load(folder / "mine.json")


X = np.ones((8, 3), np.float32)
TWO = {"x_train": {"a": X, "b": X}}
CASES = {
    "colours": (DataError, "has colours. Expected shades of gray", lambda at: xaic.as_data(photos(at, True))),
    "bounds": (
        DataError,
        "inputs of layer 'body' reach from 5 to 5",
        lambda at: xaic.attribute(net(), 5 * X, rule="lrp.z_box:0,1", target="predicted"),
    ),
    "large": (
        DataError,
        "Expected at most 3.4e+38, the largest value of float32",
        lambda at: xaic.as_data(1e300 * X.astype(float)),
    ),
    "scaled parts": (DataError, "scale is 2 and offset 0 for 2 inputs", lambda at: xaic.as_data(TWO, 2.0)),
    "yes or no": (
        DataError,
        "Expected 0 or 1 for the task multi-label",
        lambda at: xaic.compress(
            net(),
            (X, 3.0 * X[:, :2]),
            out=at / "o",
            options=xaic.DataOptions(task="multi-label"),
            training=xaic.Training(epochs=0),
        ),
    ),
    "no graph": (ModelError, "has no graph of layers", lambda at: Operations(Free())),
    "engine": (
        ModelError,
        "iNNvestigate 2 has no deeplift.rescale",
        lambda at: xaic.attribute(net(), X, rule="deeplift.rescale", engine="innvestigate", target="predicted"),
    ),
    "plan's activations": (
        PlanError,
        "activations float32 for a plan with int8",
        lambda at: chosen_activations(
            Plan(recipe="auto"), RECIPES["auto"].changed(activations="float32"), xaic.Budget(), xaic.Device()
        ),
    ),
    "bits": (PlanError, "bit-width 9. Expected whole numbers from 2 to 8", lambda at: PlanOptions(bits=(9,))),
    "clock": (
        PlanError,
        "a limit in milliseconds, which only a measurement tells",
        lambda at: plan(net(), magnitude(net()), xaic.Budget(latency="1ms")),
    ),
    "recipe": (PlanError, "holds a list. Expected a recipe: entries by name", recipe_of_a_list),
    "loss": (
        PlanError,
        "Expected a loss of one-hot labels. Use its form without 'sparse'",
        lambda at: check_loss(keras.losses.SparseCategoricalCrossentropy(ignore_class=1)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_says(name, tmp_path):
    kind, said, provoke = CASES[name]
    with pytest.raises(kind, match=re.escape(said)):
        provoke(tmp_path)


def test_images_that_are_too_large_are_not_unpacked(monkeypatch, tmp_path):
    monkeypatch.setattr(images, "MOST_PIXELS", 10)
    with pytest.raises(DataError, match=r"has 4 x 4 pixels\. Expected at most 10\. Resize the images"):
        xaic.as_data(photos(tmp_path, False))


def test_a_search_without_optuna_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(XaicError, match=r"`xaic search` needs Optuna\. pip install 'keras-xaic\[search\]'"):
        study._optuna()


@pytest.mark.slow
def test_a_saved_model_that_is_not_built_is_refused(monkeypatch, tmp_path):
    net().save(tmp_path / "saved", save_format="tf")
    unbuilt = classmethod(lambda kind, config: kind([layers.Dense(2)]))
    monkeypatch.setattr(keras.Sequential, "from_config", unbuilt)
    with pytest.raises(ModelError, match=r"holds a model without a known input shape\. Expected a built model"):
        xaic.load_model(tmp_path / "saved")


def test_a_checkpoint_that_is_too_short_for_its_arrays_is_refused(tmp_path):
    prefix = tf.train.Checkpoint(a=tf.Variable(np.ones(100, np.float32))).save(str(tmp_path / "variables"))
    with pytest.raises(ModelError, match=r"hold less of .* than they claim\. Expected whole files\. Copy the directory again"):
        read_variables(prefix, 10)


def test_a_cluster_out_of_reach_is_one_line():
    def init(**_):
        raise OSError("nobody is there")

    ray = types.SimpleNamespace(init=init, shutdown=lambda: None)
    with (
        pytest.raises(MachineError, match=r"the cluster 10\.0\.0\.1:1 cannot be joined \(.*nobody is there\)"),
        contextlib.ExitStack() as stack,
    ):
        cluster._start(ray, "10.0.0.1:1", stack)


ELSEWHERE = {
    "... is not a report: ...: ...": "report/test_schema.py",
    "... is damaged: ...": "edge/test_verification.py",
    "...: entry ... claims ... B, ... B of which are there": "models/test_hostile_files.py",
    "none of ... models in ... meets ...": "search/test_study.py",
    "...: ..., which would run when the model is loaded or used": "models/test_loading.py",
}
"""Messages whose tests look for words that are filled in."""


def parts(text):
    """The words of a message that stand next to each other, from two on."""
    for piece in text.split("..."):
        words = piece.split()
        for count in (4, 3, 2):
            yield from (" ".join(words[at : at + count]) for at in range(len(words) - count + 1))


def test_every_message_is_known_to_a_test():
    said = "\n".join(file.read_text(encoding="utf-8") for file in TESTS.rglob("*.py"))
    said = " ".join(re.sub(r"\\(.)", r"\1", said).split())
    unknown = []
    for messages in error_catalogue.families().values():
        for one in messages:
            known = [part for part in parts(one.found) if len(part) > 9]
            known += [part for text in (one.expected, one.fix) for part in parts(text) if len(part) > 13]
            if one.found not in ELSEWHERE and not any(part in said for part in known):
                unknown.append((one.found, one.fix))
    assert unknown == []
