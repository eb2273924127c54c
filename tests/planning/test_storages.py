from __future__ import annotations

import json
import pathlib
from dataclasses import replace

import pytest

from keras_xaic import edge
from keras_xaic._keras import keras, layers
from keras_xaic.budget import Budget
from keras_xaic.edge import REGISTRY
from keras_xaic.errors import ExportError
from keras_xaic.planning import PlanOptions, plan
from keras_xaic.planning.storages import KINDS, RUNTIMES, can_be_packed, legal_storages, require_legal
from keras_xaic.relevance.magnitude import magnitude

TABLE = pathlib.Path(edge.__file__).with_name("storages.json")


@pytest.mark.parametrize(
    ("kind", "bits", "per_tensor", "expected"),
    [
        ("conv", 4, False, ("int4", "int8")),
        ("depthwise", 2, False, ("int4", "int8")),
        ("conv", 5, False, ("int8",)),
        ("dense", 4, True, ("int4", "int8")),
        ("dense", 4, False, ("int8",)),
        ("conv_transpose", 4, False, ("int8",)),
        ("conv", 8, True, ("int8",)),
    ],
)
def test_what_int8_activations_allow(kind, bits, per_tensor, expected):
    assert legal_storages(kind, bits, per_tensor) == expected


def test_litert_alone_allows_packed_per_channel_dense_layers():
    assert legal_storages("dense", 4, False, runtimes=["litert"]) == ("int4", "int8")
    assert legal_storages("dense", 4, False, runtimes=RUNTIMES) == ("int8",)


def test_every_combination_was_measured_on_every_interpreter_and_version():
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    assert set(table["measured"]) == {name for name, one in REGISTRY.items() if one.deployed} == set(RUNTIMES)
    assert {name for names in table["must_run_on"].values() for name in names} <= set(RUNTIMES)
    for versions in table["measured"].values():
        for rows in versions.values():
            found = {tuple(row[key] for key in ("kind", "storage", "activations", "granularity")) for row in rows}
            assert len(found) == len(rows) == 56
            assert {kind for kind, *_ in found} == set(KINDS.values())
    assert all(one["why"] for one in table["not_used"])


def test_what_is_computed_wrongly_is_never_legal():
    table, wrong = json.loads(TABLE.read_text(encoding="utf-8")), 0
    for name, versions in table["measured"].items():
        for row in list(versions.values())[-1]:
            if not row["right"]:
                wrong += 1
                legal = legal_storages(row["kind"], 4, row["granularity"] == WHOLE, row["activations"], [name])
                assert row["storage"] not in legal
    assert wrong > 20


WHOLE, FINE = "tensor", "channel"
EXACT = {
    # What was compared with Keras on tflite-runtime and TFLite Micro (integer weights behind float32: LiteRT); everything else
    # failed or was not tried.
    ("conv", "int8", "int8"): {WHOLE, FINE},
    ("conv", "int4", "int8"): {WHOLE, FINE},
    ("depthwise", "int8", "int8"): {WHOLE, FINE},
    ("depthwise", "int4", "int8"): {WHOLE, FINE},
    ("dense", "int8", "int8"): {WHOLE, FINE},
    ("dense", "int4", "int8"): {WHOLE},
    ("conv_transpose", "int8", "int8"): {WHOLE, FINE},
    ("conv", "int8", "int16"): {FINE},
    ("depthwise", "int8", "int16"): {FINE},
    ("dense", "int8", "int16"): {WHOLE},
    ("conv_transpose", "int8", "int16"): {FINE},
    ("dense", "int4", "float32"): {WHOLE},
    **{(kind, storage, "float32"): {WHOLE, FINE} for kind in KINDS.values() for storage in ("int8", "float32")},
}


@pytest.mark.parametrize("kind", sorted(KINDS.values()))
@pytest.mark.parametrize("activations", ["int8", "int16", "float32"])
@pytest.mark.parametrize("granularity", [WHOLE, FINE])
@pytest.mark.parametrize("bits", [2, 4, 5, 8])
def test_every_combination_that_was_not_measured_is_illegal(kind, activations, granularity, bits):
    expected = {
        storage
        for storage in ("int4", "int8", "float32")
        if granularity in EXACT.get((kind, storage, activations), ()) and not (storage == "int4" and bits > 4)
    }
    assert set(legal_storages(kind, bits, granularity == WHOLE, activations)) == expected


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("activations", ["int16", "float32"])
def test_packed_weights_are_behind_nothing_but_int8_except_in_dense_layers(runtime, activations):
    for kind in KINDS.values():
        for per_tensor in (True, False):
            is_exact = (kind, per_tensor, activations) == ("dense", True, "float32") and runtime != "tflm"
            assert ("int4" in legal_storages(kind, 4, per_tensor, activations, [runtime])) is is_exact


def test_a_refusal_names_the_layer_and_what_is_right():
    with pytest.raises(ExportError, match=r"layer 'fc': a 4-bit dense kernel with one scale per channel .* Expected int8\."):
        require_legal("fc", "int4", "dense", 4, False, "int8")
    require_legal("fc", "int8", "dense", 4, False, "int8")


def test_integer_weights_behind_float_activations_are_not_for_micro():
    for kind in KINDS.values():
        for per_tensor in (True, False):
            assert legal_storages(kind, 8, per_tensor, "float32") == ("int8", "float32")
            assert legal_storages(kind, 8, per_tensor, "float32", ["tflm"]) == ("float32",)


WRONG = [
    (62, 8),
    (82, 5),
    (82, 9),
    (88, 8),
    (90, 10),
    (94, 7),
    (126, 24),
    (1272, 24),
    (1274, 12),
    (1274, 23),
    (1470, 28),
    (2046, 4),
]
RIGHT = [(64, 8), (66, 9), (72, 8), (80, 12), (98, 9), (18, 8), (31, 8), (47, 24), (1200, 24), (1225, 24)]


def test_kernels_that_the_interpreter_computes_wrongly_are_not_packed():
    """Shapes as tflite-runtime 2.14 was seen to compute them, against `tests/tflite/test_weight_only.py`'s dense layer."""
    assert [shape for shape in WRONG + RIGHT if can_be_packed("dense", shape, "float32")] == RIGHT
    assert all(can_be_packed("dense", shape, "int8") for shape in WRONG)
    assert can_be_packed("conv", (3, 3, 8, 8), "int8")


def _net():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((10, 10, 3))
    for number in (1, 2, 3):
        x = layers.Conv2D(16 * number, 3, activation="relu", name=f"conv{number}")(x)
    x = layers.Dense(32, activation="relu", name="body")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(5, name="head")(x))


SLOW = {("conv", "int4"), ("depthwise", "int4")}


@pytest.mark.parametrize("download", [30_000, 14_000])
def test_no_slow_storage_where_only_the_download_is_limited(download):
    model = _net()
    made = plan(model, magnitude(model), Budget(download=download), PlanOptions(bits=(2, 3, 4, 8)))
    assert min(layer.bits for layer in made.layers if layer.kind == "conv") <= 4
    assert not SLOW & {(layer.kind, layer.storage) for layer in made.layers}
    assert not made.lookup
    assert made.predicted_download_bytes <= download
    assert not any("fast kernels" in layer.reason for layer in made.layers)


def test_flash_that_is_left_buys_speed():
    model = _net()
    options = PlanOptions(bits=(4,), filters=False)
    packed = plan(model, magnitude(model), Budget(), replace(options, packed=True)).predicted_flash_bytes
    found = {}
    for more in (0, 2_500, 8_000, 20_000):
        made = plan(model, magnitude(model), Budget(flash=packed + more), options)
        assert made.predicted_flash_bytes <= packed + more
        slow = {layer.key for layer in made.layers if (layer.kind, layer.storage) in SLOW}
        assert slow == {layer.key for layer in made.layers if "packed for flash" in layer.reason}, "the plan says which pay"
        found[more] = slow
    assert found[0] == {"conv1", "conv2", "conv3"}
    assert set() < found[2_500] < found[0]
    assert found[20_000] == set()


def test_kernels_are_looked_up_only_where_flash_is_short():
    model = _net()
    options = PlanOptions(bits=(2,), filters=False)
    short = plan(model, magnitude(model), Budget(flash=1), options)
    assert short.lookup
    assert any("looked up for flash" in layer.reason for layer in short.layers if layer.kind == "dense")
    assert not plan(model, magnitude(model), Budget(flash=200_000), options).lookup
