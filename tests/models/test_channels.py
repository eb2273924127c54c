from __future__ import annotations

import itertools

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import ModelError, PlanError
from keras_xaic.models.channels import channel_groups, group_scores
from keras_xaic.models.costs import kept_macs, kept_parameters, kept_shapes, macs, parameters


def producers(model):
    """Group name -> producers, of the removable groups."""
    return {group.name: group.producers for group in channel_groups(model).removable}


def tied(model):
    """Producers of the removable groups, in alphabetic order: the order of branches is Keras' own."""
    return sorted(sorted(group.producers) for group in channel_groups(model).removable)


def why(model, path):
    group = next(one for one in channel_groups(model).values() if path in one.producers)
    assert not group.removable
    return group.why


def image(*shape):
    return keras.Input(shape or (8, 8, 3), name="image")


def conv(name, filters=4, size=3, **options):
    return layers.Conv2D(filters, size, padding="same", name=name, **options)


def head(x, name="head"):
    return layers.Dense(2, name=name)(layers.GlobalAveragePooling2D()(x))


def test_a_chain_has_one_group_per_layer_and_a_head():
    x = inputs = image()
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(conv("a", 6)(x)))
    x = layers.Dense(5, name="d")(layers.Flatten()(layers.MaxPooling2D()(conv("b", 7)(x))))
    groups = channel_groups(keras.Model(inputs, layers.Dense(2, activation="softmax", name="head")(x)))
    assert [(g.name, g.size, g.consumers, g.followers) for g in groups.removable] == [
        ("a", 6, ("b",), ("bn",)),
        ("b", 7, ("d",), ()),
        ("d", 5, ("head",), ()),
    ]
    assert groups["head"].why == "they are the model's output"


def test_a_residual_trunk_is_one_group():
    inputs = image()
    x = conv("stem")(inputs)
    for i in range(2):
        x = layers.Add()([x, conv(f"out{i}")(conv(f"in{i}", 3)(x))])
    assert producers(keras.Model(inputs, head(x))) == {"stem": ("stem", "out0", "out1"), "in0": ("in0",), "in1": ("in1",)}


@pytest.mark.parametrize(
    "merge", [layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum]
)
def test_every_element_wise_merge_ties_its_inputs(merge):
    inputs = image()
    model = keras.Model(inputs, head(merge()([conv("a")(inputs), conv("b")(inputs)])))
    assert producers(model) == {"a": ("a", "b")}


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a + b,
        lambda a, b: a * b,
        lambda a, b: a - 2.0 * b,
        lambda a, b: tf.maximum(tf.nn.relu(a), 0.5) / b,
        lambda a, b: 1.0 - a + tf.sigmoid(b) ** 2,
    ],
)
def test_plain_operators_tie_their_inputs(function):
    inputs = image()
    assert tied(keras.Model(inputs, head(function(conv("a")(inputs), conv("b")(inputs))))) == [["a", "b"]]


def test_concatenation_keeps_groups_apart_and_maps_the_indices():
    inputs = image()
    a, b = conv("a", 3)(inputs), conv("b", 5)(inputs)
    model = keras.Model(inputs, head(conv("c")(layers.Concatenate()([a, b, a]))))
    groups = channel_groups(model)
    assert producers(model) == {"a": ("a",), "b": ("b",), "c": ("c",)}
    keep = {"a": np.array([True, False, True]), "b": np.array([True, True, False, False, False])}
    assert kept_shapes(groups, keep)["c"][0] == (3, 3, 2 + 2 + 2, 4)


def test_concatenation_before_an_addition_makes_one_group_of_all():
    inputs = image()
    joined = layers.Concatenate()([conv("a", 3)(inputs), conv("b", 5)(inputs)])
    groups = channel_groups(keras.Model(inputs, head(joined + conv("c", 8)(inputs))))
    (group,) = groups.removable
    assert (group.size, group.producers) == (8, ("a", "b", "c"))
    np.testing.assert_array_equal(group.members["b"], np.arange(3, 8))
    np.testing.assert_array_equal(group.members["c"], np.arange(8))


def test_a_function_that_concatenates_counts_as_concatenation():
    inputs = image()
    x = tf.concat([conv("a", 3)(inputs), conv("b", 5)(inputs)], axis=-1)
    x = tf.concat([x, conv("c", 8)(inputs)], axis=1)  # along the height: the channels are added to no other
    assert producers(keras.Model(inputs, head(tf.reduce_mean(x, [1, 2], keepdims=True)))) == {"a": ("a", "b", "c")}


def test_squeeze_and_excitation_gates_belong_to_what_they_gate():
    inputs = image()
    x = conv("a", 6)(inputs)
    gate = layers.Reshape((1, 1, 6))(layers.GlobalAveragePooling2D()(x))
    gate = layers.Dense(6, "sigmoid", name="gate")(layers.Dense(2, "relu", name="squeeze")(gate))
    assert producers(keras.Model(inputs, head(layers.Multiply()([x, gate])))) == {"a": ("a", "gate"), "squeeze": ("squeeze",)}


def test_a_gate_of_one_channel_stays():
    inputs = image()
    model = keras.Model(inputs, head(conv("a")(inputs) * conv("gate", 1, activation="sigmoid")(inputs)))
    assert producers(model) == {"a": ("a",)}
    assert "spreads it over all channels" in why(model, "gate")


@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise_convolutions_follow_the_channels_in_front(multiplier):
    inputs = image()
    x = layers.BatchNormalization(name="bn")(
        layers.DepthwiseConv2D(3, depth_multiplier=multiplier, name="dw")(conv("a", 5)(inputs))
    )
    groups = channel_groups(keras.Model(inputs, head(x)))
    (group,) = groups.removable
    assert (group.producers, group.followers, group.consumers) == (("a",), ("dw", "bn"), ("head",))
    shapes = kept_shapes(groups, {"a": np.array([True, False, True, False, False])})
    assert shapes["dw"] == [(3, 3, 2, multiplier), (2 * multiplier,)]
    assert shapes["head"] == [(2 * multiplier, 2), (2,)]


def test_a_dense_layer_reshaped_into_an_image_loses_whole_planes():
    inputs = keras.Input((5,))
    x = layers.Reshape((3, 3, 4), name="reshape")(layers.Dense(36, name="d")(inputs))
    groups = channel_groups(keras.Model(inputs, head(layers.Conv2DTranspose(6, 3, name="up")(x))))
    assert groups["d"].size == 4
    np.testing.assert_array_equal(groups["d"].members["d"], np.arange(36) % 4)
    shapes = kept_shapes(groups, {"d": np.array([True, False, True, False]), "up": np.arange(6) < 5})
    assert shapes["d"][0] == (5, 18)
    assert shapes["up"][0] == (3, 3, 5, 2)


def test_a_reshape_that_mixes_all_channels_leaves_nothing_to_remove():
    inputs = image()
    x = layers.Reshape((8 * 8 * 2, 2))(conv("a", 4)(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling1D()(x)))
    assert [len(set(group.members["a"])) for group in channel_groups(model).values() if group.name == "a"] == [2]


def test_shared_layers_tie_what_they_read():
    inputs = image()
    shared = conv("shared", 6)
    x = shared(conv("a")(inputs)) + shared(conv("b")(inputs))
    bn = layers.BatchNormalization(name="bn")
    y = bn(conv("c")(x)) - 3.0 * layers.ReLU()(conv("c2")(bn(conv("d")(x))))
    assert tied(keras.Model(inputs, head(y))) == [["a", "b"], ["c", "c2", "d"], ["shared"]]


def test_nested_models_are_opened():
    inside = keras.Input((8, 8, 4))
    block = keras.Model(inside, conv("out")(conv("in", 6)(inside)), name="block")
    inputs = image()
    x = conv("stem")(inputs)
    model = keras.Model(inputs, head(layers.Add()([x, block(x)])))
    assert producers(model) == {"stem": ("stem", "block/out"), "block/in": ("block/in",)}


def test_one_dimensional_nets_and_two_inputs():
    one, two = keras.Input((12, 3)), keras.Input((7,))
    x = layers.PReLU(name="prelu")(
        layers.SeparableConv1D(6, 3, name="sep")(layers.Conv1D(5, 3, padding="causal", name="c")(one))
    )
    x = layers.Concatenate()([layers.Flatten()(x), layers.Dense(4, name="side")(two)])
    model = keras.Model([one, two], [layers.Dense(2, name="h1")(x), layers.Dense(3, name="h2")(x)])
    groups = channel_groups(model)
    assert {g.name: (set(g.consumers), g.followers) for g in groups.removable} == {
        "c": ({"sep"}, ()),
        "side": ({"h1", "h2"}, ()),
        "sep": ({"h1", "h2"}, ("prelu",)),
    }
    assert kept_shapes(groups, {"sep": np.arange(6) < 2})["h1"][0] == (10 * 2 + 4, 2)
    assert kept_shapes(groups, {"sep": np.arange(6) < 2})["prelu"][0] == (10, 2)


class Custom(layers.Layer):
    def call(self, inputs):
        return inputs[..., ::-1]


class OwnConv(layers.Conv2D):
    pass


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Custom(name="odd"), "layer 'odd' (Custom)"),
        (OwnConv(4, 1, name="odd"), "layer 'odd' (OwnConv)"),
        (layers.LayerNormalization(name="odd"), "layer 'odd' (LayerNormalization)"),
        (layers.Softmax(name="odd"), "layer 'odd' (Softmax)"),
        (layers.Permute((3, 1, 2), name="odd"), "moves the channel axis"),
        (layers.Conv2D(4, 1, groups=2, name="odd"), "layer 'odd' is a grouped convolution"),
        (layers.BatchNormalization(axis=1, name="odd"), "normalizes over another axis"),
        (layers.Rescaling([1.0, 2.0, 3.0, 4.0], name="odd"), "a number for every channel"),
        (layers.MaxPooling2D(data_format="channels_first", name="odd"), "channels first"),
        (layers.TimeDistributed(layers.Dense(4), name="odd"), "layer 'odd' (TimeDistributed)"),
    ],
)
def test_what_cannot_be_followed_fixes_its_channels_and_is_named(layer, reason):
    inputs = image()
    x = layer(conv("a")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(layers.Dense(6, name="after")(x))))
    assert reason in why(model, "a")
    assert channel_groups(model)["after"].removable


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: tf.nn.softmax(x), "softmax"),
        (lambda x: tf.reverse(x, [-1]), "reverse"),
        (lambda x: x * np.arange(4, dtype=np.float32), "multiply"),
        (lambda x: tf.reduce_mean(x, axis=-1, keepdims=True), "reduce_mean"),
        (lambda x: x[..., :2], "getitem"),
    ],
)
def test_functions_that_mix_channels_fix_them(function, reason):
    inputs = image()
    assert reason in why(keras.Model(inputs, head(function(conv("a")(inputs)))), "a")


def test_a_softmax_between_layers_fixes_its_channels():
    inputs = image()
    assert "'softmax' of layer 'a'" in why(keras.Model(inputs, head(conv("a", activation="softmax")(inputs))), "a")


def test_channels_added_to_the_input_or_the_output_stay():
    inputs = image()
    assert "model's input" in why(keras.Model(inputs, head(inputs + conv("a", 3)(inputs))), "a")
    a = conv("a")(inputs)
    assert "model's output" in why(keras.Model(inputs, [head(a), a + conv("b")(inputs)]), "b")


def unusual_nets():
    inputs = keras.Input((10,))
    sequence, state, _ = layers.LSTM(5, return_sequences=True, return_state=True)(layers.Embedding(20, 6)(inputs))
    yield keras.Model(inputs, layers.Dense(2)(layers.Dense(4, name="free")(layers.Concatenate()([sequence[:, -1], state]))))
    inputs = keras.Input((8, 6))
    x = layers.LayerNormalization()(layers.MultiHeadAttention(2, 3)(layers.Dense(6)(inputs), inputs) + inputs)
    x = layers.Dense(4, name="free")(layers.GlobalAveragePooling1D()(x))
    yield keras.Model(inputs, layers.Dense(2)(x))
    inputs = image()
    a, b = tf.split(conv("a", 6)(inputs), 2, axis=-1)
    x = tf.image.resize(conv("free", 4)(a * b), (3, 3), "nearest")
    yield keras.Model(inputs, layers.Dense(2)(layers.Flatten()(conv("free2")(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])))))
    inputs = keras.Input(())
    yield keras.Model(inputs, layers.Dense(2)(layers.Dense(4, name="free")(tf.expand_dims(inputs, -1))))
    inputs = keras.Input((None, None, 3))
    yield keras.Model(inputs, head(conv("free", 6)(inputs)))
    inputs = keras.Input((6, 3))
    x = layers.Bidirectional(layers.GRU(4))(layers.Masking()(inputs))
    yield keras.Model(inputs, layers.Dense(2)(layers.Dense(5, name="free")(layers.Dot(1)([x, x]))))


@pytest.mark.parametrize("number", range(6))
def test_unusual_nets_never_raise_and_what_is_certain_can_still_go(number):
    model = next(itertools.islice(unusual_nets(), number, None))
    groups = channel_groups(model)
    assert all(group.removable or group.why for group in groups.values())
    assert any(group.name.startswith("free") for group in groups.removable)
    assert kept_parameters(groups, {}) == parameters(model)
    assert kept_macs(groups, {}) == macs(model)


def test_a_subclassed_model_is_refused():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ModelError, match="no graph"):
        channel_groups(Subclassed())


def small_net():
    inputs = image()
    x = layers.Add()([conv("a", 3)(inputs), conv("b", 3)(inputs)])
    return keras.Model(inputs, head(conv("c", 2)(x)))


def test_group_scores_add_up_over_the_filters_of_a_channel():
    groups = channel_groups(small_net())
    filters = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([10.0, 0.0, 5.0]), "head": np.ones(2)}
    np.testing.assert_array_equal(group_scores(groups, filters)["a"], [11, 2, 8])
    np.testing.assert_allclose(group_scores(groups, filters, norm="l2")["a"], np.array([11, 2, 8]) / np.sqrt(189))
    assert set(group_scores(groups, filters)) == {"a"}  # c has no scores, the head cannot be removed
    with pytest.raises(PlanError, match=r"'b'.*\(2,\)"):
        group_scores(groups, {"b": np.ones(2)})


def test_masks_that_cannot_be_kept_are_refused():
    groups = channel_groups(small_net())
    for keep, reason in [
        ({"nowhere": np.ones(3, bool)}, "nowhere"),
        ({"b": np.ones(3, bool)}, "'b'"),
        ({"a": np.ones(4, bool)}, r"\(4,\)"),
        ({"a": np.ones(3)}, "float64"),
        ({"a": np.zeros(3, bool)}, "all its 3"),
        ({"head": np.array([True, False])}, "output"),
    ]:
        with pytest.raises(PlanError, match=reason):
            kept_parameters(groups, keep)


def test_costs_by_hand():
    inputs = image(8, 8, 3)
    x = layers.Conv2D(5, 3, strides=2, padding="same", name="conv")(inputs)
    x = layers.DepthwiseConv2D(3, padding="valid", name="dw")(layers.BatchNormalization(name="bn")(x))
    x = layers.SeparableConv2D(6, 3, padding="same", use_bias=False, name="sep")(x)
    x = layers.Conv2DTranspose(4, 2, strides=2, name="up")(x)
    shared = layers.Dense(4, name="shared")
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(shared(shared(x)))))
    assert macs(model) == {
        "conv": 16 * 3 * 3 * 3 * 5,
        "dw": 4 * 9 * 5,
        "sep": 4 * (9 * 5 + 5 * 6),
        "up": 4 * (4 * 6 * 4),
        "shared": 2 * 16 * 16,
        "head": 64 * 3,
    }
    assert parameters(model) == {"conv": 140, "bn": 20, "dw": 50, "sep": 75, "up": 100, "shared": 20, "head": 195}
    groups = channel_groups(model)
    keep = {"conv": np.arange(5) < 2, "sep": np.arange(6) < 5}
    assert kept_macs(groups, keep)["sep"] == 4 * (9 * 2 + 2 * 5)
    assert kept_parameters(groups, keep)["up"] == 2 * 2 * 4 * 5 + 4
    assert kept_macs(groups, {}) == macs(model)
    assert kept_parameters(groups, {}) == parameters(model)
