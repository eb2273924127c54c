from __future__ import annotations

import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_xaic._keras import tf
from keras_xaic.data import Data, Parts, Rows, Samples, as_data, check_inputs, load_data
from keras_xaic.errors import DataError, XaicError, XaicWarning
from keras_xaic.npz import LARGE


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.random((20, 4, 4, 1)).astype(np.float32),
        "y_train": np.arange(20) % 3,
        "x_test": rng.random((8, 4, 4, 1)).astype(np.float32),
        "y_test": np.arange(8) % 3,
    }


def save(tmp_path, **arrays):
    path = tmp_path / "d.npz"
    np.savez(path, **arrays)
    return path


def test_npz_with_keras_names(tmp_path, arrays):
    data = load_data(save(tmp_path, **arrays))
    assert len(data.train) == 20
    assert len(data.test) == 8
    np.testing.assert_array_equal(data.train.labels, arrays["y_train"])


def test_labels_and_test_part_may_be_absent(tmp_path, arrays):
    data = load_data(save(tmp_path, x_train=arrays["x_train"]))
    assert data.test is None
    assert data.train.labels is None


def test_scale_and_offset_make_the_models_inputs_from_uint8():
    samples = Samples(np.array([[0, 255]], np.uint8), None, scale=2 / 255, offset=-1)
    np.testing.assert_allclose(samples.inputs(), [[-1.0, 1.0]], atol=1e-6)
    assert samples.inputs().dtype == np.float32


def test_labels_from_one_hot_and_from_columns():
    np.testing.assert_array_equal(Samples(np.zeros((2, 1)), np.array([[0, 1], [1, 0]])).labels, [1, 0])
    np.testing.assert_array_equal(as_data((np.zeros((2, 1)), np.array([[3], [4]]))).train.labels, [3, 4])
    assert Samples(np.zeros((2, 1)), np.array([[0.5, 0.5], [1, 0]])).labels is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x_train": None, "images": 1}, "no key x_train .its keys: images"),
        ({"x_train": "nan"}, "x_train contains NaN"),
        ({"x_test": "nan"}, "x_test contains NaN"),
        ({"x_train": "empty"}, "x_train is empty"),
        ({"y_train": "short"}, "y_train has 19 entries, x_train has 20"),
        ({"x_train": "text"}, "x_train has dtype"),
    ],
)
def test_unusable_arrays_are_named(tmp_path, arrays, change, said):
    for key, how in change.items():
        value = arrays.get(key)
        if how is None:
            del arrays[key]
        elif how == "nan":
            value[3, 2, 1, 0] = np.nan
        elif how == "empty":
            arrays[key] = value[:0]
        elif how == "short":
            arrays[key] = value[:-1]
        elif how == "text":
            arrays[key] = np.array(["a"] * 20)
        else:
            arrays[key] = np.zeros(3)
    if "images" in change:
        arrays = {"images": arrays["images"]}
    with pytest.raises(DataError, match=said):
        load_data(save(tmp_path, **arrays))


def test_pickles_are_not_opened(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, x_train=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="'x_train' of objects"):
        load_data(path)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load_data(tmp_path / "none.npz")
    broken = tmp_path / "b.npz"
    broken.write_bytes(b"not an archive")
    with pytest.raises(DataError, match="cannot be read"):
        load_data(broken)


def test_data_must_fit_the_model(arrays):
    data = as_data(arrays)
    check_inputs(data, [(None, 4, 4, 1)])
    check_inputs(data, [(None, None, 4, 1)])
    with pytest.raises(DataError, match=r"x_train has samples of shape \(4, 4, 1\)"):
        check_inputs(data, [(None, 8, 8, 1)])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            ("x_valid", "Y_valid", "sample_weight"),
            "data: Y_valid, sample_weight, x_valid are not read. Keys are x_train",
        ),
        (("y_test",), "y_test is not read.*with an x of their own the same with _val and _test"),
        (("x_train_more",), "x_train_more is not read"),
    ],
)
def test_keys_that_nothing_reads_are_said(arrays, keys, said):
    given = {"x_train": arrays["x_train"], "y_train": arrays["y_train"], "names": np.zeros(3), "xs": np.zeros(3)}
    with pytest.warns(XaicWarning, match=said):
        as_data({**given, **dict.fromkeys(keys, np.zeros(20))})


def test_the_keys_of_a_file_with_many_are_not_all_named(tmp_path):
    with pytest.raises(DataError, match=r"its keys: a0, a1, .* and 80 more\)"):
        load_data(save(tmp_path, **{f"a{number}": np.zeros(1) for number in range(100)}))


def test_a_model_in_the_place_of_data_is_said_to_be_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    with pytest.raises(DataError, match=r"net\.keras is a Keras model\. Expected an \.npz with the keys x_train"):
        load_data(tmp_path / "net.keras")


def rows_of_their_own(samples, width):
    """As a column of a table holds arrays."""
    rows = np.empty(samples, object)
    for number in range(samples):
        rows[number] = np.zeros(width)
    return rows


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((4, 2), np.complex64), "dtype complex64"),
        (np.zeros((4, 2), object), r"dtype object.*\.astype\(int\)"),
        (np.full((4, 2), 0.5, object), r'dtype object.*\.astype\("float32"\)'),
        (np.full((4, 2), None), r"dtype object.*Fill what is missing \(None\)"),
        (rows_of_their_own(4, 2), r"dtype object.*numpy\.stack\(list\(x\)\)"),
        (np.zeros((4, 2), "datetime64[s]"), r"dtype datetime64\[s\].*Make them numbers"),
        (np.zeros((4, 2), "timedelta64[s]"), r"dtype timedelta64\[s\]"),
        (np.full((4, 2), "a"), "dtype <U1"),
        (np.full((4, 2), b"a"), r"dtype \|S1"),
        (np.zeros(4, [("a", "f4")]), "dtype.*structured_to_unstructured"),
        (np.full((4, 2), 1e39), r"holds 1e\+39.*float32"),
        (np.full((4, 2), -1e300), r"holds 1e\+300"),
        (np.full((4, 2), np.inf, np.float16), "NaN or infinity"),
        (np.full((4, 2), np.nan), "NaN or infinity"),
        (np.full((4, 2), 2**24 + 1), "whole number 16777217"),
        (np.full((4, 2), 2**63, np.uint64), "whole number 9223372036854775808"),
        ([[2**70, 1]] * 4, "dtype object"),
    ],
)
def test_inputs_that_float32_cannot_hold_are_refused_by_name(values, said):
    for given in (values, Samples(np.asarray(values)), (values, np.zeros(4, int)), {"x_train": values}):
        with pytest.raises(DataError, match=said):
            as_data(given)


def test_inputs_that_float32_holds_are_taken():
    for values in (np.full((4, 2), 2**24), np.full((4, 2), 3e38), np.full((4, 2), True), np.full((4, 2), 6e4, np.float16)):
        assert np.isfinite(as_data(values).train.inputs()).all()


@pytest.mark.parametrize("y", [np.zeros(4, complex), np.zeros(4, "datetime64[D]"), np.full(4, 1e300)])
def test_targets_that_float32_cannot_hold_are_refused_by_name(y):
    with pytest.raises(DataError, match="y_train"):
        as_data((np.zeros((4, 2)), y))


@pytest.mark.parametrize(("scale", "offset"), [(np.nan, 0.0), (1.0, np.inf), (0.0, 0.0), (3e38, 0.0)])
def test_a_scaling_that_ruins_inputs_is_refused(scale, offset):
    with pytest.raises(XaicError, match=r"scale|float32"):
        as_data(np.full((4, 2), 200.0), scale, offset)


def test_data_and_samples_keep_or_take_the_scaling():
    x = np.full((4, 2), 51, np.uint8)
    plain, scaled = Data(Samples(x), Samples(x)), Samples(x, None, 1 / 255, 0.5)
    for data in (plain, plain.train):
        assert as_data(data, 1 / 255, 0.5).train.inputs().max() == pytest.approx(0.7)
    assert as_data(plain, 1 / 255, 0.5).test.inputs().max() == pytest.approx(0.7)
    assert as_data(scaled).train.inputs().max() == pytest.approx(0.7)
    assert as_data(scaled, 1 / 255, 0.5).train.scale == 1 / 255
    with pytest.raises(DataError, match="scaled by"):
        as_data(scaled, 1 / 127, 0.0)


def test_calibration_is_a_seeded_shuffle_of_training_data(arrays):
    data = as_data(arrays)
    first, again, other = (data.calibration(5, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x)
    assert len(data.calibration(1000)) == 20


def test_held_back_samples_are_not_trained_on():
    data = Data(Samples(np.arange(100.0)[:, None], np.arange(100)))
    train, held = data.split(0.2, seed=3)
    assert len(held) == 20
    assert sorted([*train.y, *held.y]) == list(range(100))


def test_directory_of_images_per_class(tmp_path):
    for part in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            for k in range(2):
                Image.fromarray(np.full((4, 5, 3), 100 * label + k, np.uint8)).save(tmp_path / part / name / f"{k}.png")
    data = load_data(tmp_path)
    assert data.train.x.shape == (4, 4, 5, 3)
    np.testing.assert_array_equal(data.test.y, [0, 0, 1, 1])
    assert data.test.x[2].max() == 100
    (tmp_path / "test" / "emu").mkdir()
    with pytest.raises(DataError, match="emu"):
        load_data(tmp_path)


def picture(path, size=(5, 4), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, 1).save(path)
    return path


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (png_that_claims(60_000, 60_000), "not a readable image"),
        (png_that_claims(10_000, 10_000), "10000 x 10000 pixels"),
        (png_that_claims(5, 4)[:45], "not a readable image"),
        (png_that_claims(0, 4), "not a readable image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\nshowpage\n", "not a readable image"),
        (b"", "not a readable image"),
    ],
    ids=range(6),
)
def test_damaged_and_huge_images_are_one_line(tmp_path, content, said):
    picture(tmp_path / "a" / "1.png")
    for name in ("0.png", "2.png"):
        (tmp_path / "a" / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} (is|has) {said if name < '1' else ''}") as caught:
            load_data(tmp_path)
        assert "\n" not in str(caught.value)
        (tmp_path / "a" / name).unlink()


@pytest.mark.parametrize(("size", "mode"), [((5, 5), "RGB"), ((4, 5), "RGB")])
def test_images_of_other_kinds_are_named(tmp_path, size, mode):
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "a" / "2.png", size, mode)
    with pytest.raises(DataError, match=r"2\.png has"):
        load_data(tmp_path)


def test_images_with_a_palette_give_colours_not_their_numbers(tmp_path):
    colours = np.random.default_rng(0).choice([0, 60, 255], (4, 5, 3)).astype(np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(colours).quantize(256, method=Image.Quantize.FASTOCTREE).save(tmp_path / "a" / "1.png")
    with Image.open(tmp_path / "a" / "1.png") as image:
        assert image.mode == "P"
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(load_data(tmp_path).train.x, expected[None])


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """More inputs than are copied: every row holds its number."""
    x = np.repeat(np.arange(40_000, dtype=np.uint16), 500).reshape(40_000, 500)
    assert x.nbytes > 2 * LARGE
    path = tmp_path_factory.mktemp("many") / "d.npz"
    np.savez(path, x_train=x, y_train=np.arange(40_000))
    return load_data(path).train


def test_asking_for_what_arrays_do_not_have_copies_nothing(many, monkeypatch):
    rows = Data(many).split(0.01, most=100)[0].x
    monkeypatch.setattr(Rows, "__array__", lambda *given: pytest.fail("a copy of everything"))
    assert not hasattr(rows, "arrays")
    assert not hasattr(rows, "numpy")
    assert not hasattr(rows, "flags")
    assert hasattr(rows, "mean")


@pytest.mark.filterwarnings("error")
def test_rows_and_parts_become_arrays_as_numpy_asks_for_it(many):
    rows = many.take(np.arange(30_000)[::-1]).x
    assert isinstance(rows, Rows)
    np.testing.assert_array_equal(np.array(rows)[:, 3], np.arange(30_000)[::-1])
    assert np.array(rows, np.float32).dtype == np.float32
    assert rows.mean(axis=1)[-1] == 0
    with pytest.raises(TypeError, match="2 arrays of unlike kinds"):
        np.array(Parts([np.zeros(3), np.zeros((3, 2))]))


def test_large_inputs_are_shuffled_and_split_without_copies(many):
    train, held = Data(many).split(0.01, most=100)
    assert isinstance(train.x, Rows)
    assert isinstance(held.x, np.ndarray)
    again = train.take(np.arange(len(train))[::-1])
    assert again.x.base is many.x
    for part in (train, held, again, train.take(slice(5, 9)), train.take([3, 1])):
        np.testing.assert_array_equal(part.inputs(slice(0, 50))[:, 7], part.y[:50])
        np.testing.assert_array_equal(part.x[np.array([1, 0])], np.asarray(part.x)[[1, 0]])
        assert np.asarray(part.x).shape == part.x.shape
        assert (len(part), part.x.dtype) == (len(part.y), np.uint16)
    np.testing.assert_array_equal(train.x[3, 1:3], [train.y[3]] * 2)
    np.testing.assert_array_equal(train.x[1:3, 1], train.y[1:3])
    np.testing.assert_array_equal((train.x[:9] + 1.5)[:, 0], train.y[:9] + 1.5)
    assert float((train.x * 1.0).max()) == float(train.x.max()) == train.y.max()
    assert [len(x) for x, _ in train.batches(30_000)] == [30_000, 9_900]


def test_reading_mapped_data_gives_its_memory_back(many):
    def resident() -> int:
        with open("/proc/self/smaps_rollup", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Rss"))

    many.inputs(slice(0, 1))
    before = resident()
    for start in range(0, len(many), 1000):
        many.inputs(slice(start, start + 1000))
    assert resident() - before < 20_000  # kB; the data has 40,000
    np.testing.assert_array_equal(many.x[-1], 39_999)


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0])


LABELS = np.arange(6) % 3


@pytest.mark.parametrize(
    ("targets", "batch", "fixed"),
    [(y, batch, False) for y in (LABELS, np.eye(3)[LABELS], None) for batch in (None, 4)]
    + [(LABELS, 3, True), (np.eye(3)[LABELS], 3, True)],
)
def test_tf_data_gives_the_samples_it_was_made_of(targets, batch, fixed):
    x = np.random.default_rng(0).normal(size=(6, 5, 2)).astype(np.float32)
    made = dataset(x) if targets is None else dataset(x, targets)
    made = made if batch is None else made.batch(batch, drop_remainder=fixed)
    train = as_data(made).train
    np.testing.assert_array_equal(train.x, x)
    if targets is None:
        assert train.y is None
    else:
        np.testing.assert_array_equal(train.y, targets)


def test_tf_data_that_cannot_be_used_is_named():
    x, y = np.zeros((4, 2), np.float32), np.arange(4)
    with pytest.raises(DataError, match="never ends"):
        as_data(dataset(x, y).batch(2).repeat())
    with pytest.raises(DataError, match="dataset gives"):
        as_data(dataset(x, y, y, y).batch(2))
