"""Several inputs and outputs as users hand them over: told apart by name, whatever their order."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import tf
from keras_xaic.data import Data, Parts, Samples, as_data, load_data
from keras_xaic.errors import DataError
from keras_xaic.identity import digest_of

INPUTS, OUTPUTS = ("right", "left", "ids"), ("sum", "difference")
"""In the model's order, which is not the alphabetical one."""


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    x = {
        "right": rng.normal(size=(8, 4)).astype(np.float32),
        "left": rng.normal(size=(8, 4)).astype(np.float32),
        "ids": np.arange(8, dtype=np.int32),
    }
    return x, {"sum": np.arange(8) % 3, "difference": rng.normal(size=(8, 2)).astype(np.float32)}


def forms(x, y, folder):
    ordered = [x[name] for name in INPUTS], [y[name] for name in OUTPUTS]
    backwards = {name: x[name] for name in sorted(x)}, {name: y[name] for name in sorted(y)}
    keys = {f"{letter}_train_{name}": one for letter, part in (("x", x), ("y", y)) for name, one in sorted(part.items())}
    np.savez(folder / "data.npz", **keys)
    element = (tuple(ordered[0]), tuple(ordered[1]))
    return {
        "npz": folder / "data.npz",
        "keys": keys,
        "dictionaries": backwards,
        "lists": ordered,
        "pair": (ordered, ([one[:2] for one in ordered[0]], [one[:2] for one in ordered[1]])),
        "samples": Samples(*backwards),
        "tf.data of dictionaries": tf.data.Dataset.from_tensor_slices(backwards).batch(3),
        "tf.data of tuples": tf.data.Dataset.from_tensor_slices(element),
        "tf.data, batched": tf.data.Dataset.from_tensor_slices(element).batch(3, drop_remainder=False),
    }


def test_every_form_gives_the_same_arrays_in_the_order_of_the_model(arrays, tmp_path):
    x, y = arrays
    for name, form in forms(x, y, tmp_path).items():
        train = as_data(form).ordered(INPUTS, OUTPUTS).train
        assert train.x.names == INPUTS, name
        assert train.y.names == OUTPUTS, name
        for part, names, given in ((train.x, INPUTS, x), (train.y, OUTPUTS, y)):
            for key, array in zip(names, part.arrays):
                np.testing.assert_array_equal(np.asarray(array), given[key], err_msg=f"{name}: {key}")


def test_rows_of_several_arrays_stay_together(arrays):
    x, y = arrays
    data = as_data((x, y)).ordered(INPUTS, OUTPUTS)
    chosen = data.train.take(np.array([5, 1]))
    assert len(chosen) == 2
    assert [one.shape for one in chosen.feeds()] == [(2, 4), (2, 4), (2,)]
    np.testing.assert_array_equal(chosen.x.arrays[2], [5, 1])
    np.testing.assert_array_equal(chosen.y.arrays[0], [5 % 3, 1])
    train, held_back = data.split(0.25)
    assert sorted([*train.x.arrays[2], *held_back.x.arrays[2]]) == list(range(8))


def test_several_arrays_are_never_taken_for_one(arrays):
    parts = Parts([arrays[0]["left"], arrays[0]["right"]])
    with pytest.raises(TypeError, match="no array"):
        np.asarray(parts)
    with pytest.raises(TypeError):
        iter(parts)


def test_a_digest_changes_with_every_part_and_name(arrays):
    x, _ = arrays
    changed = {**x, "ids": x["ids"] + 1}
    found = {digest_of(Parts(list(one.values()), list(one))) for one in (x, changed)}
    found.add(digest_of(Parts(list(x.values()), ["a", "b", "c"])))
    assert len(found) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y: ({"right": x["right"], "left": x["left"]}, y), "data: x_train_ids is missing"),
        (lambda x, y: ({**x, "other": x["ids"]}, y), "x_train_other belongs to no input of the model"),
        (lambda x, y: (x["left"], y), "x_train is one array, the model has 3 inputs. Expected x_train_NAME for each input"),
        (lambda x, y: (x, y["sum"]), "y_train is one array, the model has 2 outputs"),
        (lambda x, y: ([x["left"], x["right"]], y), "x_train has 2 arrays, the model has 3 input"),
        (lambda x, y: ({**x, "ids": x["ids"][:7]}, y), "x_train_ids has 7 samples, .* has 8"),
        (lambda x, y: ({**x, "ids": x["ids"] * np.nan}, y), "x_train_ids contains NaN"),
        (lambda x, y: (x, {**y, "sum": y["sum"][:7]}), "y_train_sum has 7 entries"),
        (lambda x, y: ({**x, "ids": np.float32(3)}, y), "x_train"),
        (lambda x, y: ({**x, "ids": np.array(["a"] * 8)}, y), "x_train_ids has dtype <U1"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_part(arrays, change, said):
    x, y = change(*arrays)
    with pytest.raises(DataError, match=said):
        as_data((x, y)).ordered(INPUTS, OUTPUTS)


def test_keys_of_a_model_that_takes_dictionaries_work_too(arrays):
    x, y = arrays
    data = as_data((x, y)).ordered(("input_1", "input_2", "input_3"), OUTPUTS, (INPUTS, ()))
    np.testing.assert_array_equal(data.train.x.arrays[0], x["right"])


def test_scale_is_for_one_input(arrays):
    with pytest.raises(DataError, match=r"scale is 0\.5 .* for 3 inputs"):
        as_data(arrays, 0.5)


def test_one_input_stays_a_plain_array(tmp_path):
    x, y = np.arange(12.0).reshape(6, 2).astype(np.float32), np.arange(6) % 2
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_train_mean=x.mean(0))
    for form in (tmp_path / "data.npz", (x, y), ({"only": x}, {"single": y}), (x, list(y)), Samples(x, y)):
        train = as_data(form).ordered(("only",), ("single",)).train
        assert isinstance(train.x, np.ndarray)
        assert isinstance(train.y, np.ndarray)
        np.testing.assert_array_equal(train.x, x)
        np.testing.assert_array_equal(train.y, y)


def test_a_file_with_parts_says_what_is_missing(tmp_path):
    np.savez(tmp_path / "data.npz", x_train_image=np.zeros((4, 2, 2, 1)), y_train=np.zeros(4, int))
    with pytest.raises(DataError, match=r"data\.npz: x_train_table is missing \(there is x_train_image\)"):
        load_data(tmp_path / "data.npz").ordered(("image", "table"), ("digit",))


def test_samples_whose_task_is_decided_are_in_order_already(arrays):
    x, _ = arrays
    samples = Samples(Parts([x["right"], x["left"]]), task=object())
    assert Data(samples).ordered(("left", "right"), ()).train is samples


def test_parts_for_a_model_with_one_output_name_the_plain_key():
    x, y = np.zeros((4, 3), np.float32), np.arange(4)
    data = as_data({"x_train": x, "y_train_digit": y, "y_train_box": y})
    with pytest.raises(
        DataError, match=r"y_train_head is missing .*Expected y_train \(or y_train_head\): the model has one output"
    ):
        data.ordered(["image"], ["head"])
