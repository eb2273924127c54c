"""Every form in which Keras users have data gives the same samples, or one line that says why not; so says the page."""

from __future__ import annotations

import importlib.util
import pathlib
import warnings
import weakref

import numpy as np
import pytest

from keras_xaic._keras import keras, tf
from keras_xaic.bundle import Bundle
from keras_xaic.data import Data, Samples, as_data, forms, load_data, renamed
from keras_xaic.errors import PlanError, XaicError, XaicWarning
from keras_xaic.metrics import Task
from keras_xaic.models import fitted
from keras_xaic.output_tasks import check_all_targets
from keras_xaic.settings import Training
from keras_xaic.tasks import Head, infer, with_task
from keras_xaic.training import Schedule, fit
from keras_xaic.training.fitting import sample_weights
from tests.data.form_table import FORMS, table

X = np.arange(8 * 8, dtype=np.float32).reshape(8, 8)  # as many samples as values in one
Y = np.arange(8) % 3
W = np.linspace(0.5, 2.0, 8)


@pytest.mark.parametrize("name", list(FORMS))
def test_every_form_gives_the_same_samples_or_one_line(name, monkeypatch):
    monkeypatch.setattr("keras_xaic.data.forms.MOST_ELEMENTS", 2000)  # 200,000 take half a minute
    form = FORMS[name]
    if form.needs and importlib.util.find_spec(form.needs) is None:
        pytest.skip(f"{form.needs} is not installed")
    given = form.make(X, Y, W)
    if form.refused:
        with pytest.raises(XaicError) as caught:
            as_data(given)
        assert form.refused in str(caught.value)
        return
    data = as_data(given)
    train = data.ordered(["image"], ["output"]).train
    order = np.argsort(np.asarray(train.x)[:, 0])
    np.testing.assert_array_equal(np.asarray(train.x)[order], X)
    if "labels" in form.gives:
        np.testing.assert_array_equal(np.asarray(train.y)[order].reshape(8), Y)
    if "weights" in form.gives:
        np.testing.assert_allclose(np.asarray(train.weight)[order], W)
    assert (train.y is not None) is bool({"labels", "values"} & set(form.gives))
    assert (train.weight is not None) is ("weights" in form.gives)
    assert (data.validation is not None) is ("validation" in form.gives)
    assert (data.test is not None) is ("test" in form.gives)


def test_the_table_of_forms_is_in_the_documentation():
    page = pathlib.Path(__file__).parents[2] / "docs" / "data.md"
    assert table() in page.read_text(encoding="utf-8")


def test_validation_data_of_ones_own_chooses_and_is_not_split():
    data = as_data({"x_train": X, "y_train": Y, "x_val": X[:3] + 100, "y_val": Y[:3], "x_test": X, "y_test": Y})
    train, held = data.split()
    assert len(train) == 8
    np.testing.assert_array_equal(held.x, X[:3] + 100)


def test_validation_data_in_files(tmp_path):
    np.savez(tmp_path / "data.npz", x_train=X, y_train=Y, x_val=X[:2], y_val=Y[:2])
    assert len(load_data(tmp_path / "data.npz").split()[1]) == 2


def test_one_sample_needs_validation_data_and_a_few_are_enough():
    with pytest.raises(XaicError, match=r"x_train has 1 sample. Expected 2 or more.* Give x_val"):
        Data(Samples(X[:1], Y[:1])).split()
    for count in range(2, 6):
        assert sum(map(len, Data(Samples(X[:count], Y[:count])).split())) == count


NAMES = np.array(["cat", "dog", "ant", "dog"])


@pytest.mark.parametrize(
    "labels",
    [NAMES, NAMES.astype(object), NAMES[:, None], list(NAMES), NAMES.astype("S"), NAMES.astype("S").astype(object)],
    ids=["U", "object", "N,1", "list", "S", "objects of bytes"],
)
def test_labels_that_are_texts_become_numbers_with_names(labels):
    data = as_data(((X[:4], labels), (X[:1], np.array(["dog"]))))
    assert data.classes == ("ant", "cat", "dog")
    np.testing.assert_array_equal(data.train.y, [1, 2, 0, 2])
    np.testing.assert_array_equal(data.test.y, [2])
    with pytest.raises(XaicError, match=r"y_test\[0\] is 'dogg'. Expected 'dog'"):
        as_data(((X[:4], labels), (X[:1], np.array(["dogg"]))))


def test_texts_of_a_dataset_have_the_names_that_they_have_in_arrays():
    dataset = tf.data.Dataset.from_tensor_slices((X[:4], NAMES)).batch(2)
    assert as_data(dataset).classes == as_data((X[:4], NAMES)).classes == ("ant", "cat", "dog")


def test_samples_of_the_user_stay_as_they_are():
    given = Samples(X[:4], np.arange(4)[:, None])
    assert as_data(given).train.y.shape == (4,)
    assert given.y.shape == (4, 1)


def test_samples_take_lists_and_tensors_as_as_data_does():
    for x, y in ((X[:4].tolist(), list(NAMES)), (tf.constant(X[:4]), tf.constant(NAMES))):
        data = as_data(Data(Samples(x, y, weight=[1, 2, 1, 2])))
        np.testing.assert_array_equal(data.train.x, X[:4])
        np.testing.assert_array_equal(data.train.y, [1, 2, 0, 2])
        assert data.train.weight.tolist() == [1, 2, 1, 2]


@pytest.mark.parametrize("given", [lambda: Data(X), lambda: Data(None), lambda: Data(Samples(X), X)])
def test_data_holds_samples(given):
    with pytest.raises(XaicError, match=r"of Data is a (ndarray|NoneType). Expected Samples\(x, y\)"):
        given()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"x_train": X[:4], "weight_train": np.ones(3)}, r"the weights of x_train have shape \(3,\)"),
        (
            {"x_train": X[:4], "y_train_a": Y[:4], "y_train_b": Y[:4], "weight_train_a": Y[:4], "weight_train_b": Y[:4]},
            "the weights of x_train are several: a .4,., b .4,.. Expected one number per sample",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(given, said):
    with pytest.raises(XaicError, match=said):
        as_data(given)


def test_a_label_that_is_missing_among_many_texts_is_no_class():
    labels = np.array(["cat", "dog"] * 800, object)
    labels[1500] = float("nan")
    with pytest.raises(XaicError, match=r"y_train has dtype object.*Give every sample a label"):
        as_data((np.zeros((1600, 2)), labels))


def test_names_are_those_that_a_bundle_wrote_with_single_spaces():
    data = as_data((X[:3], np.array(["big  dog", "cat ", "zebra\n"])))
    assert renamed(data, ("big dog", "cat", "zebra")).train.y.tolist() == [0, 1, 2]
    assert renamed(data, ("ant", "zebra", "cat", "big dog")).train.y.tolist() == [3, 2, 1]


def test_labels_get_the_numbers_that_a_bundle_remembers():
    data = renamed(as_data((X[:2], np.array(["dog", "cat"]))), ("ant", "cat", "dog"))
    np.testing.assert_array_equal(data.train.y, [2, 1])
    with pytest.raises(XaicError, match="the class 'cow'"):
        renamed(as_data((X[:2], np.array(["dog", "cow"]))), ("ant", "cat", "dog"))


def test_names_that_files_write_otherwise_stay_those_of_the_bundle(tmp_path):
    labels = np.array(["cat ", "ant  hill", "b\nee", "cat "])
    data = as_data((X[:4], labels))
    bundle = Bundle(tmp_path)
    bundle.name_classes(data.classes)
    assert bundle.class_names() == data.classes == ("ant hill", "b ee", "cat")
    np.testing.assert_array_equal(renamed(data, bundle.class_names()).train.y, [2, 0, 1, 2])
    for classes, kept in ((np.arange(2), ("0", "1")), (None, ()), (["a", "b"], ("a", "b"))):
        assert as_data(Data(Samples(X[:2], Y[:2] % 2), classes=classes)).classes == kept
    numbered = as_data(Data(Samples(X[:2], Y[:2] % 2), classes=("a  b", "c ")))
    assert renamed(numbered, ("a b", "c")) is numbered
    with pytest.raises(XaicError, match="classes 'cat' and 'cat ', which files hold as 'cat'"):
        as_data((X[:4], np.array(["cat ", "cat", "dog", "cat"])))


def test_numbers_as_texts_are_not_counted_by_the_alphabet():
    x, texts = np.zeros((11, 2)), np.arange(11).astype(str)
    with pytest.raises(XaicError, match=r"alphabetical order '0', '1', '10', '2' and 7 more.*y\.astype\(int\)"):
        as_data((x, texts))
    assert as_data(Data(Samples(x, texts), classes=tuple(texts))).train.y.tolist() == list(range(11))
    assert as_data((x[:10], texts[:10])).train.y.tolist() == list(range(10))


@pytest.mark.parametrize(
    ("head", "labels", "said"),
    [
        (Head((3,), "softmax"), NAMES[1:], r"names 2 classes \('ant', 'dog'\), the model tells 3 apart"),
        (Head((2,), "softmax"), NAMES, "names 3 classes .*, the model tells 2 apart"),
        (Head((1,), "sigmoid"), NAMES, "names 3 classes .*, the model tells 2 apart"),
        (Head((4, 4, 1), "linear"), NAMES, "no classes of samples.*put all images into one directory"),
    ],
)
def test_names_of_classes_are_those_of_the_model(head, labels, said):
    with pytest.raises(XaicError, match=said):
        infer(head, as_data((X[: len(labels)], labels)))


def test_categories_in_an_order_of_their_own_are_not_numbered_by_the_alphabet():
    pandas = pytest.importorskip("pandas")
    for order in (["low", "mid", "high"], ["high", "low", "mid"]):
        series = pandas.Series(pandas.Categorical.from_codes([0, 1, 2, 1], order))
        if order[0] == "low":
            for labels in (series, series.values):
                with pytest.raises(XaicError, match=r"categories in the order 'low', 'mid', 'high'.*y.cat.codes"):
                    as_data((X[:4], labels))
        labels = series.cat.codes if order[0] == "low" else series
        assert as_data({"x_train": X[:4], "y_train": labels}).train.y.tolist() == [0, 1, 2, 1]
    assert as_data((X[:4], pandas.Series([10, 9, 10, 9]).astype("category"))).train.y.tolist() == [10, 9, 10, 9]


def test_names_are_no_values():
    head, data = Head((1,), "linear", "mean_squared_error"), as_data((X[:2], NAMES[:2]))
    assert infer(head, data).kind == "binary"
    with pytest.raises(XaicError, match="the model's outputs are no classes of samples"):
        infer(head, data, "regression")


def test_one_class_alone_is_no_label():
    model = keras.Sequential([keras.Input((X.shape[1],)), keras.layers.Dense(3, activation="softmax")])
    with pytest.warns(XaicWarning, match="data has one class alone, 'all': its samples are taken as samples without labels"):
        data = fitted(model, as_data((X[:4], np.array(["all"] * 4))))
    assert data.train.y is None
    assert data.classes == ()


@pytest.mark.parametrize(
    ("head", "given", "meant"),
    [
        (Head((1,), "sigmoid", "binary_crossentropy"), [-1, 1, 1, -1], [0, 1, 1, 0]),
        (Head((1,), "sigmoid"), [-1.0, 1.0, 1.0, -1.0], [0, 1, 1, 0]),
        (Head((1,), "tanh", "hinge"), [-1, 1, 1, -1], [0, 1, 1, 0]),
        (Head((2,), "softmax"), [-1, 1, 1, -1], [0, 1, 1, 0]),
        (Head((3,), "softmax"), [1, 2, 3, 3], [0, 1, 2, 2]),
        (Head((2,), "softmax"), [True, False, True, True], [1, 0, 1, 1]),
        (Head((1,), "sigmoid"), [True, False, True, True], [1, 0, 1, 1]),
        (Head((4,), "softmax"), [1, 2, 3, 3], [1, 2, 3, 3]),
        (Head((1,), "sigmoid"), [[-1.0], [1.0], [1.0], [-1.0]], [0, 1, 1, 0]),
        (Head((3,), "softmax"), [[1.0], [2.0], [3.0], [3.0]], [0, 1, 2, 2]),
    ],
)
def test_labels_as_people_count_them(head, given, meant):
    data = as_data(((X[:4], np.array(given)), (X[:1], np.array(given[:1]))))
    read = with_task(data, infer(head, data))
    for samples, right in ((read.train, meant), (read.test, meant[:1])):
        np.testing.assert_array_equal(samples.labels, right)
    outputs = np.eye(max(2, head.width))[meant] if head.width > 1 else np.array(meant)[:, None] * 1.6 - 0.3
    assert read.train.task.score(outputs, read.train.y) == 1.0
    again = with_task(read, read.train.task)
    np.testing.assert_array_equal(again.train.y, read.train.y)


def test_a_task_remembers_that_classes_are_counted_from_one():
    head = Head((3,), "softmax")
    whole = as_data((X[:3], np.array([1, 2, 3])))
    first = with_task(whole, infer(head, whole)).train
    known = Task.of(first.task.facts())  # as a bundle's check/task.json has it
    for some, meant in (([2, 1], [1, 0]), ([3], [2]), ([2, 2], [1, 1]), ([0, 2], [0, 2])):
        part = as_data((X[: len(some)], np.array(some)))
        check_all_targets(known, [head], part)
        np.testing.assert_array_equal(with_task(part, known).train.y, meant)
    rest = Data(first.take([1, 2]))
    np.testing.assert_array_equal(with_task(rest, first.task).train.y, [1, 2])  # from 0 on already
    np.testing.assert_array_equal(sample_weights(first, {1: 1.0, 2: 2.0, 3: 5.0}), [1, 2, 5])
    with pytest.raises(PlanError, match="no weight of class 3"):
        sample_weights(first, {0: 1.0, 1: 2.0, 2: 5.0})


@pytest.mark.parametrize(
    ("head", "train", "test", "said"),
    [
        (Head((3,), "softmax"), [1, 2, 3], [1, 0], r"y_test\[1\] is class 0. Expected classes 1 to 3"),
        (Head((1,), "sigmoid"), [-1, 1, 1], [1, 2], r"y_test\[1\] is 2. Expected 0 or 1"),
        (Head((2,), "softmax"), [-1, 1, 1], [1, 2], r"y_test\[1\] is class 2. Expected classes 0 to 1"),
    ],
)
def test_labels_that_are_counted_otherwise_in_another_part_are_refused(head, train, test, said):
    data = Data(Samples(X[:3], np.array(train)), Samples(X[:2], np.array(test)))
    with pytest.raises(XaicError, match=said):
        infer(head, data)


def test_batches_of_a_sequence_are_let_go_of_while_they_are_copied(monkeypatch):
    class Batches(keras.utils.Sequence):
        def __len__(self):
            return 5

        def __getitem__(self, number):
            return [np.full((4, 2), number, np.float32), np.full((4, 3), number, np.int16)], np.full(4, number)

    def watched(rows, batched):
        held = [weakref.ref(one) for row in rows for one in row]
        made = emptied(rows, batched)
        assert len(held) == 15
        assert not any(one() is not None for one in held)
        return made

    emptied = forms._emptied
    monkeypatch.setattr(forms, "_emptied", watched)
    train = as_data(Batches()).train
    numbers = np.repeat(np.arange(5), 4)
    assert [one.dtype for one in train.x.arrays] == [np.float32, np.int16]
    for one in (*train.x.arrays, train.y[:, None]):
        np.testing.assert_array_equal(one, np.broadcast_to(numbers[:, None], one.shape))


def test_class_weights_that_let_no_class_count_are_refused():
    with pytest.raises(PlanError, match=r"class_weight is {0: 0, 1: 0.0}. Expected a weight above 0 for one class or more"):
        Training(class_weight={0: 0, 1: 0.0})


def test_class_weights_and_sample_weights_count_as_in_fit():
    def model():
        keras.utils.set_random_seed(2)
        return keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, activation="softmax")])

    x = X / 64
    task, one, other = Task("classification", 3, "softmax"), model(), model()
    samples = Samples(x, Y, weight=W)
    how = {"batch_size": 8, "distillation": 0.0, "optimizer": keras.optimizers.SGD(0.5)}
    fit(one, samples, Samples(x, Y), task, Schedule(1, 0.5, select_from=0.5, class_weight={0: 1.0, 1: 3.0, 2: 0.5}, **how))
    other.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    other.fit(x, Y, batch_size=8, epochs=1, sample_weight=W * np.array([1.0, 3.0, 0.5])[Y], verbose=0)
    for mine, theirs in zip(one.get_weights(), other.get_weights()):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
    assert tf.executing_eagerly()


class Failing(keras.utils.Sequence):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return (X[:4], Y[:4]) if index < 2 else X[5][:, None].no_such_thing


class HalfLong(Failing):
    def __len__(self):
        return 5 / 2


def test_an_error_of_what_makes_the_samples_is_one_line():
    with pytest.raises(XaicError, match=r"the Failing failed at element 2 \(AttributeError: .*no_such_thing"):
        as_data(Failing())
    with pytest.raises(XaicError, match=r"the HalfLong failed at element 0 \(TypeError: 'float' object"):
        as_data(HalfLong())
    dataset = tf.data.Dataset.from_tensor_slices(X[:4] - 1e9).map(
        lambda x: tf.debugging.check_numerics(x / 0, "no number here")
    )
    with pytest.raises(XaicError, match=r"tf.data dataset failed at element 0 \(InvalidArgumentError: .*no number here"):
        as_data(dataset)


def test_an_iterator_of_a_dataset_is_refused_as_a_generator_is():
    for iterator in (iter(tf.data.Dataset.from_tensor_slices(X)), tf.data.Dataset.from_tensor_slices(X).as_numpy_iterator()):
        with pytest.raises(XaicError, match="Iterator, which does not say where it ends"):
            as_data(iterator)


def test_long_reading_of_what_does_not_say_its_length_is_said(monkeypatch):
    monkeypatch.setattr("keras_xaic.data.forms.PATIENCE", -1.0)
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).filter(lambda x, y: True)
    with pytest.warns(XaicWarning, match=r"does not say how long it is; 1 elements were read so far\. Give dataset\.take"):
        assert len(as_data(dataset).train) == len(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_data(tf.data.Dataset.from_tensor_slices((X, Y)))


@pytest.mark.parametrize("form", ["pair", "mapping", "labels", "several inputs", "test"])
def test_masked_values_are_not_read_as_if_they_were_there(form):
    masked = np.ma.masked_array(X, mask=np.isclose(X, X.flat[0]))
    labels = np.ma.masked_array(Y, mask=[True] + [False] * (len(Y) - 1))
    given = {
        "pair": (masked, Y),
        "mapping": {"x_train": masked, "y_train": Y},
        "labels": (X, labels),
        "several inputs": {"x_train_a": X, "x_train_b": masked, "y_train": Y},
        "test": ((X, Y), (masked, Y)),
    }
    with pytest.raises(XaicError, match=r"masked values\. Expected values for all entries"):
        as_data(given[form])
    assert np.array_equal(as_data((np.ma.masked_array(X), Y)).train.x, X)  # nothing is masked


class Tracked:
    """As tensors of torch that gradients are wanted of."""

    shape = X.shape

    def __len__(self):
        return len(X)

    def __array__(self, *args, **options):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")


class Foreign:
    """As arrays of JAX and torch: no arrays of numpy, and they give one."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, f"float{8 * array.itemsize}"

    def __len__(self):
        return len(self.array)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)


def test_arrays_of_other_libraries_are_read():
    for given in ((Foreign(X), Foreign(Y)), {"x_train": Foreign(X), "y_train": Foreign(Y)}):
        data = as_data(given)
        assert np.array_equal(data.train.x, X)
        assert np.array_equal(data.train.y, Y)


def test_arrays_of_other_libraries_that_cannot_be_read_are_one_line():
    with pytest.raises(XaicError, match=r"data is not an array \(.*requires grad. Use tensor.detach"):
        as_data((Tracked(), Y))
