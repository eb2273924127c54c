from __future__ import annotations

import json

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


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_few_levels_get_the_best_step_even_where_weights_have_long_tails(bits):
    kernel = np.random.default_rng(bits).laplace(size=(100, 60)).astype(np.float32)

    def error(step):
        return float(np.square(quantize(kernel, bits, np.full((1, 1), step, np.float32)).values - kernel).sum())

    best = min(error(step) for step in np.linspace(0.05, float(np.abs(kernel).max()), 1500))
    assert error(fit_scale(kernel, bits, ()).item()) <= 1.01 * best


def codebook_kernel(scale, codebook):
    rng = np.random.default_rng(3)
    rows = np.broadcast_to(codebook, (4, len(codebook))) if codebook.ndim == 1 else codebook[0]
    integers = np.stack([rng.choice(row, 30) for row in rows], axis=1).astype(np.int8)
    return QuantizedKernel(integers, np.asarray(scale, np.float32), 2, codebook)


SHARED = np.array([-100, 0, 3, 90], np.int8)
OWN = np.array([[[-100, 0, 3, 90], [-1, 0, 1, 2], [0, 0, 5, 6], [-127, -5, 0, 127]]], np.int8)


@pytest.mark.parametrize(("scale", "codebook"), [([[0.5]], SHARED), ([[0.5, 0.25, 1, 2]], SHARED), ([[0.5, 0.25, 1, 2]], OWN)])
def test_codebooks_survive_the_file_and_a_gain(scale, codebook, tmp_path):
    kernel = codebook_kernel(scale, codebook)
    save_kernels({"a": kernel}, tmp_path / "g.npz")
    back = load_kernels(tmp_path / "g.npz")["a"]
    np.testing.assert_array_equal(back.values, kernel.values)
    np.testing.assert_array_equal(back.codebook, codebook)
    assert back.bits == 2
    assert back.level_bits == 8
    gain = np.array([[2.0, -1.0, 0.0, -3.0]], np.float32)
    np.testing.assert_allclose(kernel.scaled(gain).values, kernel.values * gain)
    np.testing.assert_allclose(kernel.scaled(gain).scaled(gain).values, kernel.values * gain**2)


def test_weights_off_their_codebook_are_refused():
    integers, scale = np.array([-1, 0, 3], np.int8), np.ones(1, np.float32)
    with pytest.raises(ExportError, match="1 weights are not on their codebook"):
        QuantizedKernel(integers, scale, 2, np.array([-1, 0, 2], np.int8))
    with pytest.raises(ExportError, match="lacks 0"):
        QuantizedKernel(integers[:1], scale, 2, np.array([-1, 2], np.int8))
    with pytest.raises(ExportError, match="5 levels for 2 bits"):
        QuantizedKernel(integers, scale, 2, np.array([-1, 0, 1, 2, 3], np.int8))


@pytest.mark.parametrize("codebook", [None, np.array([-2, 0, 1], np.int8)])
def test_the_record_of_a_grid_can_be_checked_by_machine(codebook):
    kernel = QuantizedKernel(np.array([0, 0, 0, 1, -2, 1], np.int8), np.array([0.5], np.float32), 3, codebook)
    record = json.loads(json.dumps(kernel.record))
    p = np.array(record["histogram"]) / sum(record["histogram"])
    assert record["levels"] == [-2, 0, 1]
    assert record["histogram"] == [1, 3, 2]
    assert record["entropy_bits"] == pytest.approx(-(p * np.log2(p)).sum())
    assert record["sparsity"] == 0.5
    assert (record["grid"], record["bits"], record["scale"]) == ("codebook" if codebook is not None else "uniform", 3, [0.5])
