from __future__ import annotations

import pytest

from keras_xaic.errors import ExportError
from keras_xaic.planning.storages import KINDS, RUNTIMES, legal_storages, require_legal


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


@pytest.mark.parametrize("kind", sorted(KINDS.values()))
@pytest.mark.parametrize("activations", ["int16", "float32"])
def test_integers_are_never_put_behind_other_activations(kind, activations):
    assert not {"int4", "int8"} & set(legal_storages(kind, 4, True, activations))


def test_a_refusal_names_the_layer_and_what_is_right():
    with pytest.raises(ExportError, match=r"layer 'fc': a 4-bit dense kernel with one step per channel .* Expected int8\."):
        require_legal("fc", "int4", "dense", 4, False, "int8")
    require_legal("fc", "int8", "dense", 4, False, "int8")
