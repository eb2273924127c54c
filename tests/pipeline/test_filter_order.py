"""Where the reasons are limited, filters go in the order that changes them least."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.budget import Budget
from keras_xaic.data import Data, Samples
from keras_xaic.models import channel_groups, infer_task
from keras_xaic.pipeline.filter_order import most_alike
from keras_xaic.pipeline.reasons import Reasons
from keras_xaic.planning import Plan
from keras_xaic.relevance import Relevance

UNITS = 8
STRONG = np.array([3.0, 3.0, 3.0, 3.0, 0.01, 0.01, 0.01, 0.01], np.float32)
"""How much each unit, which sees one input, says."""


class Fitter:
    """Plans away the half of the units that its relevance puts last."""

    def __init__(self, model, filters):
        self.model = model
        kernels = {"body": np.ones((UNITS, UNITS), np.float32), "head": np.ones((UNITS, 2), np.float32)}
        self.relevance = Relevance(kernels, {"body": np.asarray(filters, np.float32)}, {"body": 1.0}, rule="lrp.epsilon")
        self.half = UNITS // 2

    def plan(self, budget):
        (group,) = channel_groups(self.model).removable
        gone = np.argsort(self.relevance.filters["body"], kind="stable")[: self.half]
        return Plan(remove={group.name: sorted(gone.tolist())} if self.half else {})


@pytest.fixture(scope="module")
def net():
    body, head = layers.Dense(UNITS, "relu", name="body"), layers.Dense(2, "softmax", name="head")
    model = keras.Sequential([keras.Input((UNITS,)), body, head])
    body.set_weights([np.diag(STRONG), np.zeros(UNITS, np.float32)])
    head.set_weights([np.array([[1, -1], [-1, 1]] * (UNITS // 2), np.float32), np.zeros(2, np.float32)])
    samples = Samples(np.random.default_rng(0).uniform(0.1, 1.0, (64, UNITS)).astype(np.float32))
    task = infer_task(model, Data(samples))
    return model, samples, task, Reasons.of(model, task, samples, model.predict(samples.x, verbose=0))


def test_another_order_takes_the_place_of_one_that_ruins_maps(net):
    model, samples, task, reasons = net
    wrong = Fitter(model, 4 - STRONG)
    chosen = most_alike(wrong, Budget(macs=1), reasons, samples, task)
    assert chosen.plan(None).remove == {next(iter(channel_groups(model).removable)).name: [4, 5, 6, 7]}
    assert chosen.relevance.filter_rule
    assert chosen.relevance.weights is wrong.relevance.weights
    assert wrong.relevance.filter_rule == ""  # the recipe's own is as it was


@pytest.mark.parametrize("half", [UNITS // 2, 0], ids=["as good", "nothing goes"])
def test_the_order_of_the_recipe_stays_where_it_is_as_good(net, half):
    model, samples, task, reasons = net
    right = Fitter(model, STRONG)
    right.half = half
    assert most_alike(right, Budget(macs=1), reasons, samples, task) is right


def test_reasons_that_cannot_be_compared_choose_nothing(net, monkeypatch):
    model, samples, task, reasons = net
    monkeypatch.setattr(Reasons, "similarity", lambda self, small: (None, 0.0))
    wrong = Fitter(model, 4 - STRONG)
    assert most_alike(wrong, Budget(macs=1), replace(reasons), samples, task) is wrong
