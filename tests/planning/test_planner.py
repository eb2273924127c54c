from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.compression import apply
from keras_xaic.data import Data, Samples
from keras_xaic.errors import PlanError
from keras_xaic.models import weighted_kernels
from keras_xaic.planning import Budget, PlanOptions, keep_masks, plan
from keras_xaic.relevance import Relevance, attribute
from keras_xaic.tflite import build_tflite, pack_download


def residual():
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(24, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    y = layers.BatchNormalization()(layers.Conv2D(24, 1, name="pointwise")(y))
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(48, 3, strides=2, activation="relu", name="wide")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(64, activation="relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="head")(x))


def dense():
    inputs = keras.Input((200,))
    x = layers.BatchNormalization()(layers.Dense(128, name="first")(inputs))
    x = layers.Dense(128, activation="relu", name="second")(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(200, name="last")(x))


def as_if_trained(model):
    """Biases that are not zero: the converter leaves zeros away."""
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        if len(variable.shape) == 1:
            variable.assign(variable + rng.normal(size=variable.shape) * 0.1)
    return model


@pytest.fixture(scope="module", params=[residual, dense], ids=["residual", "dense"])
def case(request):
    keras.utils.set_random_seed(0)
    model = as_if_trained(request.param())
    x = np.random.default_rng(0).normal(size=(64, *model.input_shape[1:])).astype(np.float32)
    return model, Data(Samples(x)), attribute(model, x, target="predicted" if request.param is residual else "all")


def written(model, made, data, relevance):
    return build_tflite(apply(model, made, data, relevance=relevance, training=xaic.Training(epochs=0)), data.train)


@pytest.mark.parametrize("bits", [(4,), pytest.param((8,), marks=pytest.mark.slow)])
def test_predicted_sizes_are_those_of_written_files(case, bits):
    model, data, relevance = case
    made = plan(model, relevance, Budget(), PlanOptions(bits=bits))
    assert made.predicted_flash_bytes == pytest.approx(
        len(written(model, made, data, relevance)), rel=0.04
    )  # small files: 400 bytes of structure


@pytest.mark.parametrize("bits", [(4,), pytest.param((8,), marks=pytest.mark.slow)])
def test_predicted_sizes_of_weight_only_files_are_those_of_written_files(case, bits):
    model, data, relevance = case
    made = plan(model, relevance, Budget(), PlanOptions(bits=bits, activations="float32"))
    for layer in made.layers:
        packed = layer.kind == "dense" and layer.bits <= 4
        assert (layer.storage, layer.granularity) == (("int4", "tensor") if packed else ("int8", "channel"))
    assert made.predicted_flash_bytes == pytest.approx(len(written(model, made, data, relevance)), rel=0.02)


def test_a_flash_budget_between_4_and_8_bits_gives_the_bits_to_what_matters(case):
    model, data, relevance = case
    small, large = (
        plan(model, relevance, Budget(), PlanOptions(bits=(bits,), packed=True)).predicted_flash_bytes for bits in (4, 8)
    )
    budget = (small + large) // 2
    made = plan(model, relevance, Budget(budget))
    assert {layer.bits for layer in made.layers} >= {4, 8}
    assert not made.remove
    assert len(written(model, made, data, relevance)) <= 1.02 * budget


def test_below_4_bits_filters_go_and_the_file_fits(case):
    model, data, relevance = case
    budget = round(0.7 * plan(model, relevance, Budget(), PlanOptions(bits=(4,), packed=True)).predicted_flash_bytes)
    made = plan(model, relevance, Budget(budget))
    assert made.remove
    assert len(written(model, made, data, relevance)) <= 1.05 * budget
    kept = {name: mask.sum() for name, mask in keep_masks(model, made.remove).items()}
    assert min(kept.values()) >= 4


def test_a_download_budget_asks_for_zeros(case):
    model, data, relevance = case
    full = plan(model, relevance, Budget())
    made = plan(model, relevance, Budget(download=round(0.3 * full.predicted_download_bytes)))
    assert made.sparsity > 0.1
    assert len(pack_download(written(model, made, data, relevance))) <= 0.34 * full.predicted_download_bytes


def test_a_budget_beyond_all_means_gives_the_smallest_plan(case):
    model, _, relevance = case
    made = plan(model, relevance, Budget(500))
    assert made.predicted_flash_bytes > 500
    assert max(layer.bits for layer in made.layers) <= 8


def test_protected_layers_keep_their_filters_and_the_head_always_does():
    keras.utils.set_random_seed(0)
    model = residual()
    x = np.random.default_rng(0).normal(size=(32, 16, 16, 3)).astype(np.float32)
    relevance = attribute(model, x, target="predicted")
    made = plan(model, relevance, Budget(9_000), PlanOptions(protect=("wide",)))
    assert made.remove
    assert not {"wide", "head"} & set(made.remove)


def test_a_plan_for_another_model_is_named(case):
    model, _, _ = case
    with pytest.raises(PlanError, match="the plan removes channels of 'elsewhere'"):
        keep_masks(model, {"elsewhere": [0]})
    group = weighted_kernels(model)[0].path
    with pytest.raises(PlanError, match="removes channel 9999"):
        keep_masks(model, {group: [9999]})


def test_relevance_of_another_model_is_named():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="one")])
    for weights, filters in (((5, 3), (3,)), ((4,), (3,)), ((4, 3), ())):
        relevance = Relevance({"one": np.ones(weights)}, {"one": np.ones(filters)}, {"one": 1.0}, "magnitude")
        with pytest.raises(PlanError, match=r"the relevance of .*'one' has the shape"):
            plan(model, relevance, Budget())
