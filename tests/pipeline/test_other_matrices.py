"""Matrices in no kernel, such as those of embeddings, get fewer bits under a limit on the download."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic import tflite
from keras_xaic._keras import keras, layers
from keras_xaic.data import Data, Samples
from keras_xaic.edge import judge, run_file
from keras_xaic.errors import PlanError
from keras_xaic.models.kernels import other_matrices
from keras_xaic.pipeline.inputs import check_names
from keras_xaic.pipeline.other_matrices import OtherMatrices
from keras_xaic.pipeline.size_fitting import SizeFitter
from keras_xaic.planning import Budget, Plan, PlanOptions
from keras_xaic.quantization.other_weights import bits_of, coded_bytes, round_others
from keras_xaic.recipes import RECIPES
from keras_xaic.relevance.magnitude import magnitude

WORDS, LENGTH = 400, 12


@pytest.fixture(scope="module")
def text():
    """A classifier of texts whose embeddings hold most of the weights, and its data."""
    keras.utils.set_random_seed(0)
    words = keras.Input((LENGTH,), dtype="int32")
    tables = [layers.Embedding(WORDS, width, name=name)(words) for name, width in (("words", 16), ("topics", 4))]
    x = layers.GlobalAveragePooling1D()(layers.Concatenate()(tables))
    model = keras.Model(words, layers.Dense(2, "softmax", name="head")(layers.Dense(16, "relu", name="body")(x)))
    random = np.random.default_rng(0)
    x, worth = random.integers(0, WORDS, (600, LENGTH)).astype(np.int32), random.normal(size=WORDS)
    y = (worth[x].mean(1) > 0).astype(np.int32)
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=4, verbose=0)
    return model, Data(Samples(x, y))


def _fitter(text, **entries):
    model, data = text
    recipe = RECIPES["auto"].changed(**entries)
    return SizeFitter(model, magnitude(model), recipe, data, data.train.take(slice(64)))


def test_matrices_are_rounded_to_so_many_levels_and_no_more(text):
    model = keras.models.clone_model(text[0])
    model.set_weights(text[0].get_weights())
    before = {name: [one.numpy() for one in matrices] for name, matrices in other_matrices(model).items()}
    round_others(model, {"words": 3})
    table, topics = (model.get_layer(name).embeddings.numpy() for name in ("words", "topics"))
    assert bits_of(before["words"][0]) == 8
    assert len(np.unique(table)) <= 7
    assert np.corrcoef(table.ravel(), before["words"][0].ravel())[0, 1] > 0.9
    np.testing.assert_array_equal(topics, before["topics"][0])
    round_others(model, {"words": 3})
    np.testing.assert_array_equal(model.get_layer("words").embeddings.numpy(), table)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_bytes_are_those_of_the_container(text, bits):
    model = keras.models.clone_model(text[0])
    model.set_weights(text[0].get_weights())
    x, table = text[1].train.x[:32], text[0].get_layer("words").embeddings.numpy()
    first = len(tflite.pack_download(tflite.build_tflite(model, x)))
    round_others(model, {"words": bits})
    saved = first - len(tflite.pack_download(tflite.build_tflite(model, x)))
    assert saved == pytest.approx(coded_bytes(table, 8) - coded_bytes(table, bits), abs=0.12 * coded_bytes(table, 8))


def test_layers_lose_bits_where_outputs_move_least_for_a_byte(text):
    model, data = text
    others = OtherMatrices(model, data.train, PlanOptions(bits=(2, 4, 8)))
    steps = others._steps
    assert steps[0] == {}
    assert steps[-1] == {"words": 2, "topics": 2}
    assert len(steps) == 5
    sizes = [others.coded_bytes(one) for one in steps]
    assert sizes == sorted(sizes, reverse=True)
    pinned = OtherMatrices(model, data.train, PlanOptions(bits=(2, 4, 8), pin={"words": 5}))
    assert [one["words"] for one in pinned._steps] == [5, 5, 5]


def test_a_limit_that_kernels_alone_cannot_meet_is_met(text):
    fitter = _fitter(text)
    plain = fitter.fitting(Budget(mean_bits=8))
    assert plain.rounded == {}
    made = fitter.fitting(Budget(download=plain.predicted_download_bytes // 2))
    assert made.predicted_download_bytes <= plain.predicted_download_bytes // 2
    assert made.sparsity < 0.9
    assert set(made.rounded) <= {"words", "topics"}
    assert made.rounded
    roomy = fitter.fitting(Budget(download=2 * plain.predicted_download_bytes))
    assert roomy.rounded == {}, "a limit that binds nothing rounds nothing"
    assert _fitter(text, pin={"words": 8, "topics": 8}).fitting(made.budget).rounded == {}


@pytest.mark.parametrize("share", [0.97, 0.9])
def test_structure_that_no_prediction_knows_is_measured(text, monkeypatch, share):
    structure, pack = bytes(30_000), tflite.pack_download  # as of layers that are unrolled: several times the weights
    monkeypatch.setattr(tflite, "pack_download", lambda content: pack(content) + structure)
    fitter = _fitter(text)
    plain = fitter.fitting(Budget(mean_bits=8)).predicted_download_bytes
    limit = round(share * plain)
    made = fitter.fitting(Budget(download=limit))
    assert 0.97 * limit < made.predicted_download_bytes <= limit
    assert set(made.rounded.values()) & {3, 4, 5, 6}, "no more bits go than the limit asks for"
    assert not made.remove


def test_rounded_matrices_stay_while_the_rest_is_trained(text):
    model, data = text
    head = {"key": "head", "kind": "dense", "weights": 32, "bits": 8, "granularity": "channel", "storage": "int8"}
    made = Plan(layers=[head], rounded={"words": 4})
    small = xaic.apply(model, made, data, training=xaic.Training(epochs=1, seed=0))
    for one in (small.model, small.trainable):
        assert len(np.unique(one.get_layer("words").embeddings)) <= 15
        assert one.get_layer("words").trainable, "it was frozen while the others were trained"
    assert not np.array_equal(small.model.get_layer("topics").embeddings, model.get_layer("topics").embeddings)
    assert len(np.unique(model.get_layer("words").embeddings)) > 1_000, "the user's model is as it was"
    again = OtherMatrices(small.trainable, data.train, PlanOptions())
    assert again.kept == {"words": 4}, "the next round knows"
    assert again._steps[0] == {"words": 4}


def test_a_plan_names_layers_with_such_matrices(text, tmp_path):
    model, data = text
    with pytest.raises(PlanError, match=r"matrices of 'head' that are in no kernel\. Expected one of words, topics"):
        xaic.apply(model, Plan(rounded={"head": 4}), data)
    with pytest.raises(PlanError, match=r"rounded\.words: Input should be less than or equal to 8"):
        Plan(rounded={"words": 9})
    made = Plan(rounded={"words": 4})
    made.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == made
    assert "rounded for the download" in made.describe()
    check_names(model, RECIPES["auto"].changed(pin={"words": 8}))
    with pytest.raises(PlanError, match="no layer matches 'wrds'"):
        check_names(model, RECIPES["auto"].changed(pin={"wrds": 8}))


def test_a_bundle_keeps_its_limit_and_its_outputs(text, tmp_path):
    model, data = text
    plain = len(tflite.pack_download(tflite.build_tflite(model, data.train.x[:64])))
    report = xaic.compress(
        model,
        data,
        budget=xaic.Budget(download=plain // 2, max_drop=10),
        training=xaic.Training(epochs=1, seed=0),
        device=xaic.Device(target="mobile", baselines=()),
        out=tmp_path / "small",
    )
    made = Plan.load(tmp_path / "small" / "plan.json")
    assert made.rounded
    assert report.compressed.download_bytes <= plain // 2
    assert report.compressed.edge_metric > report.original.edge_metric - 0.1
    assert any("For the limit on the download they were rounded; bits: words" in one for one in report.warnings)
    loaded = xaic.CompressedModel.load(tmp_path / "small")
    x = data.train.x[:50]
    outputs = run_file(tmp_path / "small" / "model.tflite", x, interpreter=judge()).outputs
    assert np.abs(outputs - loaded.model.predict(x, verbose=0)).max() < 0.06
