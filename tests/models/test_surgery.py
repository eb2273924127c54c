from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import ModelError, PlanError
from keras_xaic.models.channels import channel_groups
from keras_xaic.models.costs import kept_macs, kept_parameters, macs, parameters
from keras_xaic.models.kernels import layer_kernels, weighted_kernels
from keras_xaic.models.loading import load_model, save_model
from keras_xaic.models.operations import Operations
from keras_xaic.models.surgery import kept_values, remove_channels


def conv(filters, size=3, **options):
    return layers.Conv2D(filters, size, padding="same", **options)


def residual_net(rng, filters=6):
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization()(conv(filters)(inputs)))
    for stride in rng.choice([1, 2], 2).tolist():
        y = layers.Activation(str(rng.choice(["relu", "swish", "tanh"])))(conv(filters + 2, strides=stride, use_bias=False)(x))
        y = layers.BatchNormalization()(conv(filters, 1)(layers.BatchNormalization()(y)))
        x = conv(filters, 1, strides=stride)(x) if stride == 2 else x
        x = layers.ReLU(6.0)(layers.Add()([x, y]) if rng.random() < 0.5 else x + y)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def dense_net(rng, filters=4):
    inputs = keras.Input((8, 8, 3))
    x = conv(filters)(inputs)
    for _ in range(3):
        y = conv(int(rng.integers(3, 7)), activation="relu")(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, y] if rng.random() < 0.5 else [y, x, y])
    x = layers.AveragePooling2D()(conv(5, 1)(x))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def mobile_net(rng, filters=5):
    inputs = keras.Input((9, 9, 3))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(conv(filters, strides=2)(inputs)))
    for _ in range(2):
        y = layers.PReLU(shared_axes=[1, 2])(layers.BatchNormalization()(conv(2 * filters, 1)(x)))
        y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=int(rng.integers(1, 3)))(layers.ZeroPadding2D()(y))
        y = layers.Cropping2D(1)(layers.ReLU(6.0)(layers.BatchNormalization()(y)))
        x = layers.Add()([x, layers.BatchNormalization()(conv(filters, 1)(y))])
    x = layers.Dropout(0.2)(layers.SeparableConv2D(6, 3, depth_multiplier=2, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalMaxPooling2D()(x)))


def squeeze_net(rng, filters=6):
    inputs = keras.Input((6, 6, 3))
    x = conv(filters, activation="relu")(inputs)
    for style in rng.choice(["reshape", "keepdims", "function"], 2):
        if style == "reshape":
            gate = layers.Reshape((1, 1, filters))(layers.GlobalAveragePooling2D()(x))
        elif style == "keepdims":
            gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
        else:
            gate = tf.reduce_mean(x, axis=[1, 2], keepdims=True)
        gate = layers.Dense(filters, activation="sigmoid")(conv(3, 1, activation="relu")(gate))
        x = conv(filters, activation="relu")(layers.Multiply()([x, gate]))
    return keras.Model(inputs, conv(2, 1)(x))


def two_input_net(rng, filters=5):
    image, vector = keras.Input((6, 6, 2), name="image"), keras.Input((7,), name="vector")
    shared = layers.Dense(4, activation="tanh")
    inside = keras.Input((6, 6, filters))
    block = keras.Model(inside, layers.BatchNormalization()(conv(filters)(conv(4)(inside))), name="block")
    x = block(conv(filters)(image))
    x = layers.Concatenate()([x, block(x)]) if rng.random() < 0.5 else layers.Average()([x, block(x)])
    y = shared(layers.Dense(4)(vector)) * 2.0 + shared(layers.Dense(4)(layers.LeakyReLU(0.1)(layers.Dense(6)(vector))))
    z = layers.Concatenate()([layers.Flatten()(layers.MaxPooling2D()(x)), y])
    return keras.Model([image, vector], [layers.Dense(3)(z), layers.Dense(2)(layers.Dense(5, activation="elu")(y))])


def generator_net(rng, filters=4):
    inputs = keras.Input((6,))
    x = layers.Reshape((3, 3, filters))(layers.Dense(9 * filters, activation="relu")(inputs))
    x = layers.Conv2DTranspose(5, 3, strides=2, padding="same")(x)
    x = conv(4)(layers.UpSampling2D()(x) if rng.random() < 0.5 else x)
    return keras.Model(inputs, layers.Reshape((-1, 2))(conv(2)(layers.LeakyReLU()(x))))


def sequence_net(rng, filters=5):
    inputs = keras.Input((10, 3))
    x = layers.Conv1D(filters, 3, padding="causal", dilation_rate=2, activation="relu")(inputs)
    x = layers.SeparableConv1D(6, 3, depth_multiplier=2)(layers.MaxPooling1D()(x))
    x = layers.Reshape((1, -1))(x) if rng.random() < 0.5 else layers.DepthwiseConv1D(3, padding="same")(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Dense(4, activation="gelu")(x))))


NETS = (residual_net, dense_net, mobile_net, squeeze_net, two_input_net, generator_net, sequence_net)


def randomized(model, rng):
    """Gives biases, statistics and slopes values that matter."""
    for weight in model.weights:
        low, high = (0.3, 1.5) if "variance" in weight.name or "gamma" in weight.name else (-0.6, 0.6)
        weight.assign(rng.uniform(low, high, weight.shape))
    return model


def outputs(model, seed=0):
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=(2, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs]
    return [np.asarray(tensor) for tensor in tf.nest.flatten(model(inputs if len(inputs) > 1 else inputs[0]))]


def drawn_keep(groups, rng, share):
    keep = {}
    for group in groups.removable:
        keep[group.name] = rng.random(group.size) < share
        keep[group.name][rng.integers(group.size)] = True
    if all(mask.all() for mask in keep.values()):
        keep[groups.removable[0].name][0] = False
    return keep


INCOMING_AXIS = {"conv": -2, "depthwise": -2, "conv_transpose": -1, "dense": 0}
"""Axis of a kernel that counts its input channels."""


def without_incoming_weights(model, keep):
    """The original with zeros instead of the weights that read removed channels, and noise in the filters that make them."""
    with keras.utils.custom_object_scope({"odd_activation": odd_activation}):
        reference = keras.models.clone_model(model)
    reference.set_weights(model.get_weights())
    groups, rng = channel_groups(reference), np.random.default_rng(99)
    stays = groups.stays(keep)
    layers_by_path = {operation.path: operation.layer for operation in Operations(reference)}
    for name, mask in keep.items():
        for path, members in groups[name].members.items():
            kernel = layer_kernels(layers_by_path[path], path)[-1]
            values = np.moveaxis(kernel.value.copy(), kernel.channel_axes[0], 0)
            values[~mask[members]] = rng.normal(size=values[~mask[members]].shape)
            kernel.variable.assign(np.moveaxis(values, 0, kernel.channel_axes[0]))
    for path in {path for name in keep for path in groups[name].consumers}:
        kernel = layer_kernels(layers_by_path[path], path)[0]
        axis = INCOMING_AXIS[kernel.kind]
        values = np.moveaxis(kernel.value.copy(), axis, 0)
        values[~stays[groups.weight_axes(path)[0][axis]]] = 0
        kernel.variable.assign(np.moveaxis(values, 0, axis))
    return reference


def check_removal(build, seed, share=0.6):
    keras.backend.clear_session()
    rng = np.random.default_rng(seed)
    model = randomized(build(rng), rng)
    groups = channel_groups(model)
    assert groups.removable
    for one, other in zip(outputs(remove_channels(model, {}, groups)), outputs(model)):
        np.testing.assert_array_equal(one, other)
    keep = drawn_keep(groups, rng, share)
    small = remove_channels(model, keep, groups)
    for one, other in zip(outputs(small), outputs(without_incoming_weights(model, keep))):
        scale = max(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(one / scale, other / scale, rtol=0, atol=1e-5)
    assert kept_parameters(groups, keep) == parameters(small)
    assert kept_macs(groups, keep) == macs(small)
    assert small.count_params() < model.count_params()
    values = kept_values(groups, keep, {kernel.key: kernel.value for kernel in weighted_kernels(model)})
    for kernel in weighted_kernels(small):
        np.testing.assert_array_equal(values.pop(kernel.key), kernel.value)
    assert not values
    return model, small


@pytest.mark.parametrize("build", NETS, ids=lambda build: build.__name__)
def test_removing_nothing_is_bit_identical_and_removing_equals_zeroing(build):
    model, small = check_removal(build, seed=0, share=0.5)
    assert small.input_names == model.input_names
    assert small.output_shape == model.output_shape


def random_block(kind, x, y, filters, shared):
    """One random step of a net; `x` and `y` have the same size and `shared` is a layer that may be called again."""
    if kind in ("add", "multiply", "shared") and x.shape[-1] != y.shape[-1]:
        y = conv(x.shape[-1], 1)(y)
    if kind == "add":
        return layers.Add()([x, y])
    if kind == "multiply":
        return x * y
    if kind == "shared":
        return shared(x) - shared(y) if x.shape[-1] == shared.filters else x - y
    if kind == "concatenate":
        return layers.Concatenate()([x, y])
    if kind == "gate":
        return x * layers.Dense(x.shape[-1], "sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(y))
    if kind == "depthwise":
        return layers.DepthwiseConv2D(3, padding="same", depth_multiplier=filters % 2 + 1)(x)
    if kind == "up":
        return layers.AveragePooling2D()(layers.Conv2DTranspose(filters, 2, strides=2)(x))
    if kind == "separable":
        return layers.SeparableConv2D(filters, 3, padding="same")(x)
    if kind == "conv":
        return conv(filters, activation="relu")(x)
    return layers.BatchNormalization()(x) if kind == "norm" else layers.PReLU()(x)


BLOCKS = ["conv", "norm", "depthwise", "add", "multiply", "concatenate", "gate", "shared", "prelu", "separable", "up"]


def random_net(rng):
    """A random graph over tensors of one size, so that any two can meet."""
    width = int(rng.integers(3, 6))
    inputs = keras.Input((4, 4, 2))
    tensors, shared = [conv(width)(inputs)], conv(width, 1)
    for kind in rng.choice(BLOCKS, rng.integers(2, 7)):
        x, y = tensors[rng.integers(len(tensors))], tensors[rng.integers(len(tensors))]
        tensors.append(random_block(kind, x, y, int(rng.integers(2, 6)), shared))
    last = layers.Concatenate()(tensors[-3:]) if rng.random() < 0.5 else tensors[-1]
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(last)))


FEW = settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=150)
SEEDS, SHARES = st.integers(0, 1_000_000), st.sampled_from([0.2, 0.5, 0.9])


@FEW
@given(st.sampled_from(NETS), SEEDS, SHARES)
def test_removing_equals_zeroing_in_families_of_nets(build, seed, share):
    check_removal(build, seed, share)


@FEW
@given(SEEDS, SHARES)
def test_removing_equals_zeroing_in_random_graphs(seed, share):
    check_removal(random_net, seed, share)


@pytest.mark.slow
@MANY
@given(st.sampled_from((*NETS, random_net)), SEEDS, SHARES)
def test_removing_equals_zeroing_in_many_nets(build, seed, share):
    check_removal(build, seed, share)


def test_removal_by_hand():
    inputs = keras.Input((4, 4, 2))
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(conv(3, name="a")(inputs)))
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))
    model = randomized(model, np.random.default_rng(0))
    small = remove_channels(model, {"a": np.array([True, False, True])})
    kernel, bias = model.get_layer("a").get_weights()
    np.testing.assert_array_equal(small.get_layer("a").get_weights()[0], kernel[..., [0, 2]])
    np.testing.assert_array_equal(small.get_layer("a").get_weights()[1], bias[[0, 2]])
    for one, other in zip(small.get_layer("bn").get_weights(), model.get_layer("bn").get_weights()):
        np.testing.assert_array_equal(one, other[[0, 2]])
    rows = np.arange(4 * 4 * 3).reshape(16, 3)[:, [0, 2]].ravel()
    np.testing.assert_array_equal(small.get_layer("head").get_weights()[0], model.get_layer("head").get_weights()[0][rows])


def test_the_small_model_keeps_names_settings_and_can_be_saved_and_trained(tmp_path):
    inputs = keras.Input((4, 4, 2), name="pixels")
    block = keras.Sequential([keras.Input((4, 4, 5)), conv(6, name="inside", kernel_regularizer="l2")], name="block")
    block.trainable = False
    x = block(conv(5, name="first", kernel_constraint="max_norm")(inputs))
    model = keras.Model(
        inputs, layers.Dense(2, name="head")(layers.Flatten(name="flat")(layers.Dropout(0.4, name="drop")(x))), name="net"
    )
    model.compile("sgd", "mse")
    small = remove_channels(model, {"first": np.arange(5) < 2, "block/inside": np.arange(6) < 3})
    assert [layer.name for layer in small.layers] == ["pixels", "first", "block/inside", "drop", "flat", "head"]
    assert (small.name, small.input_names, small.optimizer) == ("net", ["pixels"], None)
    inside = small.get_layer("block/inside")
    assert not inside.trainable
    assert inside.kernel_regularizer is not None
    assert small.get_layer("first").kernel_constraint is not None
    assert small.get_layer("drop").rate == 0.4
    again = load_model(save_model(small, tmp_path / "small.keras"))
    np.testing.assert_array_equal(outputs(again)[0], outputs(small)[0])
    small.compile("sgd", "mse")
    before = inside.get_weights()[0]
    small.fit(np.ones((4, 4, 4, 2)), np.ones((4, 2)), verbose=0)
    np.testing.assert_array_equal(inside.get_weights()[0], before)


def test_the_original_is_not_changed():
    rng = np.random.default_rng(0)
    model = randomized(two_input_net(rng), rng)
    weights, config = model.get_weights(), model.get_config()
    remove_channels(model, drawn_keep(channel_groups(model), rng, 0.5))
    assert model.get_config() == config
    for one, other in zip(model.get_weights(), weights):
        np.testing.assert_array_equal(one, other)


def test_dictionaries_of_inputs_and_outputs_stay_dictionaries():
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((4,), name="b")}
    x = layers.Concatenate()([layers.Dense(5, name="da")(inputs["a"]), layers.Dense(6, name="db")(inputs["b"])])
    model = keras.Model(inputs, {"one": layers.Dense(2)(x), "two": layers.Dense(1)(x)})
    data = {"b": np.ones((2, 4), np.float32), "a": np.full((2, 3), 2, np.float32)}
    small = remove_channels(model, {"da": np.arange(5) < 2})
    assert {key: value.shape for key, value in small(data).items()} == {"one": (2, 2), "two": (2, 1)}
    for key, value in remove_channels(model, {})(data).items():
        np.testing.assert_array_equal(value, model(data)[key])


def odd_activation(x):
    return tf.sin(x)


class Odd(layers.Layer):
    """A custom layer in the way: its channels stay, the others go."""

    def call(self, inputs):
        return tf.reverse(inputs, [-1])


def test_custom_layers_and_activations_stay_while_others_shrink():
    inputs = keras.Input((4, 4, 2))
    x = conv(5, name="a", activation="relu")(inputs)
    x = Odd(name="odd")(conv(4, name="b", activation=odd_activation)(x))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(conv(3, name="c")(x))))
    keep = {"a": np.arange(5) < 3, "c": np.arange(3) < 2}
    small = remove_channels(model, keep)
    np.testing.assert_allclose(outputs(small)[0], outputs(without_incoming_weights(model, keep))[0], atol=1e-5)
    assert not channel_groups(model)["b"].removable


class Unbuildable(layers.Layer):
    def __init__(self, needed, **options):
        super().__init__(**options)

    def get_config(self):
        return {"name": self.name}


def test_a_layer_that_cannot_be_rebuilt_is_named():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2)(Unbuildable(1, name="mine")(layers.Dense(4)(inputs))))
    with pytest.raises(ModelError, match="'mine'"):
        remove_channels(model, {})


def test_removing_the_head_or_everything_is_refused():
    rng = np.random.default_rng(0)
    model = dense_net(rng)
    groups = channel_groups(model)
    head = next(group for group in groups.values() if not group.removable)
    with pytest.raises(PlanError, match="output"):
        remove_channels(model, {head.name: np.arange(head.size) > 0})
    with pytest.raises(PlanError, match="all its"):
        remove_channels(model, {groups.removable[0].name: np.zeros(groups.removable[0].size, bool)})
