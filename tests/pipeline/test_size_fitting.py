"""Plans that are weighed until they fit: which of them is taken."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.data import Samples
from keras_xaic.errors import ExportError
from keras_xaic.pipeline import size_fitting
from keras_xaic.pipeline.size_fitting import SizeFitter
from keras_xaic.planning import Budget, LayerPlan, Plan
from keras_xaic.recipes import RECIPES
from keras_xaic.relevance.magnitude import magnitude


def made(bits, sparsity):
    layer = LayerPlan(
        key="a", kind="dense", weights=100, bits=bits, granularity="tensor", storage="int4", sparsity=sparsity, flash_bytes=900
    )
    return Plan(layers=[layer], predicted_flash_bytes=900)


@pytest.mark.parametrize(
    ("written", "chosen", "tries"),
    [
        ([790, 1_010, 960, 955, 950], 2, 5),  # the second overruns, the third uses what there is: zeros do not decide
        ([790, 1_010, 985, 1, 2], 2, 3),
        ([1_200, 1_100, 1_010, 1_030, 1_020], 2, 5),  # none fits: the nearest
        ([990, 1, 2, 3, 4], 0, 1),  # near enough at once
    ],
)
def test_what_uses_the_limit_best_is_taken(monkeypatch, written, chosen, tries):
    plans = [made(2, 0.45), made(3, 0.5), made(3, 0.6), made(3, 0.65), made(3, 0.7)]
    sizes = dict(zip((plan.layers[0].sparsity for plan in plans), written))
    asked = []
    monkeypatch.setattr(size_fitting, "measure_damage", lambda *_, **__: "auto")
    monkeypatch.setattr(size_fitting, "plan", lambda *_, **__: plans[len(asked)])
    monkeypatch.setattr(size_fitting, "apply", lambda model, one, *_, **__: one)
    model = keras.Sequential([layers.Input((2,)), layers.Dense(3)])
    fitter = SizeFitter(model, None, RECIPES["auto"], None, None)

    def write(one, samples):
        asked.append(one)
        return bytes(900)

    monkeypatch.setattr(size_fitting.tflite, "build_tflite", write)
    monkeypatch.setattr(size_fitting.tflite, "pack_download", lambda content: bytes(sizes[asked[-1].layers[0].sparsity]))
    taken = fitter.fitting(Budget(flash=1_000, download=1_000))
    assert taken.layers[0].sparsity == plans[chosen].layers[0].sparsity
    assert taken.predicted_download_bytes == written[chosen]
    assert len(asked) == tries


@pytest.mark.parametrize("limit", [1, 10**15])
@pytest.mark.parametrize("flash", [None, 1])
def test_limits_far_from_what_is_possible_are_planned_for_all_the_same(limit, flash):
    model = keras.Sequential([layers.Input((8,)), layers.Dense(16, "relu"), layers.Dense(4)])
    fitter = SizeFitter(model, magnitude(model), RECIPES["auto"].changed(sensitivity="weight_error"), None, None)
    taken = fitter.fitting(Budget(flash=flash, download=limit))
    assert taken.layers
    assert (taken.predicted_download_bytes <= limit) is (limit > 1)
    assert taken.budget == Budget(flash=flash, download=limit)


def test_a_layer_that_is_dead_on_a_few_samples_is_weighed_with_all(monkeypatch):
    monkeypatch.setattr(size_fitting, "measure_damage", lambda *_, **__: "auto")
    model = keras.Sequential([layers.Input((2,)), layers.Dense(3)])
    samples = Samples(np.zeros((40, 2), np.float32))
    seen = []

    def write(small, given):
        seen.append(len(given))
        if len(given) < 40:
            raise ExportError("a layer is dead", "a range")
        return bytes(900)

    monkeypatch.setattr(size_fitting.tflite, "build_tflite", write)
    assert len(SizeFitter(model, None, RECIPES["auto"], None, samples)._written(model)) == 900
    assert seen == [size_fitting.WEIGHED, 40]
    with pytest.raises(ExportError):
        SizeFitter(model, None, RECIPES["auto"], None, samples.take(slice(0, 5)))._written(model)


def test_a_plan_that_comes_out_again_is_not_written_again(monkeypatch):
    monkeypatch.setattr(size_fitting, "measure_damage", lambda *_, **__: "auto")
    monkeypatch.setattr(size_fitting, "plan", lambda *_, **__: made(2, 0.5))
    monkeypatch.setattr(size_fitting, "apply", lambda model, one, *_, **__: one)
    monkeypatch.setattr(size_fitting.tflite, "pack_download", lambda content: content)
    written = []
    monkeypatch.setattr(size_fitting.tflite, "build_tflite", lambda one, _: written.append(one) or bytes(1_200))
    fitter = SizeFitter(keras.Sequential([layers.Input((2,)), layers.Dense(3)]), None, RECIPES["auto"], None, None)
    for limit in (1_000, 900):
        assert fitter.fitting(Budget(flash=limit, download=limit)).predicted_flash_bytes == 1_200
    assert len(written) == 1


def _dense():
    return [keras.Input((400,)), layers.Dense(120, "relu"), layers.Dense(60, "relu")]


def _convolutions():
    return [keras.Input((10, 10, 3)), layers.Conv2D(64, 3, activation="relu"), layers.Conv2D(64, 3), layers.Flatten()]


@pytest.mark.parametrize(
    ("stack", "flash", "download", "bits"), [(_dense, 10_000, 3_600, (2, 4)), (_convolutions, 14_000, 5_000, (2, 3, 4, 8))]
)
def test_where_filters_go_the_file_uses_the_limits(stack, flash, download, bits):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([*stack(), layers.Dense(10)])
    fitter = SizeFitter(model, magnitude(model), RECIPES["auto-magnitude"].changed(bits=bits), None, None)
    made = fitter.fitting(Budget(flash=flash, download=download))
    assert made.remove
    used = made.predicted_flash_bytes / flash, made.predicted_download_bytes / download
    assert 0.95 < min(used) <= max(used) <= 1.0
