"""Limits of time: refused where nothing measures them, kept by what is measured, and told."""

from __future__ import annotations

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic import edge
from keras_xaic._keras import keras, layers
from keras_xaic.data import Data, Samples
from keras_xaic.errors import PlanError
from keras_xaic.pipeline.pacing import Pace, check_pace
from keras_xaic.pipeline.size_fitting import LATE, SizeFitter
from keras_xaic.planning.latency import Times
from keras_xaic.recipes import RECIPES
from keras_xaic.relevance.magnitude import magnitude
from keras_xaic.report import BudgetFacts, CompressedFacts, Report, budget_misses, summary_line, verdict

LIMITED = xaic.Budget(max_slowdown=0.5)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 8))
    x = layers.Conv2D(64, 3, activation="relu", name="first")(inputs)
    x = layers.Conv2D(64, 3, activation="relu", name="second")(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(layers.GlobalAveragePooling2D()(x)))


def test_a_limit_of_time_says_nothing_of_microcontrollers():
    with pytest.raises(PlanError, match=r"target micro.*multiply-accumulates"):
        check_pace(LIMITED, xaic.Device("micro"))
    check_pace(xaic.Budget(), xaic.Device("micro"))


def test_a_limit_of_time_needs_the_interpreter_that_files_are_timed_on(monkeypatch):
    monkeypatch.setattr("keras_xaic.pipeline.pacing.edge.speed_judge", lambda: None)
    with pytest.raises(PlanError, match=r"litert.*is not installed.*pip install ai-edge-litert"):
        check_pace(LIMITED, xaic.Device())


class Imagined(Pace):
    """A machine on which removed filters save less time than predicted."""

    def ratio(self, content):
        return self.real(self.planned[-1])

    def slowdown(self, budget):
        return budget.max_slowdown if budget.latency_ms is None else budget.latency_ms / 2.0

    @staticmethod
    def real(predicted):
        return 0.2 + 0.8 * predicted


@pytest.fixture
def imagined(model, monkeypatch, tmp_path):
    """What plans the model on the imagined machine, and that machine's pace; no file is written."""
    x = np.random.default_rng(0).normal(size=(16, 16, 16, 8)).astype(np.float32)
    pace = Imagined(model, Samples(x), tmp_path / "int8.tflite")
    pace.planned = []
    monkeypatch.setattr("keras_xaic.tflite.build_tflite", lambda made, _: bytes(made.predicted_flash_bytes))
    monkeypatch.setattr("keras_xaic.tflite.pack_download", lambda _: b"container")
    monkeypatch.setattr(SizeFitter, "untrained", lambda self, made, _: pace.planned.append(made.predicted_slowdown) or made)
    return SizeFitter(model, magnitude(model), RECIPES["auto"], Data(Samples(x)), None, pace=pace), pace


@pytest.mark.parametrize("budget", [LIMITED, xaic.Budget(latency="1ms")])
def test_filters_go_until_the_measured_time_is_within_the_limit(imagined, budget):
    """And not until the predicted time is: nothing but the model's own file tells."""
    fitter, pace = imagined
    made = fitter.fitting(budget)
    assert pace.planned[0] <= 0.5 < pace.real(pace.planned[0]), "the prediction alone would have missed it"
    assert made.remove
    assert 0.4 < made.predicted_slowdown <= 0.5 * (1 + LATE)
    assert made.budget == budget


@pytest.mark.parametrize(("latency", "removes"), [("1us", True), ("10s", False)])
def test_a_latency_far_from_what_is_possible_is_planned_for_all_the_same(imagined, latency, removes):
    """1 us is 2,000 times too fast for the imagined machine, 10 s are 5,000 times what it takes."""
    budget = xaic.Budget(latency=latency)
    made = imagined[0].fitting(budget)
    assert bool(made.remove) is removes
    assert made.budget == budget


def test_a_latency_beside_a_limit_on_reasons_is_planned(imagined):
    """The order of filters is chosen by plans that nothing was measured for."""
    made = imagined[0].plan(xaic.Budget(latency="1ms", min_similarity=0.9))
    assert made.remove
    assert made.predicted_slowdown <= 0.5


def test_plain_is_the_original_however_little_is_left(model, tmp_path):
    assert Pace(model, Samples(np.zeros((1, 16, 16, 8))), tmp_path / "x").plain == pytest.approx(Times(model).plain())


def limited(**limits):
    timed = {"median": 0.06, "p90": 0.07, "ratio_to_int8": 1.2}
    budget = BudgetFacts(timed_on="litert", **limits)
    return Report(budget=budget, compressed=CompressedFacts(latency_ms={"litert": timed}, flash_bytes=1_000))


def test_the_measured_time_decides_whether_the_budget_is_met():
    assert budget_misses(limited(latency_ms=0.06, max_slowdown=1.2)) == []
    assert budget_misses(limited(latency_ms=0.0575, max_slowdown=1.15)) == [], "two measurements differ by as much"
    late = limited(latency_ms=0.05, max_slowdown=1.0)
    assert budget_misses(late) == [
        "latency is 60.0 us on litert, the budget 50.0 us",
        "time is 1.20 times plain int8's on litert, the budget 1 times",
    ]
    unmeasured = late.model_copy(update={"compressed": CompressedFacts(flash_bytes=1_000)})
    assert len(budget_misses(unmeasured)) == 2, "what nobody measured is not kept"


def test_terminal_and_verdict_show_limit_and_measurement():
    said = "60.0 us (at most 50.0 us) on litert, 1.20 times plain int8's time (at most 1)"
    late = limited(latency_ms=0.05, max_slowdown=1.0)
    assert said in verdict(late)
    assert said in summary_line(late)
    assert "litert" not in verdict(Report(compressed=CompressedFacts(flash_bytes=1_000)))


@pytest.mark.slow
@pytest.mark.skipif(edge.speed_judge() is None, reason="LiteRT is not installed")
def test_a_whole_run_keeps_a_limit_of_time_or_says_that_it_does_not(model, tmp_path):
    x = np.random.default_rng(0).normal(size=(80, 16, 16, 8)).astype(np.float32)
    given = {"recipe": "auto", "training": xaic.Training(epochs=0), "device": xaic.Device("mobile", baselines=())}
    report = xaic.compress(model, x, out=tmp_path / "half", budget=xaic.Budget(max_drop=100, max_slowdown=0.5), **given)
    timed = report.compressed.latency_ms["litert"]
    assert timed.ratio_to_int8 <= 0.6
    assert timed.delegated_macs == 1.0
    assert report.budget.met is (timed.ratio_to_int8 <= 0.5 * 1.05)
    assert any(layer.filters_kept < layer.filters for layer in report.layers)
    report = xaic.compress(model, x, out=tmp_path / "none", budget=xaic.Budget(max_drop=100, latency="1 us"), **given)
    assert report.budget.met is False
    assert "latency is" in report.verdict
    assert "the budget 1.00 us" in report.verdict
