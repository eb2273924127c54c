from __future__ import annotations

import numpy as np
import pytest

from keras_xaic.errors import ExportError
from keras_xaic.grids import QuantizedKernel, fit_scale, load_kernels, quantize, save_kernels


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("axes", [(), (3,)])
def test_the_fitted_step_beats_nearby_steps(bits, axes):
    kernel = np.random.default_rng(bits).normal(size=(3, 3, 4, 5)).astype(np.float32)
    scale = fit_scale(kernel, bits, axes)
    assert scale.shape == ((1, 1, 1, 5) if axes else (1, 1, 1, 1))

    def error(step):
        return np.square(quantize(kernel, bits, step).values - kernel).sum()

    largest = np.abs(kernel).max() / (2 ** (bits - 1) - 1)
    assert error(scale) <= error(np.full_like(scale, largest)) + 1e-6
    assert error(scale) <= 1.05 * min(error(scale * f) for f in (0.9, 1.1))


def test_values_are_integers_times_steps_and_survive_the_file(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    grid = quantize(kernel, 4, fit_scale(kernel, 4, (1,)))
    assert np.abs(grid.integers).max() <= 7
    np.testing.assert_array_equal(grid.values, grid.integers.astype(np.float32) * grid.scale)
    save_kernels({"a/b": grid}, tmp_path / "g.npz")
    back = load_kernels(tmp_path / "g.npz")["a/b"]
    np.testing.assert_array_equal(back.values, grid.values)
    assert back.bits == 4


def test_entropy_and_histogram_by_hand():
    grid = QuantizedKernel(np.array([0, 0, 1, -1], np.int8), np.array([0.5], np.float32), 2)
    np.testing.assert_array_equal(grid.histogram, [1, 2, 1])
    assert grid.entropy_bits == pytest.approx(1.5)
    assert grid.sparsity == 0.5


def test_a_gain_scales_steps_and_a_negative_one_turns_signs():
    grid = QuantizedKernel(np.array([[1, 2], [-3, 0]], np.int8), np.array([[0.5, 0.25]], np.float32), 3)
    gain = np.array([[-2.0, 0.0]], np.float32)
    np.testing.assert_allclose(grid.scaled(gain).values, grid.values * gain)


def test_a_grid_that_is_none_is_refused():
    with pytest.raises(ExportError, match="beyond"):
        QuantizedKernel(np.array([4], np.int8), np.array([1.0], np.float32), 3)
    with pytest.raises(ExportError, match="positive"):
        QuantizedKernel(np.array([1], np.int8), np.array([0.0], np.float32), 3)


def test_dead_channels_get_an_ordinary_step():
    kernel = np.zeros((3, 2), np.float32)
    kernel[:, 0] = [1, 2, 3]
    assert fit_scale(kernel, 8, (1,))[0, 1] == pytest.approx(3 / 127)
    assert fit_scale(np.zeros((3, 2), np.float32), 4, ()).item() > 0
