"""Where relevance starts in a model with several outputs, and what that does to plans and training."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.data import Data, Parts, Samples
from keras_xaic.errors import DataError, PlanError
from keras_xaic.models import canonicalize, fitted, infer_task, weighted_kernels
from keras_xaic.planning.output_divergence import hessian_traces, measured_damage
from keras_xaic.relevance import Attribution, attribute
from keras_xaic.tasks import with_task
from keras_xaic.training import Schedule, fit, predict

NAMES = ("kind", "alpha")
"""Not in alphabetical order."""


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    right, left = keras.Input((3,), name="right"), keras.Input((5,), name="left")
    body = layers.Dense(6, activation="relu", name="body")(layers.Concatenate()([right, left]))
    heads = [layers.Dense(3, activation="softmax", name="kind")(body), layers.Dense(2, name="alpha")(body)]
    return keras.Model([right, left], heads)


@pytest.fixture(scope="module")
def data(model):
    rng = np.random.default_rng(0)
    x = {"left": rng.normal(size=(48, 5)).astype(np.float32), "right": rng.normal(size=(48, 3)).astype(np.float32)}
    y = {"alpha": rng.normal(size=(48, 2)).astype(np.float32) * 1000, "kind": np.arange(48) % 3}
    return fitted(model, Data(Samples(x, y)))


def weighted(model, data, weights):
    return with_task(data, infer_task(model, data, weights=weights))


@pytest.mark.parametrize("rule", ["lrp.epsilon", "deeplift.rescale", "gradient_x_input"])
def test_relevance_of_a_weighting_is_the_weighted_sum(model, data, rule):
    def scores(outputs):
        return attribute(model, data.train.x, data.train.y, rule=rule, reduce="sum", outputs=outputs).weights

    kind, alpha, both = scores("kind"), scores(["alpha"]), scores({"kind": 2.0, "alpha": 0.5})
    assert not kind["alpha"].any()
    assert not alpha["kind"].any()
    for key, value in both.items():
        np.testing.assert_allclose(value, 2.0 * kind[key] + 0.5 * alpha[key], rtol=2e-4, atol=1e-5)


def test_inputs_by_name_and_in_order_give_the_same_relevance(model, data):
    arrays = dict(zip(data.train.x.names, data.train.x.arrays))
    backwards = {name: arrays[name] for name in ("left", "right")}
    way = Attribution(model)
    expected = way.input_relevance([arrays["right"], arrays["left"]], target="all")
    for x in (backwards, Parts([arrays["left"], arrays["right"]], ["left", "right"]), data.train):
        for given, one in zip(way.input_relevance(x, target="all"), expected):
            np.testing.assert_array_equal(given, one)


def test_an_output_that_does_not_exist_is_named(model, data):
    with pytest.raises(DataError, match="weights of outputs of 'other'"):
        attribute(model, data.train.x, data.train.y, outputs="other")


def test_damage_counts_as_the_outputs_do(model, data):
    canonical = canonicalize(model).model
    rounded = {(kernel.key, 2): np.round(kernel.value * 2) / 2 for kernel in weighted_kernels(canonical)}
    found = {}
    for weights in ("kind", "alpha", {"kind": 2.0, "alpha": 0.5}):
        samples = weighted(model, data, weights).train
        found[str(weights)] = measured_damage(canonical, rounded, samples), hessian_traces(canonical, samples)
    kind, alpha, both = found.values()
    assert kind[0]["alpha", 2] == 0 < alpha[0]["alpha", 2]
    assert alpha[0]["kind", 2] == 0 < kind[0]["kind", 2]
    for key in rounded:
        assert both[0][key] == pytest.approx(2.0 * kind[0][key] + 0.5 * alpha[0][key], rel=1e-5)
        assert both[1][key[0]] == pytest.approx(2.0 * kind[1][key[0]] + 0.5 * alpha[1][key[0]], rel=1e-3)
    # Independent: the mean squared change of the values over their variance.
    head = canonical.get_layer("alpha")
    before = canonical.predict([*data.train.x.arrays], verbose=0)[1]
    own = head.kernel.numpy()
    head.kernel.assign(rounded["alpha", 2])
    after = canonical.predict([*data.train.x.arrays], verbose=0)[1]
    head.kernel.assign(own)
    assert alpha[0]["alpha", 2] == pytest.approx(np.mean((after - before) ** 2) / before.var(), rel=1e-3)


def test_training_leaves_alone_what_does_not_count_and_scales_values(model, data):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    samples = weighted(model, data, "kind").train
    before = clone.get_layer("alpha").kernel.numpy().copy(), clone.get_layer("kind").kernel.numpy().copy()
    fit(clone, samples, samples, samples.task, Schedule(2, 1e-2, 16, select_from=0.9), teacher=predict(model, samples))
    np.testing.assert_array_equal(clone.get_layer("alpha").kernel.numpy(), before[0])
    assert np.abs(clone.get_layer("kind").kernel.numpy() - before[1]).max() > 1e-3
    # Values of a thousand and classes count alike: both heads move, and the loss is that of values in units of their variance.
    clone.set_weights(model.get_weights())
    samples = weighted(model, data, None).train
    (epoch,) = fit(clone, samples, samples, samples.task, Schedule(1, 1e-9, 48, distillation=0.0, select_from=0.9))
    kind, alpha = model.predict([*samples.x.arrays], verbose=0)
    y = samples.y.arrays
    hard = -np.log(kind[np.arange(48), y[0]]).mean()
    assert epoch.loss == pytest.approx(hard + np.mean((alpha - y[1]) ** 2) / y[1].var(), rel=1e-4)


def test_callbacks_hear_of_every_output(model, data):
    heard = {}

    class Ears(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            heard.update(logs)

    clone = keras.models.clone_model(model)
    samples = weighted(model, data, {"kind": 1.0, "alpha": 0.5}).train
    fit(clone, samples, samples, samples.task, Schedule(1, 1e-3, 16, select_from=0.9), callbacks=[Ears()])
    kind, alpha = clone.predict([*samples.x.arrays], verbose=0)
    assert heard["val_kind_accuracy"] == pytest.approx(np.mean(kind.argmax(1) == samples.y.arrays[0]))
    assert heard["val_alpha_mse"] == pytest.approx(np.mean((alpha - samples.y.arrays[1]) ** 2), rel=1e-4)
    variance = samples.y.arrays[1].var()
    assert heard["val_loss"] == pytest.approx(heard["val_kind_loss"] + 0.5 * heard["val_alpha_loss"] / variance, rel=1e-5)
    assert {"kind_accuracy", "alpha_mse"} <= set(heard)


def test_a_plan_is_carried_out_with_outputs_as_teacher_and_losses_by_name(model, data):
    from keras_xaic.compression import apply
    from keras_xaic.planning import Budget, PlanOptions, plan
    from keras_xaic.settings import Training

    clone = keras.models.clone_model(model)
    made = plan(clone, attribute(clone, data.train.x, data.train.y), Budget(mean_bits=8), PlanOptions())
    train, _ = data.split(seed=0)
    training = Training(epochs=1, seed=0, loss={"alpha": "mae"})
    small = apply(clone, made, data, teacher=predict(clone, train), training=training)
    for given, expected in zip(predict(small.model, train).arrays, predict(clone, train).arrays):
        assert np.abs(given - expected).mean() < expected.std()
    with pytest.raises(PlanError, match="loss of 'other'"):
        apply(clone, made, data, training=Training(epochs=1, loss={"other": "mae"}))


def test_a_model_of_dictionaries_is_trained(model, data):
    from keras_xaic.compression import apply
    from keras_xaic.planning import Budget, PlanOptions, plan
    from keras_xaic.settings import Training

    one, two = keras.Input((4,), name="one"), keras.Input((2,), name="two")
    body = layers.Concatenate()([layers.Dense(3, name="first")(two), one])
    named = keras.Model(
        {"right": one, "left": two}, {"sum": layers.Dense(2, name="s")(body), "all": layers.Dense(1, name="a")(body)}
    )
    rng = np.random.default_rng(0)
    x = {"right": rng.normal(size=(40, 4)).astype(np.float32), "left": rng.normal(size=(40, 2)).astype(np.float32)}
    y = named.predict(x, verbose=0)
    made = plan(named, attribute(named, x, y, target="all"), Budget(mean_bits=8), PlanOptions())
    small = apply(named, made, (x, y), training=Training(epochs=1))
    given = dict(zip(("all", "sum"), small.model.predict([x["left"], x["right"]], verbose=0)))
    for name, expected in y.items():
        assert np.abs(given[name] - expected).mean() < 0.3 * expected.std()


@pytest.mark.parametrize("start", ["one", "squared_error"])
def test_classes_counted_from_1_give_the_same_relevance_and_plans(model, data, start):
    named = dict(zip(data.train.y.names, data.train.y.arrays))
    otherwise = Samples(data.train.x, {"kind": named["kind"] + 1, "alpha": named["alpha"]})
    single = keras.Model(model.inputs, model.outputs[0])
    how = {"reduce": "sum", "start": start}
    expected = attribute(single, data.train.x, named["kind"], **how)
    found = attribute(single, data.train.x, named["kind"] + 1, **how)
    several, other = (attribute(model, one.x, one.y, **how) for one in (data.train, otherwise))
    for key in expected.weights:
        np.testing.assert_array_equal(found.weights[key], expected.weights[key])
        np.testing.assert_array_equal(other.weights[key], several.weights[key])
    assert hessian_traces(model, otherwise) == hessian_traces(model, Samples(data.train.x, data.train.y))
