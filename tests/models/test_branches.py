"""Residual branches taken out whole: the model is what one would have written without them."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.errors import PlanError
from keras_xaic.models import Operations, channel_groups, remove_branches, residual_branches


def conv(x, filters, name, size=3, norm=True, **options):
    x = layers.Conv2D(filters, size, padding="same", name=name, **options)(x)
    return layers.BatchNormalization(name=f"{name}_norm")(x) if norm else x


def behind_relu(x, name, without):
    """ResNet: a ReLU behind the sum, which x went through already."""
    if without:
        return x
    y = conv(layers.ReLU()(conv(x, 6, f"{name}_a")), 4, f"{name}_b")
    return layers.ReLU()(layers.Add(name=name)([x, y]))


def before_relu(x, name, without):
    """ResNet, version 2: normalization and ReLU are in the branch, the sum is linear."""
    if without:
        return x
    y = layers.Activation("relu")(layers.BatchNormalization(name=f"{name}_norm")(x))
    return layers.Add(name=name)([conv(y, 4, f"{name}_a", norm=False), x])


def inverted(x, name, without):
    """MobileNetV2: wide inside, linear at the end."""
    if without:
        return x
    y = layers.ReLU(6.0)(conv(x, 8, f"{name}_wide", 1, use_bias=False))
    y = layers.DepthwiseConv2D(3, padding="same", name=f"{name}_depthwise")(y)
    return layers.Add(name=name)([x, conv(layers.ReLU(6.0)(y), 4, f"{name}_narrow", 1)])


def gated(x, name, without):
    """MobileNetV3: a gate inside of the branch, and the sum of a plain operator."""
    if without:
        return x
    y = conv(x, 4, f"{name}_a")
    gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
    y = layers.Multiply()([y, layers.Dense(4, activation="sigmoid", name=f"{name}_gate")(gate)])
    return x + 0.5 * y


def linear_kept(x, name, without):
    """A ReLU behind the sum of what no ReLU made does something without the branch, too."""
    x = conv(x, 4, f"{name}_before")
    y = x if without else layers.Add(name=name)([x, conv(x, 4, f"{name}_a")])
    return layers.Activation("relu")(y)


def of_three(x, name, without):
    """Two branches of one sum: the first goes, the other stays."""
    y, z = conv(x, 4, f"{name}_a"), conv(x, 4, f"{name}_b")
    return layers.Add(name=name)([x, z] if without else [x, y, z])


STYLES = {behind_relu: (0,), before_relu: (1,), inverted: (0, 1), gated: (0,), linear_kept: (0, 1), of_three: (1,)}
"""Kinds of blocks, and the numbers of those that go."""


def net(style, without=(), nested=False):
    inputs = keras.Input((6, 6, 3))
    x = layers.ReLU()(conv(inputs, 4, "stem"))
    for name in ("first", "second"):
        if nested:
            inside = keras.Input((6, 6, 4))
            x = keras.Model(inside, style(inside, name, name in without), name=f"{name}_block")(x)
        else:
            x = style(x, name, name in without)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalMaxPooling2D()(x)))


def weights_by_name(model):
    return {operation.path.split("/")[-1]: operation.layer for operation in Operations(model)}


@pytest.mark.parametrize(("style", "gone"), STYLES.items())
def test_the_model_is_what_one_would_write_without_them(style, gone):
    keras.utils.set_random_seed(1)
    model = net(style)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.2, 1.0, weight.shape) for weight in model.get_weights()])
    found = residual_branches(Operations(model))
    names = [name for name in found if style is not of_three or name.endswith(":1")]
    small = remove_branches(model, [names[number] for number in gone])
    expected = net(style, [("first", "second")[number] for number in gone])
    theirs = weights_by_name(model)
    for name, layer in weights_by_name(expected).items():
        if layer.weights:
            layer.set_weights(theirs[name].get_weights())
    x = rng.normal(size=(3, 6, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(small(x), expected(x), rtol=1e-5, atol=1e-5)
    assert not np.allclose(small(x), model(x))
    assert [type(layer) for layer in small.layers] == [type(layer) for layer in expected.layers]
    for name, group in channel_groups(small).items():  # what is left has the numbers that it had
        assert channel_groups(model)[name].size == group.size


def test_branches_of_nested_models_go_by_their_path():
    model = net(inverted, nested=True)
    found = residual_branches(Operations(model))
    assert list(found) == ["first_block/first", "second_block/second"]
    assert found["first_block/first"].layers[0] == "first_block/first_wide"
    small = remove_branches(model, found)
    assert {layer.name for layer in small.layers if layer.weights} == {"stem", "stem_norm", "head"}


def test_an_inner_branch_goes_alone_or_with_the_outer_one():
    inputs = keras.Input((6, 6, 3))
    x = conv(inputs, 4, "stem")
    y = conv(x, 4, "outer")
    y = layers.Add(name="inside")([y, conv(y, 4, "inner")])
    x = layers.Add(name="around")([x, y])
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))
    found = residual_branches(Operations(model))
    assert {name: branch.layers for name, branch in found.items()} == {"inside": ("inner",), "around": ("outer", "inner")}
    inner = remove_branches(model, ["inside"])
    assert {"outer", "around"} <= {layer.name for layer in inner.layers}
    both, outer = (remove_branches(model, names) for names in (["inside", "around"], ["around"]))
    assert [layer.name for layer in both.layers] == [layer.name for layer in outer.layers]
    assert "outer" not in {layer.name for layer in outer.layers}


def a_projection(x):
    return layers.Add()([conv(x, 4, "short", 1), conv(x, 4, "long")])


def one_that_is_read_elsewhere(x):
    y = conv(x, 4, "branch")
    return layers.Concatenate()([layers.Add()([x, y]), y])


def one_of_a_shared_layer(x):
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    return shared(layers.Add()([x, shared(x)]))


def one_that_is_spread(x):
    return layers.Add()([x, layers.Dense(4)(layers.GlobalAveragePooling2D(keepdims=True)(x))])


def a_difference(x):
    return layers.Subtract()([x, conv(x, 4, "branch")])


def one_without_weights(x):
    return layers.Add()([x, layers.Activation("tanh")(x)])


@pytest.mark.parametrize(
    "style",
    [a_projection, one_that_is_read_elsewhere, one_of_a_shared_layer, one_that_is_spread, a_difference, one_without_weights],
)
def test_what_is_no_branch_stays(style):
    inputs = keras.Input((6, 6, 3))
    x = style(layers.ReLU()(conv(inputs, 4, "stem")))
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalMaxPooling2D()(x)))
    assert residual_branches(Operations(model)) == {}
    with pytest.raises(PlanError, match=r"no residual branch 'add'.*none"):
        remove_branches(model, ["add"])


def test_a_sum_that_is_the_models_output_keeps_its_branch():
    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, layers.Add()([inputs, conv(conv(inputs, 8, "a"), 3, "b")]))
    assert residual_branches(Operations(model)) == {}
