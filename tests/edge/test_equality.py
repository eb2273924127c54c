"""A file that computes something else, or looks different to programs, is found out."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic.edge import judge
from keras_xaic.edge.equality import Original
from keras_xaic.errors import DataError, EdgeError
from keras_xaic.tflite.flatbuffer import load, pack
from keras_xaic.tflite.slim import drop_names
from tests.tflite import foreign_files as files


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("equality")
    (folder / "original.tflite").write_bytes(files.convert(files.image_model(), "int8"))
    return folder


@pytest.fixture(scope="module")
def original(place):
    return Original(place / "original.tflite", judge())


def changed(place, change) -> object:
    model = load((place / "original.tflite").read_bytes())
    change(model)
    (place / "other.tflite").write_bytes(pack(model))
    return place / "other.tflite"


def _other_weights(model) -> None:
    largest = max((buffer for buffer in model.buffers if buffer.data is not None), key=lambda buffer: len(buffer.data))
    largest.data = largest.data ^ 64


def _another_scale(model) -> None:
    output = model.subgraphs[0].tensors[model.subgraphs[0].outputs[0]]
    output.quantization.scale = output.quantization.scale * np.float32(1.01)


def test_the_same_file_is_equal_on_all_kinds_of_inputs(place, original):
    proof = original.compare(place / "original.tflite")
    assert proof.holds
    assert proof.samples >= 20
    assert proof.outcomes > 5
    assert set(proof.skipped) <= {"free dimensions of 4096"}


def test_other_weights_is_found(place, original):
    proof = original.compare(changed(place, _other_weights))
    assert not proof.holds
    assert "random inputs" in proof.differing


def test_another_scale_of_an_output_is_found_though_its_codes_are_the_same(place, original):
    assert "inputs and outputs" in original.compare(changed(place, _another_scale)).differing


def test_names_that_are_gone_are_found_where_they_matter(place, original):
    other = changed(place, drop_names)
    assert "inputs and outputs" in original.compare(other).differing
    assert Original(place / "original.tflite", judge(), signatures=False).compare(other).holds


def test_a_file_that_is_refused_is_no_proof(place, original):
    (place / "other.tflite").write_bytes(files.with_custom_operator((place / "original.tflite").read_bytes()))
    proof = original.compare(place / "other.tflite")
    assert not proof.holds
    with pytest.raises(EdgeError, match="TheirOwn"):
        Original(place / "other.tflite", judge())


def test_data_that_does_not_fit_is_refused(place):
    with pytest.raises(DataError, match="does not fit"):
        Original(place / "original.tflite", judge(), inputs=[np.zeros((3, 5), np.float32)])


def test_a_file_with_random_numbers_proves_nothing(place):
    content = load(files.random_numbers())
    for record in content.subgraphs[0].operators:
        if hasattr(record.builtinOptions, "seed"):
            record.builtinOptions.seed = record.builtinOptions.seed2 = 0
    (place / "noise.tflite").write_bytes(pack(content))
    proof = Original(place / "noise.tflite", judge()).compare(place / "noise.tflite")
    assert not proof.holds
    assert "random inputs" in proof.unsteady


def test_a_slow_file_is_run_on_fewer_samples(place, original, monkeypatch):
    monkeypatch.setattr("keras_xaic.edge.equality.SECONDS", 0.0)
    proof = original.compare(place / "original.tflite")
    assert not proof.differing
    assert proof.samples <= 1
    assert not original.compare(changed(place, _other_weights)).holds
