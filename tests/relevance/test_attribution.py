from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.data import Samples
from keras_xaic.errors import DataError, XaicError
from keras_xaic.relevance import RULE_NAMES, Attribution, Relevance, attribute


def small(seed=0, classes=3, head="softmax"):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(x))
    x = layers.SeparableConv2D(5, 3, activation="relu", name="sep")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, activation=head, name="out")(x))


def samples(count=10, seed=1, classes=3):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, (count, 6, 6, 2)).astype(np.float32), rng.integers(0, classes, count)


def same(a, b, tolerance=1e-5):
    assert set(a.weights) == set(b.weights)
    for part in ("weights", "filters"):
        for key, array in getattr(a, part).items():
            np.testing.assert_allclose(getattr(b, part)[key], array, rtol=0, atol=tolerance * max(np.abs(array).max(), 1e-12))


FAST = ("lrp.epsilon", "lrp.z_box", "deeplift.rescale", "gradient_x_input", "magnitude")


@pytest.mark.parametrize("rule", [pytest.param(r, marks=[] if r in FAST else pytest.mark.slow) for r in RULE_NAMES])
def test_every_rule_scores_every_kernel_under_the_users_names(rule):
    model, (x, y) = small(), samples()
    relevance = attribute(model, x, y, rule="lrp.z_box:-5,5" if rule == "lrp.z_box" else rule)
    shapes = {key: w.shape for key, w in relevance.weights.items()}
    assert shapes == {
        "conv": (3, 3, 2, 4),
        "sep/depthwise_kernel": (3, 3, 4, 1),
        "sep/pointwise_kernel": (1, 1, 4, 5),
        "out": (5, 3),
    }
    sizes = {name: len(scores) for name, scores in relevance.filters.items()}
    assert sizes == {"conv": 4, "sep/depthwise_kernel": 4, "sep": 5, "out": 3}
    assert list(relevance.layers) == list(relevance.filters)
    assert relevance.rule.startswith(rule)
    assert all(np.all(np.isfinite(w)) and w.any() for w in relevance.weights.values())


@pytest.mark.parametrize(
    ("rule", "reduce"), [("lrp.epsilon", "mean_abs"), ("deeplift.reveal_cancel", "rms"), ("integrated_gradients", "momentum")]
)
def test_the_batch_size_does_not_matter(rule, reduce):
    model, (x, y) = small(), samples(11)
    attribution = Attribution(model, rule=rule)
    whole = attribution.run(x, y, reduce=reduce, batch_size=64)
    for size in (1, 4):
        same(whole, attribution.run(x, y, reduce=reduce, batch_size=size))


@pytest.mark.parametrize(("reduce", "per_class"), [("mean_abs", True), ("rms", False), ("momentum", False)])
def test_parts_that_other_processes_attribute_add_up_to_the_whole(reduce, per_class):
    model, (x, y) = small(), samples(11)
    attribution = Attribution(model, rule="deeplift.rescale")  # compares with the mean of all samples, not of a part
    how = {"reduce": reduce, "batch_size": 2, "per_class": per_class}
    whole = attribution.run(x, y, **how)
    parts = [attribution.part(x, y, number=number, parts=4, **how) for number in range(4)]
    added = attribution.whole(parts)
    same(whole, added)
    assert (added.samples, added.target, added.start, added.reduce) == (11, "true", "one", reduce)
    assert added.layers == pytest.approx(whole.layers, rel=1e-5)
    assert set(added.per_class) == set(whole.per_class) == (set(y.tolist()) if per_class else set())
    for number, one in whole.per_class.items():
        same(one, added.per_class[number])


def test_gradients_of_weights_are_those_of_keras():
    model, (x, y) = small(), samples()
    each = []
    for i in range(len(x)):
        with tf.GradientTape() as tape:
            loss = keras.losses.sparse_categorical_crossentropy(y[i : i + 1], model(x[i : i + 1], training=False))
        kernel = model.get_layer("out").kernel
        each.append((kernel * tape.gradient(loss, kernel)).numpy())
    found = attribute(model, x, y, rule="taylor")
    np.testing.assert_allclose(found.weights["out"], np.abs(each).mean(0), atol=1e-6)


def test_gradient_times_input_is_epsilon_without_biases_and_stabiliser():
    """Behind ReLUs both are the same (Ancona et al. 2018, proposition 2); the target's logit is the start."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, use_bias=False, activation="relu", name="a")(inputs)
    model = keras.Model(inputs, layers.Dense(3, use_bias=False, activation="softmax", name="b")(layers.Flatten()(x)))
    data = samples()
    same(attribute(model, *data, rule="lrp.z", start="logit"), attribute(model, *data, rule="gradient_x_input"))


def test_integrated_gradients_add_up_to_the_difference():
    model, (x, _) = small(), samples()
    attribution = Attribution(model, rule="integrated_gradients")
    (found,) = attribution.input_relevance(x, target=2, reference="zeros")
    logits = attribution.program.canonical.model
    difference = (logits(x) - logits(np.zeros_like(x))).numpy()[:, 2]
    np.testing.assert_allclose(found.sum((1, 2, 3)), difference, atol=0.02 * np.abs(difference).max())


def test_magnitude_is_the_users_kernel():
    model = small()
    relevance = attribute(model, None, rule="magnitude")
    kernel = model.get_layer("conv").kernel.numpy()
    np.testing.assert_array_equal(relevance.weights["conv"], np.abs(kernel))
    np.testing.assert_allclose(relevance.filters["conv"], np.sqrt((kernel**2).sum((0, 1, 2))), rtol=1e-6)


def test_targets():
    model, (x, y) = small(), samples(40)
    attribution = Attribution(model)
    predicted = model.predict(x, verbose=0).argmax(1)
    same(attribution.run(x, target="predicted"), attribution.run(x, predicted))
    same(attribution.run(x, target=1), attribution.run(x, np.full(len(x), 1)))
    same(attribution.run(x, y), attribution.run(x, np.eye(3)[y]))
    logits = attribution.program.canonical.model(x).numpy()
    start = attribution.run(x, y, start="logit", reduce="sum").filters["out"]
    np.testing.assert_allclose(start, (np.eye(3)[y] * logits).sum(0), rtol=1e-4)
    everything = attribution.run(x, target="all", start="logit", reduce="sum").filters["out"]
    np.testing.assert_allclose(everything, logits.sum(0), rtol=1e-4)


def test_regression_and_auto_encoders_start_from_all_outputs():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3), layers.Dense(5, name="out")])
    x = samples()[0].reshape(10, -1)[:, :5]
    relevance = attribute(model, x, start="logit", reduce="sum")
    assert relevance.target == "true"
    np.testing.assert_allclose(relevance.filters["out"], model.predict(x, verbose=0).sum(0), rtol=1e-4)
    error = attribute(model, x, start="squared_error", reduce="sum").filters["out"]
    np.testing.assert_allclose(error, ((model.predict(x, verbose=0) - x) ** 2).sum(0), rtol=1e-4)
    assert np.isclose(sum(attribute(model, x, reduce="mean_abs").filters["out"]), 1.0, rtol=1e-4)


def test_a_single_sigmoid_unit_speaks_for_class_one_and_against_class_zero():
    model, (x, _) = small(classes=1, head="sigmoid"), samples()
    attribution = Attribution(model)
    one = attribution.input_relevance(x, np.ones(10, int))[0]
    zero = attribution.input_relevance(x, np.zeros(10, int))[0]
    np.testing.assert_array_equal(one, -zero)


def test_multi_label_starts_at_every_class_a_sample_has():
    model, (x, _) = small(head="sigmoid"), samples()
    y = np.random.default_rng(0).integers(0, 2, (10, 3))
    y[0] = [1, 1, 0]
    relevance = attribute(model, x, y, reduce="sum")
    np.testing.assert_allclose(relevance.filters["out"], y.sum(0), rtol=1e-5)
    assert attribute(model, x, y, rule="taylor").weights["out"].all()


def test_the_squared_error_of_an_auto_encoder_is_taken_to_what_the_model_sees():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(5, name="out")])
    stored = Samples(np.arange(20, dtype=np.uint8).reshape(4, 5), scale=0.1, offset=-1.0)
    error = attribute(model, stored, start="squared_error", reduce="sum").filters["out"]
    seen = stored.inputs()
    np.testing.assert_allclose(error, ((model.predict(seen, verbose=0) - seen) ** 2).sum(0), rtol=1e-4)


def test_several_inputs_and_outputs():
    keras.utils.set_random_seed(0)
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    hidden = layers.Concatenate()(
        [layers.Dense(5, use_bias=False, name="left")(a), layers.Dense(4, use_bias=False, name="right")(b)]
    )
    hidden = layers.ReLU()(hidden)
    one = layers.Dense(3, activation="softmax", use_bias=False, name="one")(hidden)
    two = layers.Dense(1, use_bias=False, name="two")(hidden)
    model = keras.Model([a, b], [one, two])
    rng = np.random.default_rng(0)
    x = [rng.normal(0, 1, (6, n)).astype(np.float32) for n in (4, 3)]
    y = [rng.integers(0, 3, 6), rng.normal(0, 1, (6, 1))]
    found = Attribution(model, rule="lrp.z").input_relevance(x, y, start="logit")
    logits = Attribution(model).program.canonical.model(x)
    start = logits[0].numpy()[np.arange(6), y[0]] + logits[1].numpy()[:, 0]
    np.testing.assert_allclose(found[0].sum(1) + found[1].sum(1), start, rtol=1e-3, atol=1e-5)


def test_per_class_relevance_is_that_of_the_class():
    model, (x, y) = small(), samples(12)
    attribution = Attribution(model)
    relevance = attribution.run(x, y, per_class=True)
    assert sorted(relevance.per_class) == sorted(set(y.tolist()))
    for number, part in relevance.per_class.items():
        same(part, attribution.run(x[y == number], y[y == number]))
    same(relevance, attribution.run(x, y))


def test_samples_and_arrays_are_the_same():
    model, (x, y) = small(), samples()
    stored = Samples((x * 50 + 100).round().astype(np.uint8), y, scale=0.02, offset=-2.0)
    same(attribute(model, stored), attribute(model, stored.inputs(), y))


def test_shared_layers_get_the_relevance_of_all_calls():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    layer = layers.Dense(4, use_bias=False, name="shared")
    head = layers.Dense(2, use_bias=False, activation="softmax", name="head")
    model = keras.Model(inputs, head(layer(layers.ReLU()(layer(inputs)))))
    twin = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(4, use_bias=False, activation="relu", name="one"),
            layers.Dense(4, use_bias=False, name="two"),
            layers.Dense(2, use_bias=False, activation="softmax", name="head"),
        ]
    )
    kernel, last = (w.numpy() for w in model.weights)
    twin.set_weights([kernel, kernel, last])
    x = np.random.default_rng(0).normal(0, 1, (1, 4)).astype(np.float32)
    for rule in ("lrp.epsilon", "lrp.alpha_2_beta_1", "deeplift.rescale"):
        options = {"rule": rule, "target": 0, "reference": "zeros"}
        both = attribute(model, x, **options).weights["shared"]
        apart = attribute(twin, x, **options, reduce="sum").weights
        np.testing.assert_allclose(both, np.abs(apart["one"] + apart["two"]), atol=1e-5 * np.abs(both).max())


@pytest.mark.parametrize("engine", ["native", pytest.param("innvestigate", marks=pytest.mark.slow)])
def test_refresh_follows_the_weights(engine):
    model, (x, y) = small(), samples()
    attribution = Attribution(model, rule="lrp.alpha_2_beta_1", engine=engine)
    attribution.run(x, y)
    model.set_weights([w * 0.9 + 0.01 for w in model.get_weights()])
    attribution.refresh()
    same(attribution.run(x, y), attribute(model, x, y, rule="lrp.alpha_2_beta_1", engine=engine))


def test_an_interrupted_run_continues(tmp_path):
    model, (x, y) = small(), samples(12)
    file = tmp_path / "part.npz"
    seen = []

    def stop(done, total):
        seen.append(done)
        if done == 6:
            raise KeyboardInterrupt

    attribution = Attribution(model)
    with pytest.raises(KeyboardInterrupt):
        attribution.run(x, y, batch_size=3, progress=stop, checkpoint=file)
    assert file.exists()
    resumed = []
    relevance = attribution.run(x, y, batch_size=3, checkpoint=file, progress=lambda done, total: resumed.append((done, total)))
    assert seen == [3, 6]
    assert resumed == [(9, 12), (12, 12)]
    assert not file.exists()
    same(attribution.run(x, y), relevance)


def test_the_rest_of_another_run_is_not_continued(tmp_path):
    model, (x, y) = small(), samples(12)
    file = tmp_path / "part.npz"

    def stop(done, total):
        raise KeyboardInterrupt

    attribution = Attribution(model)
    with pytest.raises(KeyboardInterrupt):
        attribution.run(x, y, batch_size=3, progress=stop, checkpoint=file)
    same(attribution.run(x, y, batch_size=3, start="logit", checkpoint=file), attribution.run(x, y, start="logit"))
    for other in ({"y": (y + 1) % 3}, {"x": Samples(x, scale=2.0)}):
        given = {"x": x, "y": y, **other}
        with pytest.raises(KeyboardInterrupt):
            attribution.run(x, y, batch_size=3, progress=stop, checkpoint=file)
        same(attribution.run(**given, batch_size=3, checkpoint=file), attribution.run(**given, batch_size=3))


def test_saved_relevance_comes_back(tmp_path):
    model, (x, y) = small(), samples()
    relevance = attribute(model, x, y, per_class=True, seed=5)
    found = Relevance.load(relevance.save(tmp_path / "relevance.npz"))
    same(relevance, found, tolerance=0)
    assert found.layers == relevance.layers
    assert (found.rule, found.samples, found.seed, found.reduce) == ("lrp.epsilon", 10, 5, "mean_abs")
    same(relevance.per_class[1], found.per_class[1], tolerance=0)
    assert repr(found) == repr(relevance)
    assert [p.name for p in tmp_path.iterdir()] == ["relevance.npz"]


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_what_is_not_a_relevance_file_is_refused(tmp_path, content):
    path = tmp_path / "relevance.npz"
    if content is None:
        np.savez(path, a=np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match="relevance"):
        Relevance.load(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        Relevance.load(tmp_path / "other.npz")


WRONG = {
    "labels": ({"y": None}, "labels"),
    "class": ({"y": np.full(10, 3)}, "class 3"),
    "count": ({"y": np.zeros(9, int)}, "9 entries"),
    "shape": ({"x": np.zeros((10, 5, 6, 2))}, "shape"),
    "empty": ({"x": np.zeros((0, 6, 6, 2)), "y": np.zeros(0, int)}, "at least one sample"),
    "target": ({"target": "best"}, "target"),
    "class number": ({"target": 7}, "class 7"),
    "start": ({"start": "two"}, "start"),
    "reduce": ({"reduce": "median"}, "median"),
    "batch": ({"batch_size": 0}, "batch_size"),
    "reference": ({"rule": "deeplift.rescale", "reference": np.zeros((3, 3))}, "reference"),
    "rule": ({"rule": "lrp.delta"}, "lrp.delta"),
    "parameter": ({"rule": "lrp.epsilon:big"}, "big"),
    "engine": ({"engine": "fast"}, "fast"),
    "deeplift": ({"rule": "deeplift.rescale", "engine": "innvestigate"}, "innvestigate"),
    "bounds": ({"rule": "lrp.z_box:0,1"}, "lrp.z_box:-"),
    "no rule": ({"rule": ["lrp.z"]}, "rule is a list"),
    "composite": ({"rule": {"dense": "lrp.z"}}, "conv"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_one_clear_error(name):
    change, words = WRONG[name]
    x, y = samples()
    arguments = {"x": x, "y": y, **change}
    with pytest.raises(XaicError, match=f"(?i){words}"):
        attribute(small(), arguments.pop("x"), arguments.pop("y"), **arguments)


def test_composites_choose_by_first_kind_and_name():
    model, (x, y) = small(), samples()
    mixed = attribute(model, x, y, rule={"first": "lrp.flat", "sep*": "lrp.z_plus", "*": "lrp.epsilon"})
    named = attribute(model, x, y, rule="lrp.epsilon_plus_flat")
    same(mixed, named)
    assert "first=lrp.flat" in mixed.rule
