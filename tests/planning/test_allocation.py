from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from keras_xaic.planning.allocation import Candidate, Limits, allocate, allocate_uniform
from keras_xaic.planning.sensitivity import rounding_damage
from keras_xaic.planning.sparsity import LEAST_KEPT, kept_weights, weight_score


def best_by_trying_everything(candidates, flash, download, mean_bits):
    best, least = None, np.inf
    for choice in itertools.product(*candidates.values()):
        fits = (flash is None or sum(c.flash_bytes for c in choice) <= flash) and (
            download is None or sum(c.download_bytes for c in choice) <= download
        )
        if mean_bits is not None:
            fits &= sum(c.bits * c.weights for c in choice) <= mean_bits * sum(c.weights for c in choice)
        damage = sum(c.damage for c in choice)
        if fits and damage < least:
            best, least = choice, damage
    return best, least


@pytest.mark.parametrize("seed", range(8))
def test_allocation_is_as_good_as_trying_everything(seed):
    rng = np.random.default_rng(seed)
    candidates = {}
    for layer in range(5):
        size = int(rng.integers(50, 2000))
        candidates[f"l{layer}"] = [
            Candidate(
                bits, float(rng.random() * 4.0**-bits), size * (4 if bits <= 4 else 8) // 8, int(size * bits * 0.9) // 8, size
            )
            for bits in (2, 3, 4, 6, 8)
        ]
    most = sum(options[-1].flash_bytes for options in candidates.values())
    for limits in [
        (most * 0.7, None, None),
        (None, most * 0.4, None),
        (most * 0.8, most * 0.5, None),
        (None, None, 3.7),
        (most * 0.8, None, 4.1),
        (None, None, 1.9),
        (None, None, None),
    ]:
        found = allocate(candidates, Limits(*limits))
        expected, least = best_by_trying_everything(candidates, *limits)
        assert (found is None) == (expected is None)
        if found is not None:
            assert sum(c.damage for c in found.values()) == pytest.approx(least, rel=1e-6)


def test_an_impossible_budget_has_no_answer():
    assert allocate({"a": [Candidate(4, 1.0, 100, 90)]}, Limits(flash=99)) is None


def test_uniform_bits_are_the_most_that_fit_and_pinned_kernels_stay():
    free = {name: [Candidate(bits, 4.0**-bits, 10 * bits, bits, 80) for bits in (2, 3, 4, 8)] for name in "ab"}
    pinned = {**free, "head": [Candidate(8, 0.1, 80, 8, 40)]}
    found = allocate_uniform(pinned, Limits(mean_bits=4.5))
    assert {key: one.bits for key, one in found.items()} == {"a": 3, "b": 3, "head": 8}  # (3*160 + 8*40) / 200 = 4
    assert allocate_uniform(pinned, Limits(mean_bits=4.8))["a"].bits == 4
    assert allocate_uniform(free, Limits(flash=39)) is None


def test_damage_by_hand():
    kernel, rounded, relevance = np.array([1.0, -2.0, 0.0]), np.array([1.1, -2.0, 0.0]), np.array([3.0, 1.0, 5.0])
    plain = 0.01 / 5.0  # squared error over squared weights
    assert rounding_damage(kernel, rounded, relevance) == pytest.approx(9 * 0.01 + 1e-3 * 10.0 * plain, rel=1e-6)


def test_score_is_the_geometric_mean_of_normalised_relevance_and_magnitude():
    kernel, relevance = np.array([[3.0, -4.0]]), np.array([[0.0, 2.0]])
    np.testing.assert_allclose(weight_score(kernel, relevance), [[0.0, np.sqrt(0.8 * 1.0)]])
    np.testing.assert_allclose(weight_score(kernel, np.zeros_like(kernel)), [[0.6, 0.8]])


def test_one_ranking_over_all_kernels_with_a_floor():
    rng = np.random.default_rng(0)
    scores = {"strong": 10 + rng.random((100, 10)), "weak": rng.random((50, 10))}
    masks = kept_weights(scores, 0.25)
    assert masks["strong"].all()
    assert masks["weak"].mean() == pytest.approx(0.25, abs=0.01)
    emptied = kept_weights(scores, 0.6)["weak"]
    assert emptied.sum() == max(LEAST_KEPT * 500, 10)
    assert scores["weak"][emptied].min() >= np.sort(scores["weak"].ravel())[-10]


def test_what_the_solver_prints_is_not_in_the_results(monkeypatch, capfd):
    from keras_xaic.planning import allocation

    solve = allocation.optimize.milp

    def loud(*args, **how):
        os.write(1, b"transformNewIntegerFeasibleSolution tmpSolver.run();\n")  # as C++ does, past sys.stdout
        return solve(*args, **how)

    monkeypatch.setattr(allocation.optimize, "milp", loud)
    assert allocate({"a": [Candidate(8, 0.0, 10, 10, 10), Candidate(4, 1.0, 5, 5, 10)]}, Limits(flash=7))["a"].bits == 4
    print("a result", flush=True)
    assert capfd.readouterr().out == "a result\n"


def test_a_closed_standard_output_stops_no_plan():
    code = (
        "import os, sys; os.close(1)\n"
        "from keras_xaic.planning.allocation import Candidate, Limits, allocate\n"
        "print(allocate({'a': [Candidate(8, 0.0, 10, 10, 10)]}, Limits())['a'].bits, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=True)
    assert done.stderr.split() == ["8"]
