"""A limit on the similarity of explanations: measured, kept where it can be, told, and refused where nothing measures it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic.compression import CompressedModel
from keras_xaic.data import Data, Samples
from keras_xaic.errors import PlanError
from keras_xaic.models import infer_task
from keras_xaic.pipeline.driver import Driver
from keras_xaic.pipeline.reasons import Reasons, check_reasons
from keras_xaic.pipeline.rounds import Round
from keras_xaic.pipeline.run_settings import RunSettings
from keras_xaic.planning import Budget, Plan
from keras_xaic.progress import silent
from keras_xaic.recipes import RECIPES
from keras_xaic.report import BudgetFacts, CompressedFacts, Report, budget_misses, render_html, summary_line, verdict
from keras_xaic.report.schema import RoundFacts
from tests.nets import learned, linear


def reasons_of(model, x):
    samples = Samples(np.asarray(x, np.float32))
    task = infer_task(model, Data(samples, samples))
    return Reasons.of(model, task, samples, model.predict(samples.x, verbose=0))


def ranks(values):
    return np.argsort(np.argsort(values, axis=1), axis=1)


def test_similarity_is_the_mean_rank_correlation_of_what_each_input_adds():
    random = np.random.default_rng(0)
    x, first, second = random.uniform(0.1, 1, (40, 6)), random.uniform(0.1, 1, (6, 3)), random.uniform(0.1, 1, (6, 3))
    answer = (x @ first).argmax(1)
    maps = [ranks(x * weights.T[answer]) for weights in (first, second)]
    expected = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(*maps)])
    mean, doubt = reasons_of(linear(first), x).similarity(linear(second))
    assert mean == pytest.approx(expected.mean(), abs=1e-6)
    assert doubt == pytest.approx(expected.std() / 40**0.5, abs=1e-6)


def test_a_ruined_model_has_no_similarity():
    ruined = linear(np.full((6, 3), np.nan))
    assert reasons_of(linear(np.eye(6, 3)), np.eye(6)).similarity(ruined) == (None, 0.0)


@pytest.mark.parametrize("model", [linear([[1.0, -1.0]]), linear(np.zeros((4, 3)))], ids=["one input", "nothing matters"])
def test_a_model_whose_explanations_cannot_be_compared_is_refused_before_work(model, tmp_path):
    x = np.random.default_rng(0).normal(size=(12, *model.input_shape[1:])).astype(np.float32)
    with pytest.raises(PlanError, match=r"min_similarity is 0.9.*cannot be compared.*Leave out min_similarity"):
        xaic.compress(model, x, out=tmp_path / "out", budget=Budget(min_similarity=0.9))
    samples = Samples(x)
    check_reasons(model, infer_task(model, Data(samples)), samples, Budget())


def driver(**limits):
    groups = (Budget(**limits), xaic.Training(epochs=2), xaic.Device(), xaic.DataOptions())
    return Driver(None, None, None, RunSettings(RECIPES["auto"], *groups), None, None, None, silent)


def one_round(drop, similarity, **facts):
    made = Round(CompressedModel(None, {}, Plan(), {}), 5_000, 900, 0.9, drop, 1, 1.0, similarity=similarity)
    return replace(made, **facts)


def test_of_rounds_that_keep_the_accuracy_one_that_keeps_the_reasons_is_taken():
    limited = driver(download=1_000, max_drop=1.0, min_similarity=0.8)
    accurate, faithful, better = one_round(0.0, 0.7), one_round(0.9, 0.81), one_round(0.5, 0.95)
    wrong, unknown = one_round(1.1, 1.0), one_round(0.1, None)
    best_first = (better, faithful, accurate, unknown, wrong)
    assert sorted(best_first, key=limited.standard.worth, reverse=True) == list(best_first)
    assert [limited.standard.is_good(one) for one in best_first] == [True, True, False, False, False]
    free = driver(download=1_000, max_drop=1.0)
    assert max(best_first, key=free.standard.worth) is accurate, "without the limit nothing but accuracy counts"
    overrun = replace(better, download_bytes=1_100)
    assert max((overrun, wrong), key=limited.standard.worth) is wrong, "bytes come first"


def test_without_limits_of_size_rounds_shrink_until_the_reasons_are_gone():
    limited = driver(max_drop=1.0, min_similarity=0.8)
    sure = one_round(0.0, 0.9, similarity_doubt=0.01)
    assert limited.standard.is_safe(sure)
    smaller = replace(one_round(0.0, 0.81, similarity_doubt=0.01), download_bytes=500)
    assert limited.standard.is_good(smaller)
    assert not limited.standard.is_safe(smaller), "other samples may well show less"
    assert max((smaller, sure), key=limited.standard.worth) is sure
    assert max((smaller, one_round(0.0, 0.7)), key=limited.standard.worth) is smaller, "none is safe: the nearest"


def test_lost_reasons_are_worth_bytes_that_are_left_and_more_training():
    spare = replace(one_round(-1.0, 0.7), download_bytes=500)
    assert driver(download=1_000, min_similarity=0.8)._is_off(spare)
    assert not driver(download=1_000)._is_off(spare)
    used = replace(spare, download_bytes=990)
    assert driver(download=1_000, min_similarity=0.8)._following(used, left=1) == Plan()
    assert driver(download=1_000)._following(used, left=1) is None


def told(similarity, least=0.9):
    small = CompressedFacts(flash_bytes=1_000, explanation_similarity=similarity)
    rounds = [RoundFacts(flash_bytes=1_000, similarity=0.5)]
    return Report(budget=BudgetFacts(min_similarity=least), compressed=small, rounds=rounds)


def test_lost_reasons_miss_the_budget():
    assert budget_misses(told(0.9)) == []
    assert budget_misses(told(0.2, None)) == []
    assert budget_misses(told(0.71)) == ["similarity of explanations is 0.71, at least 0.9 was asked for"]
    assert budget_misses(told(0.8999)) == ["similarity of explanations is 0.8999, at least 0.9 was asked for"]
    assert budget_misses(told(None)) == ["similarity of explanations could not be measured, at least 0.9 was asked for"]


def test_terminal_verdict_and_page_show_limit_and_measurement():
    said = "similarity of explanations 0.93 (at least 0.9)"
    assert said in verdict(told(0.93))
    assert said in summary_line(told(0.93))
    page = render_html(told(0.93))
    assert 'data-json="/budget/min_similarity"' in page
    assert 'data-json="/rounds/0/similarity"' in page
    assert "/rounds/0/similarity" not in render_html(told(0.93, None))


@pytest.mark.slow
def test_a_whole_run_keeps_the_reasons_or_says_that_it_does_not(tmp_path):
    model, x, y = learned(24, 32, epochs=30)
    data = {"x_train": x[:300], "y_train": y[:300], "x_test": x[300:], "y_test": y[300:]}
    how = {"training": xaic.Training(epochs=0), "device": xaic.Device("mobile", baselines=())}
    free = xaic.compress(model, data, out=tmp_path / "free", budget=Budget(max_drop=100), **how)
    least = (1 + free.compressed.explanation_similarity) / 2
    kept = xaic.compress(model, data, out=tmp_path / "kept", budget=Budget(max_drop=100, min_similarity=least), **how)
    assert kept.budget.met
    assert kept.compressed.explanation_similarity >= least
    assert kept.compressed.download_bytes > free.compressed.download_bytes
    tight = Budget(flash=free.compressed.flash_bytes, max_drop=100, min_similarity=1.0)
    missed = xaic.compress(model, data, out=tmp_path / "missed", budget=tight, **how)
    assert missed.budget.met is False
    assert "Budget not met: similarity of explanations is" in missed.verdict
