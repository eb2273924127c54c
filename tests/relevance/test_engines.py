"""The two engines on the same nets, and what goes with a result: comparison, tables, pictures."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.relevance import (
    Attribution,
    Relevance,
    as_csv,
    attribute,
    compare,
    cross_check,
    layer_rows,
    plot_layers,
    save_pictures,
)
from tests.relevance.nets import auto_encoder, residual_net


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (residual_net, "lrp.alpha_2_beta_1"),
        (auto_encoder, "lrp.epsilon"),
        *(pytest.param(residual_net, rule, marks=pytest.mark.slow) for rule in ("lrp.epsilon", "lrp.z_plus")),
        *(pytest.param(auto_encoder, rule, marks=pytest.mark.slow) for rule in ("lrp.z_plus", "lrp.alpha_2_beta_1")),
    ],
)
def test_engines_agree(make, rule):
    rows = cross_check(*make(), rule=rule)
    assert len(rows) == {"residual_net": 7, "auto_encoder": 4}[make.__name__]
    assert max(row.relative for row in rows) <= 1e-4, rows


def test_comparison_finds_a_difference_and_says_where():
    a = Relevance({"x": np.array([1.0, 4.0]), "y": np.ones(2)}, {}, {}, "r")
    b = Relevance({"x": np.array([1.0, 3.0]), "y": np.ones(2)}, {}, {}, "r")
    rows = {row.name: (row.largest, row.relative) for row in compare(a, b)}
    assert rows == {"x": (1.0, 0.25), "y": (0.0, 0.0)}


def test_the_users_model_still_trains_after_both_engines():
    model, x, y = residual_net()
    cross_check(model, x, y)
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_weights()[0].copy()
    model.fit(x, y, verbose=0)
    assert np.any(before != model.get_weights()[0])


def test_a_larger_stabiliser_makes_input_relevance_of_residual_nets_stable():
    model, x, y = residual_net()
    noise = 1 + 1e-4 * np.random.default_rng(3).normal(0, 1, x.shape).astype(np.float32)

    def change(rule):
        attribution = Attribution(model, rule=rule)
        a, b = (attribution.input_relevance(v, y)[0] for v in (x, x * noise))
        return np.abs(a - b).sum() / np.abs(a).sum()

    assert change("lrp.epsilon:0.1") < change("lrp.epsilon")


def test_table_of_layers():
    model, x, y = residual_net()
    relevance = attribute(model, x, y, reduce="mean")
    rows = layer_rows(model, relevance)
    assert [row.name for row in rows] == list(relevance.layers)
    stem = rows[0]
    assert (stem.name.split("/")[0], stem.kind, stem.weights, stem.filters) == ("stem", "conv", 162, 6)
    assert 0 < stem.effective_filters <= 6
    assert 0 < stem.negative < 1
    lines = as_csv(rows).splitlines()
    assert lines[0].startswith("name,kind,relevance,weights,filters")
    assert len(lines) == 1 + len(rows)


def test_effective_filters_count_equals():
    relevance = Relevance({"out": np.ones((2, 4))}, {"out": np.array([1.0, 1.0, 0.0, 0.0])}, {"out": 2.0}, "r")
    model = keras.Sequential([keras.Input((2,)), layers.Dense(4, name="out")])
    assert layer_rows(model, relevance)[0].effective_filters == pytest.approx(2.0)


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 8, 1), (9, 2), (5,), (60,)])
def test_pictures_for_images_sequences_and_tables(shape, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(3, activation="softmax")])
    x = np.random.default_rng(0).normal(0, 1, (3, *shape)).astype(np.float32)
    files = save_pictures(Attribution(model), x, np.array([0, 1, 2]), out=tmp_path / "pictures", count=2)
    assert [file.name for file in files] == ["sample-000.png", "sample-001.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_layer_chart():
    model, x, y = auto_encoder()
    relevance = attribute(model, x, y)
    bars = plot_layers(relevance).axes[0].patches
    assert [bar.get_width() for bar in bars] == pytest.approx(list(relevance.layers.values()))


def test_a_notebook_shows_a_table_of_layers():
    model, x, y = auto_encoder()
    relevance = attribute(model, x, y)
    shown = relevance._repr_html_()
    assert shown.count("<tr>") == 1 + len(relevance.layers)
    assert all(f"<td>{name}</td>" in shown for name in relevance.layers)
    assert "&lt;b&gt;" in Relevance({}, {}, {"<b>": 1.0}, "r")._repr_html_()
