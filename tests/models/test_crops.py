"""Models that crop at random places in training are used, and written, as Keras uses them."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.models.given import as_model
from keras_xaic.tflite import float_twin


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (12, 9)], ids=["whole", "smaller", "larger"])
def test_random_crops_are_resized_in_use(size):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    model = keras.Model(inputs, layers.Conv2D(2, 3)(layers.RandomCrop(*size, name="crop")(inputs)))
    x = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3)).astype(np.uint8)
    made = as_model(model)
    np.testing.assert_allclose(made(x), model(x, training=False), rtol=1e-5, atol=1e-3)
    assert float_twin(made)
