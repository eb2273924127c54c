"""Objects come back from their files as they were, compare equal, print briefly and show in notebooks."""

from __future__ import annotations

import copy
import os
import pathlib
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers, tf
from keras_xaic.cli.terminal import Terminal
from keras_xaic.edge.measured import InterpreterRun, Verification
from keras_xaic.errors import EdgeError
from keras_xaic.metrics import Task
from keras_xaic.pipeline.board_projects import write_project
from keras_xaic.pipeline.explaining import Explanation
from keras_xaic.planning import PlanOptions
from keras_xaic.report import shown_value


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu", name="a"), layers.Dense(3, "softmax", name="b")])
    x, y = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32), np.arange(40) % 3
    relevance = xaic.attribute(model, x, y, per_class=True)
    report = xaic.Report(recipe="auto", verdict="It <fits>.", compressed={"flash_bytes": 1234, "edge_metric": 0.9})
    return {
        "Relevance": relevance,
        "Plan": xaic.plan(model, relevance, xaic.Budget(mean_bits=5)),
        "Report": report,
        "Recipe": xaic.Recipe(name="mine", rule="lrp.epsilon", bits=(4, 8)),
        "Data": xaic.Data(xaic.Samples(x, y), classes=("<fits>", "b", "c")),
        "Explanation": Explanation(relevance, [], []),
        "Verification": Verification(
            path=pathlib.Path("<fits>"),
            task=Task("classification", 3),
            samples=40,
            part="test",
            flash_bytes=1234,
            micro_flash_bytes=None,
            download_bytes=None,
            sha256="",
            changed=None,
            runs={"litert": InterpreterRun("litert", error=EdgeError("<fits>")), "tflm": InterpreterRun("tflm", value=0.5)},
        ),
        "model": model,
        "data": (x, y),
    }


NAMES = {"Relevance": "relevance.npz", "Plan": "plan.json", "Report": "report.json", "Recipe": "recipe.json"}


@pytest.mark.parametrize("kind", list(NAMES))
def test_files_give_back_what_was_saved_wherever_it_is(made, kind, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (tmp_path / "not" / "there" / NAMES[kind], f"~/home/{NAMES[kind]}"):
        made[kind].save(path)
        again = type(made[kind]).load(path)
        assert again == made[kind]
    assert (tmp_path / "home" / NAMES[kind]).is_file()


def test_other_relevance_is_not_equal(made):
    one = made["Relevance"]
    other = xaic.attribute(made["model"], *made["data"], per_class=True)
    assert one == other
    other.weights["a"][0, 0] += 1
    assert one != other
    assert one != "relevance"


@pytest.mark.parametrize("kind", ["Relevance", "Plan", "Report", "Data", "Explanation", "Verification"])
def test_objects_print_briefly_and_show_in_notebooks(made, kind):
    assert len(repr(made[kind])) < 1500
    page = made[kind]._repr_html_()
    assert page.startswith("<table")
    assert "<fits>" not in page


def test_small_errors_are_told_apart_in_a_terminal(made, capsys):
    runs = {"litert": InterpreterRun("litert", value=0.0000213)}
    known = replace(made["Verification"], task=Task("regression", 1), runs=runs, micro_flash_bytes=None)
    Terminal().show_verification(known)
    said = capsys.readouterr()
    assert (said.out + said.err).count("2.13e-05") == 2
    assert (shown_value("metric", -0.0000213), shown_value("metric", 0.5)) == ("-2.13e-05", "0.5000")


def test_data_models_and_bundles_print_briefly(made, tmp_path):
    data = xaic.as_data(made["data"])
    assert repr(data.train) == "<40 Samples: x (40, 6) float32, y (40,) int64>"
    small = xaic.apply(made["model"], made["Plan"], data, training=xaic.Training(epochs=0))
    assert repr(small).startswith("<CompressedModel 'sequential")
    assert len(repr(small)) < 120
    bundle = xaic.export(small, tmp_path / "deep" / "bundle", calibration=data, target="mobile", prove=False)
    assert bundle == xaic.Bundle(str(bundle.path))
    assert "model.tflite" in bundle._repr_html_()
    assert str(bundle) == str(tmp_path / "deep" / "bundle")


def test_data_is_equal_to_its_copies_and_to_no_other(made, tmp_path):
    x, y = made["data"]
    several = xaic.as_data(({"a": x, "b": x[:, :2]}, y))
    for data in (xaic.as_data((x, y)), several):
        for same in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
            assert same == data
        assert data != replace(data, train=replace(data.train, y=y + 1))
        assert data != replace(data, train=replace(data.train, scale=2.0))
        assert data.train != data
    assert several.train != xaic.as_data(({"b": x, "a": x[:, :2]}, y)).train


def test_a_bundle_stands_wherever_its_path_does(made, tmp_path):
    small = xaic.apply(made["model"], made["Plan"], made["data"], training=xaic.Training(epochs=0))
    bundle = xaic.export(small, tmp_path / "bundle", calibration=made["data"], target="mobile", prove=False)
    assert pathlib.Path(bundle) == bundle.path
    assert sorted(os.listdir(bundle)) == sorted(one.name for one in bundle.path.iterdir())
    for given in (bundle, bundle.path, str(bundle.path)):
        np.testing.assert_array_equal(xaic.CompressedModel.load(given).model(made["data"][0]), small.model(made["data"][0]))
    with pytest.raises(xaic.DataError, match="holds no micro"):
        write_project(bundle, "cmake", tmp_path / "project")


@pytest.mark.parametrize("entry", [{"bits": "many"}, {"bits": 99}, {"sparsity": 2.0}, {"storage": "int3"}, {"colour": 1}])
def test_copies_with_other_entries_are_validated(made, entry):
    layer = made["Plan"].layers[0]
    for change in (
        layer.changed,
        lambda **entries: layer.model_copy(update=entries),
        partial(getattr(copy, "replace", replaced), layer),
    ):
        with pytest.raises(xaic.PlanError, match=next(iter(entry))):
            change(**entry)
        assert change(bits=3).bits == 3
    with pytest.raises(xaic.PlanError, match="filters"):
        made["Plan"].model_copy(update={"filters": {"a": 3}})
    assert made["Plan"].model_copy(deep=True) == made["Plan"]


def replaced(one, **entries):
    return one.__replace__(**entries) if hasattr(one, "__replace__") else one.changed(**entries)


def test_numbers_of_numpy_are_numbers():
    options = PlanOptions(bits=np.array([4, 8]), pin={"a": np.int64(8)}, sparsity=np.float32(0.5), align=np.int64(2))
    assert options == PlanOptions(bits=(4, 8), pin={"a": 8}, sparsity=0.5, align=2)
    assert PlanOptions(bits=np.int64(4)).bits == (4,)


def test_attribute_takes_what_compress_takes(made, tmp_path):
    x, y = made["data"]
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y)
    made["model"].save(tmp_path / "model.keras")
    expected = xaic.attribute(made["model"], x, y)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    for given in (tmp_path / "data.npz", str(tmp_path / "data.npz"), dataset, xaic.as_data((x, y))):
        assert xaic.attribute(pathlib.Path(tmp_path / "model.keras"), given) == expected


def test_attribute_takes_lists_and_tables_and_no_masked_values(made):
    x, y = made["data"]
    expected = xaic.attribute(made["model"], x, y)
    pandas = pytest.importorskip("pandas")
    for given in (x.tolist(), [x], [x.tolist()], tuple(map(tuple, x.tolist())), pandas.DataFrame(x).astype("Float32")):
        assert xaic.attribute(made["model"], given, y.tolist()) == expected
    with pytest.raises(xaic.DataError, match="masked"):
        xaic.attribute(made["model"], np.ma.masked_greater(x, 1.0), y)
    with pytest.raises(xaic.DataError, match="masked"):
        xaic.attribute(made["model"], x, np.ma.masked_equal(y, 1))


def test_there_is_one_type_of_progress(made, tmp_path):
    told = []

    def progress(stage, done, total, note=""):
        told.append(stage)

    xaic.attribute(made["model"], *made["data"], progress=progress)
    xaic.explain(made["model"], made["data"], tmp_path / "out", progress=progress)
    assert set(told) >= {"attribute", "load"}
