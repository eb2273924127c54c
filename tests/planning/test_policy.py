from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.errors import PlanError
from keras_xaic.planning import Budget, Plan, PlanOptions, check_plan, plan
from keras_xaic.relevance import attribute


@pytest.fixture(scope="module")
def case():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(8, 3, activation="relu", name="stem")(inputs)
    x = layers.Conv2D(16, 3, activation="relu", name="body")(x)
    model = keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(layers.Flatten()(x)))
    x = np.random.default_rng(0).normal(size=(32, 8, 8, 2)).astype(np.float32)
    return model, attribute(model, x, target="predicted")


def test_pinned_layers_get_their_bits_whatever_the_budget(case):
    made = plan(*case, Budget(mean_bits=3.5), PlanOptions(pin={"stem": 8, "h*": 3}))
    assert (made["stem"].bits, made["head"].bits) == (8, 3)
    assert "pinned to 8 bits by 'stem'" in made["stem"].reason
    assert made.mean_bits <= 3.5


def test_float_layers_stay_float_and_cost_four_bytes_a_weight(case):
    made = plan(*case, Budget(), PlanOptions(float_layers=["head"]))
    head = made["head"]
    assert (head.storage, head.bits, head.is_float) == ("float32", 32, True)
    assert head.flash_bytes >= 4 * head.weights
    assert all(layer.storage != "float32" for layer in made.layers if layer.key != "head")


def test_int16_activations_never_meet_packed_weights(case):
    made = plan(*case, Budget(mean_bits=3.0), PlanOptions(activations="int16"))
    assert {layer.storage for layer in made.layers} == {"int8"}
    assert made["head"].granularity == "tensor"
    check_plan(made, case[0])


def test_float_activations_take_a_byte_a_weight_and_half_of_it_in_dense_layers(case):
    made = plan(*case, Budget(mean_bits=4.0), PlanOptions(activations="float32", float_layers=["stem"]))
    assert (made["stem"].storage, made.activations) == ("float32", "float32")
    for layer in made.layers:
        small = layer.kind == "dense" and layer.bits <= 4
        if layer.key != "stem":
            assert (layer.storage, layer.granularity) == (("int4", "tensor") if small else ("int8", "channel"))
    check_plan(made, case[0])
    convolution = next(layer.key for layer in made.layers if layer.kind == "conv" and layer.key != "stem")
    for key in (convolution, "head"):
        with pytest.raises(PlanError, match=r"float32 activations\) as int4\. Expected int8 or float32"):
            check_plan(edited(made, key, {"bits": 4, "storage": "int4", "granularity": "channel"}), case[0])


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"pin": {"nowhere": 8}}, "no layer matches 'nowhere'"),
        ({"float_layers": ["tail*"]}, r"no layer matches 'tail\*'"),
        ({"pin": {"head": 9}}, "bit-width 9"),
        ({"bits": (4, 12)}, "bit-width 12"),
        ({"activations": "float16"}, "activations is 'float16'"),
        ({"activations": "float32", "budget": Budget(ram=9000)}, "a RAM budget with float32 activations"),
        ({"activations": "int16", "float_layers": ["head"]}, "float layers head among int16"),
    ],
)
def test_unusable_options_are_named(case, option, words):
    option = dict(option)
    budget = option.pop("budget", Budget())
    with pytest.raises(PlanError, match=words):
        plan(*case, budget, PlanOptions(**option))


def edited(made, which, changes):
    layers_ = [layer.model_copy(update=changes) if layer.key == which else layer for layer in made.layers]
    return made.model_copy(update={"layers": layers_})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bits": 6, "storage": "int4"}, "'stem' .6-bit conv.* as int4. Expected int8"),
        ({"key": "sten"}, "the plan names the layer 'sten'. Expected one of the model's, e.g. stem"),
        ({"key": "body"}, "'body' twice"),
        ({"weights": 145}, "for 145 weights of layer 'stem'. Expected 144"),
        ({"kind": "dense"}, "calls layer 'stem' dense. Expected conv"),
        ({"storage": "float32", "bits": 32}, None),
    ],
)
def test_mistakes_in_an_edited_plan_are_named(case, changes, words):
    made = edited(plan(*case, Budget(mean_bits=4.0)), "stem", changes)
    if words is None:
        check_plan(made, case[0])
        return
    with pytest.raises(PlanError, match=words):
        check_plan(made, case[0])


def test_packed_weights_behind_int16_are_refused_in_an_edited_plan(case):
    made = plan(*case, Budget(mean_bits=4.0), PlanOptions(bits=(4,))).model_copy(update={"activations": "int16"})
    with pytest.raises(PlanError, match="int16 activations"):
        check_plan(made, case[0])


def test_options_survive_the_file(case, tmp_path):
    made = plan(*case, Budget(mean_bits=16.0), PlanOptions(float_layers=["head"]))
    made.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == made
    (tmp_path / "plan.json").write_text((tmp_path / "plan.json").read_text().replace('"bits": 32', '"bits": 12'))
    with pytest.raises(PlanError, match="12 bits: grids have 2 to 8"):
        Plan.load(tmp_path / "plan.json")


def test_zeros_that_go_together_are_planned_per_layer(case):
    model, relevance = case
    made = plan(model, relevance, Budget(), PlanOptions(bits=(8,), sparsity=0.3, zeros={"head": "2:4"}))
    assert (made["head"].pattern, made["head"].sparsity) == ("2:4", 0.5)
    assert {layer.pattern for layer in made.layers if layer.key != "head"} == {"unstructured"}
