from __future__ import annotations

from typing import NamedTuple

import pytest

from keras_xaic._keras import keras
from keras_xaic.tflite.convert import float_twin, int8_twin
from tests.tflite import models


class Twins(NamedTuple):
    small: models.Small
    int8: bytes
    float32: bytes


def _twins(make) -> Twins:
    keras.utils.set_random_seed(0)
    small = models.on_grids(make())
    return Twins(small, int8_twin(small.model, models.inputs_of(small.model, 40)), float_twin(small.model))


@pytest.fixture(scope="session")
def digits() -> Twins:
    return _twins(models.digits_cnn)


@pytest.fixture(scope="session")
def odd() -> Twins:
    return _twins(models.odd_layers)


@pytest.fixture(params=["digits", "odd"])
def twins(request) -> Twins:
    return request.getfixturevalue(request.param)
