"""Groups of settings refuse what cannot be, by name and before any work; the command line offers what they declare."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic.errors import PlanError
from keras_xaic.settings import DataOptions, Device, Training, as_names

NAN = float("nan")


@pytest.mark.parametrize(
    ("group", "entry", "value"),
    [(Training, "epochs", wrong) for wrong in (-1, 2.5, "3", True, NAN)]
    + [(Training, "minutes", wrong) for wrong in (0, -1, NAN, "5")]
    + [(Training, "seed", wrong) for wrong in (-1, 1.5, 2**32)]
    + [(Training, "batch_size", wrong) for wrong in (0, -4, 8.0)]
    + [(Training, "learning_rate", wrong) for wrong in (0, -1, NAN, float("inf"))]
    + [(Training, "distillation", wrong) for wrong in (-0.1, 2, "all")]
    + [(Training, "patience", wrong) for wrong in (0, -1, 1.5)]
    + [(Device, "target", wrong) for wrong in ("moble", "", None)]
    + [(Device, "interpreters", wrong) for wrong in (3, [1], [""])]
    + [(Device, "baselines", wrong) for wrong in (3, [None])]
    + [(DataOptions, "scale", wrong) for wrong in (0, NAN, "1/255")]
    + [(DataOptions, "calibration", wrong) for wrong in (0, -3, 2.5)],
)
def test_what_cannot_be_is_refused_by_name(group, entry, value):
    with pytest.raises(PlanError, match=entry):
        group(**{entry: value})


def test_explanations_do_not_teach_activations_on_grids():
    with pytest.raises(PlanError, match="do not train together"):
        Training(explanation_loss=0.5, activation_ranges="learned")


def test_one_name_is_a_list_of_one():
    assert Device(interpreters="tflm", baselines="int8") == Device(interpreters=["tflm"], baselines=("int8",))
    assert as_names("protect", "stem") == ("stem",)


@pytest.mark.parametrize("none", [None, "", (), []])
def test_no_baselines_are_none(none):
    assert Device(baselines=none).baselines == ()


def test_one_callback_is_a_list_of_one():
    callback = type("Mine", (), {"on_epoch_end": None, "set_model": None})()
    assert Training(callbacks=callback).callbacks == (callback,)


def test_numbers_of_numpy_are_numbers():
    made = Training(epochs=np.int64(3), learning_rate=np.float32(0.5), seed=np.uint8(7))
    assert (made.epochs, made.learning_rate, made.seed) == (3, 0.5, 7)
    assert all(type(one) in (int, float) for one in (made.epochs, made.learning_rate, made.seed))


def test_epochs_follow_minutes_where_they_are_not_given():
    assert Training().effort(10, 120) == 10
    assert Training(minutes=3).effort(10, 120) == 120
    assert Training(epochs=0, minutes=3).effort(10, 120) == 0
