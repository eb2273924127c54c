from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.data import Samples
from keras_xaic.errors import PlanError
from keras_xaic.grids import fit_scale, quantize
from keras_xaic.models import canonicalize, weighted_kernels
from keras_xaic.planning import SENSITIVITIES, Budget, PlanOptions, measure_damage, output_divergence, plan
from keras_xaic.planning.output_divergence import hessian_traces, measured_damage
from keras_xaic.planning.sensitivity import relative_error, sample_count, score_weighted_error, squared_error
from keras_xaic.relevance import attribute
from keras_xaic.training import predict, predicting


def net(head="softmax"):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(6, 3, activation="relu", name="first")(inputs)
    y = layers.Conv2D(6, 3, padding="same", name="branch")(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(4, activation=head, name="head")(x))


def data(labels=True):
    rng = np.random.default_rng(0)
    return Samples(rng.normal(size=(40, 8, 8, 2)).astype(np.float32), rng.integers(0, 4, 40) if labels else None)


def rounded_at(model, bits):
    return {
        (kernel.key, bits): quantize(kernel.value, bits, fit_scale(kernel.value, bits, kernel.channel_axes)).values
        for kernel in weighted_kernels(model)
    }


def test_measured_damage_is_the_divergence_of_whole_evaluations():
    model, samples = canonicalize(net()).model, data()
    rounded = rounded_at(model, 2)
    before = {kernel.key: kernel.value for kernel in weighted_kernels(model)}
    told = []
    found = measured_damage(model, rounded, samples, lambda *facts: told.append(facts))
    assert told[-1][:3] == ("measure", told[0][2], told[0][2])
    assert [done for _, done, *_ in told] == sorted({done for _, done, *_ in told})
    p = model.predict(samples.x, verbose=0)
    for kernel in weighted_kernels(model):
        np.testing.assert_array_equal(kernel.value, before[kernel.key])
        kernel.variable.assign(rounded[kernel.key, 2])
        q = model.predict(samples.x, verbose=0)
        kernel.variable.assign(before[kernel.key])
        assert found[kernel.key, 2] == pytest.approx(float((p * np.log(p / q)).sum(axis=1).mean()), rel=1e-3)


def called_twice(x):
    shared = layers.Conv2D(2, 3, padding="same", activation="tanh", name="shared")
    return shared(shared(x))


def with_sizes(x):
    return layers.Conv2D(2, 1, name="behind")(x) * tf.cast(tf.shape(x)[1], tf.float32)


def masked(x):
    x = layers.Masking(0.5)(tf.round(layers.Reshape((8, 16))(x)))
    return layers.LSTM(3, return_sequences=True)(x)


@pytest.mark.parametrize(("body", "together"), [(called_twice, True), (with_sizes, False), (masked, False)])
def test_bit_widths_are_measured_side_by_side_where_that_is_the_same(body, together, monkeypatch):
    """Judged by whole evaluations; where tensors are sizes or carry masks, one after the other."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 2))
    x = layers.Flatten()(body(layers.Conv2D(2, 1, name="front")(inputs)))
    model = canonicalize(keras.Model(inputs, layers.Dense(3, "softmax", name="head")(x))).model
    samples = data(labels=False).take(slice(0, 36))  # a whole batch and a short one
    rounded = {choice: value for bits in (2, 3, 4) for choice, value in rounded_at(model, bits).items()}
    rounded = {choice: rounded[choice] for choice in sorted(rounded)}
    seen, repeated = set(), output_divergence._Repeated
    monkeypatch.setattr(output_divergence, "_Repeated", lambda exact, count: seen.add(count) or repeated(exact, count))
    found = measured_damage(model, rounded, samples)
    assert (max(seen) > 1) is together
    p = model.predict(samples.x, verbose=0)
    for kernel in weighted_kernels(model):
        before = kernel.value
        for bits in (2, 3, 4):
            kernel.variable.assign(rounded[kernel.key, bits])
            q = model.predict(samples.x, verbose=0)
            expected = float((p * np.log(p / q)).sum(axis=1).mean())
            assert found[kernel.key, bits] == pytest.approx(expected, rel=2e-3, abs=1e-7)
        kernel.variable.assign(before)


def test_a_model_all_of_whose_weights_are_in_other_layers_has_a_plan():
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, layers.GRU(2)(layers.LSTM(3, return_sequences=True)(inputs)))
    samples = Samples(np.random.default_rng(0).normal(size=(8, 4, 3)).astype(np.float32))
    relevance = attribute(model, samples, allow_approximate=True)
    assert plan(model, relevance, Budget(flash="90kB"), samples=samples).layers == []


def test_large_models_go_through_in_smaller_batches(monkeypatch):
    model, samples = canonicalize(net()).model, data()
    rounded, seen = rounded_at(model, 2), []
    expected = measured_damage(model, rounded, samples)
    monkeypatch.setattr(output_divergence, "HELD", 1_000)
    take = output_divergence.Operations.start
    monkeypatch.setattr(output_divergence.Operations, "start", lambda self, x: seen.append(len(x[0])) or take(self, x))
    assert measured_damage(model, rounded, samples) == pytest.approx(expected, rel=1e-4)
    assert max(seen) < output_divergence.BATCH
    x = np.zeros((5, *model.input_shape[1:]), np.float32)
    before = predict(model, Samples(x))
    calls = []
    monkeypatch.setattr(predicting, "LARGEST", 1)
    monkeypatch.setattr(predicting, "_compiled", lambda model: lambda x: calls.append(len(x)) or model(x))
    np.testing.assert_allclose(predict(model, Samples(x)), before, rtol=1e-5)
    assert calls == [1] * 5


def test_large_models_are_measured_on_fewer_samples():
    assert [sample_count(work) for work in (0, 10**9, 2 * 10**10, 10**12)] == [64, 64, 20, 8]


def test_measured_damage_of_values_is_relative_squared_error():
    model, samples = canonicalize(net("linear")).model, data(labels=False)
    rounded = rounded_at(model, 3)
    found = measured_damage(model, rounded, samples)
    before = model.predict(samples.x, verbose=0)
    model.get_layer("branch").kernel.assign(rounded["branch", 3])
    after = model.predict(samples.x, verbose=0)
    assert found["branch", 3] == pytest.approx(np.square(after - before).mean() / before.var(), rel=1e-4)


def test_hutchinson_finds_the_exact_trace_of_a_quadratic():
    """f = x W, loss sum of squares: the Hessian's diagonal is 2 x_i^2 for every output."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(3, name="only")(inputs))
    x = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    exact = 2 * 3 * float(np.square(x).sum(axis=1).mean())
    assert hessian_traces(model, Samples(x))["only"] == pytest.approx(exact, rel=0.1)


def test_hutchinson_agrees_with_second_differences_of_the_loss():
    model, samples = canonicalize(net()).model, data().take(slice(0, 32))

    def loss():
        chosen = model(samples.x).numpy().astype(np.float64)[np.arange(32), samples.y]
        return -np.log(chosen).mean()

    kernel = model.get_layer("head").kernel
    start, middle, step, exact = kernel.numpy(), loss(), 0.05, 0.0
    for index in np.ndindex(*start.shape):
        sides = []
        for sign in (1, -1):
            moved = start.copy()
            moved[index] += sign * step
            kernel.assign(moved)
            sides.append(loss())
        exact += (sum(sides) - 2 * middle) / step**2
    kernel.assign(start)
    assert np.mean([hessian_traces(model, samples, seed)["head"] for seed in range(4)]) == pytest.approx(exact, rel=0.15)


def test_errors_by_hand():
    kernel, rounded, relevance = np.array([1.0, -2.0, 0.0]), np.array([1.1, -2.0, 0.0]), np.array([3.0, 1.0, 5.0])
    assert squared_error(kernel, rounded, relevance) == pytest.approx(0.01)
    assert relative_error(kernel, rounded, relevance) == pytest.approx(0.01 / 5)
    assert score_weighted_error(kernel, rounded, relevance) == pytest.approx(2.0 * 0.01 / 5)


@pytest.fixture(scope="module")
def case():
    model, samples = net(), data()
    return model, samples, attribute(model, samples)


@pytest.mark.parametrize("name", SENSITIVITIES)
def test_every_sensitivity_keeps_a_budget_of_mean_bits(case, name):
    model, samples, relevance = case
    made = plan(
        model, relevance, Budget(mean_bits=3.7), PlanOptions(bits=(2, 3, 4, 5, 6, 8), sensitivity=name), samples=samples
    )
    assert made.sensitivity == name
    assert made.mean_bits <= 3.7
    if name == "uniform":
        assert {layer.bits for layer in made.layers} == {3}
    else:
        assert len({layer.bits for layer in made.layers}) > 1


def test_combined_is_the_geometric_mean_of_prediction_and_measurement(case):
    model, samples, relevance = case
    damages = [
        measure_damage(model, relevance, PlanOptions(sensitivity=n), samples=samples)
        for n in ("relevance", "measured", "combined")
    ]
    kernel = weighted_kernels(canonicalize(model).model)[1]
    rounded = quantize(kernel.value, 3, fit_scale(kernel.value, 3, kernel.channel_axes)).values
    arguments = (kernel.key, 3, kernel.value, rounded, np.abs(relevance.weights[kernel.key]))
    predicted, measured, combined = (damage(*arguments) for damage in damages)
    assert combined == pytest.approx(np.sqrt(predicted * measured))


def test_what_is_measured_once_serves_many_plans(case):
    model, samples, relevance = case
    measured = measure_damage(model, relevance, samples=samples)
    assert measured.sensitivity.name == "combined"
    for mean in (3.5, 5.0):
        once = plan(model, relevance, Budget(mean_bits=mean), PlanOptions(sensitivity=measured))
        assert once == plan(model, relevance, Budget(mean_bits=mean), samples=samples)


def test_measuring_without_data_is_refused(case):
    model, _, relevance = case
    with pytest.raises(PlanError, match="'hessian' without calibration data"):
        plan(model, relevance, Budget(mean_bits=4.0), PlanOptions(sensitivity="hessian"))
    with pytest.raises(PlanError, match="no sensitivity 'guess'"):
        plan(model, relevance, Budget(mean_bits=4.0), PlanOptions(sensitivity="guess"))


def test_the_score_of_lrp_mixed_gives_more_bits_to_higher_scores():
    """Two kernels of equal size and equal weights: only the mean score differs."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = layers.Dense(6, name="low")(inputs)
    model = keras.Model(inputs, layers.Dense(6, name="high")(x))
    model.get_layer("high").kernel.assign(model.get_layer("low").kernel)
    relevance = attribute(model, np.ones((4, 6), np.float32), target="all", reduce="mean")
    weights = {"low": np.full((6, 6), 0.1), "high": np.full((6, 6), 1.0)}
    relevance = type(relevance)(weights=weights, filters={}, layers={}, rule="lrp.epsilon", reduce="mean")
    made = plan(
        model, relevance, Budget(mean_bits=4.5), PlanOptions(sensitivity="mean_score", score="signed_relevance", filters=False)
    )
    assert made["high"].bits > made["low"].bits
