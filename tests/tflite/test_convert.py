from __future__ import annotations

import numpy as np
import pytest

from keras_xaic import isolation
from keras_xaic._keras import keras, layers, tf
from keras_xaic.data import Samples
from keras_xaic.edge import run_file
from keras_xaic.errors import DataError, ExportError, ModelError
from keras_xaic.tflite import convert, export
from keras_xaic.tflite.build import Uncompressed
from keras_xaic.tflite.convert import converted, float_twin, int8_twin, traced
from keras_xaic.tflite.converter import Wish
from keras_xaic.tflite.flatbuffer import pack
from keras_xaic.tflite.io_types import with_io
from tests.tflite.models import inputs_of, odd_layers, open_file, run


def _predict(model, arrays):
    outputs = model.predict(arrays, verbose=0)
    return outputs if isinstance(outputs, list) else [outputs]


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("float16", 1e-2), ("dynamic-range", 0.05)])
def test_float_files_agree_with_keras(twins, precision, tolerance):
    samples = inputs_of(twins.small.model, 4)
    for expected, given in zip(
        _predict(twins.small.model, samples), run(pack(converted(twins.small.model, Wish(precision))), samples)
    ):
        np.testing.assert_allclose(given, expected, atol=tolerance)


def test_int8_file_with_float_io_agrees_with_keras_in_the_order_of_outputs(odd):
    samples = inputs_of(odd.small.model, 8)
    content = with_io(int8_twin(odd.small.model, inputs_of(odd.small.model, 40)), "float32")
    for expected, given in zip(_predict(odd.small.model, samples), run(content, samples)):
        np.testing.assert_allclose(given, expected, atol=0.05 * np.abs(expected).max())


def test_batch_names_and_signature(odd):
    interpreter = open_file(odd.int8)
    assert [d["shape"].tolist() for d in interpreter.get_input_details()] == [[1, 6, 6, 2], [1, 5]]
    assert [d["shape_signature"].tolist() for d in interpreter.get_input_details()] == [[1, 6, 6, 2], [1, 5]]
    assert [d["dtype"] for d in interpreter.get_input_details()] == [np.int8, np.int8]
    assert [d["shape"].tolist() for d in interpreter.get_output_details()] == [[1, 3], [1, 2]]
    expected = {"inputs": ["input_0", "input_1"], "outputs": ["output_0", "output_1"]}
    assert interpreter.get_signature_list() == {"serving_default": expected}


def test_rebuilding_the_model_gives_the_same_bytes(monkeypatch):
    def build():
        keras.utils.set_random_seed(3)
        x = inputs = keras.Input((6, 6, 1))
        for _ in range(12):  # auto names pass conv2d_9 -> conv2d_10, where alphabetic order changes
            x = layers.Conv2D(2, 3, padding="same", activation="relu")(x)
        model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
        return float_twin(model), int8_twin(model, inputs_of(model, 8))

    first = build()
    monkeypatch.setattr(convert, "_kept", {})  # else a file would be compared with itself
    assert build() == first
    assert odd_layers().name != odd_layers().name  # the names that Keras makes up do differ


@pytest.fixture
def asked(monkeypatch):
    """The precisions that every process of the converter was asked for."""
    found = []

    def run_isolated(function, graph, wishes, arrays, **options):
        found.append([wish.precision for wish in wishes])
        return isolation.run_isolated(function, graph, wishes, arrays, **options)

    monkeypatch.setattr(convert, "run_isolated", run_isolated)
    return found


def test_the_same_model_and_data_are_converted_once(monkeypatch, asked):
    monkeypatch.setattr(convert, "_kept", {})
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    x = np.linspace(0, 1, 32, dtype=np.float32).reshape(8, 4)
    first = float_twin(model), int8_twin(model, x)
    assert (float_twin(model), int8_twin(model, x)) == first
    assert asked == [["float32"], ["int8"]]
    assert int8_twin(model, 2 * x) != first[1]
    model.set_weights([2 * one for one in model.get_weights()])
    assert float_twin(model) != first[0]
    assert len(asked) == 4
    monkeypatch.setattr(convert, "KEPT_BYTES", 1)
    int8_twin(model, x)
    assert len(convert._kept) == 1, "no more than what was made last, however large"


def test_one_process_converts_a_model_and_its_twin(monkeypatch, asked):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    x = np.linspace(0, 1, 32, dtype=np.float32).reshape(8, 4)
    alone = int8_twin(model, x), float_twin(model)
    for kept in (convert.KEPT_BYTES, 1):
        asked.clear()
        monkeypatch.setattr(convert, "KEPT_BYTES", kept)
        monkeypatch.setattr(convert, "_kept", {})
        with traced(model, "int8", x) as source:
            together = pack(source.converted(Wish("int8"), with_twin=True)), pack(source.floating)
        assert together == alone
        assert asked == [["int8", "float32"]]


def test_nothing_is_said(capfd):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    int8_twin(model, np.zeros((2, 4)))
    assert capfd.readouterr() == ("", "")


def test_an_operator_that_tflite_lacks_is_named():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Lambda(lambda x: tf.math.igamma(x, x))(inputs))
    with pytest.raises(ExportError, match=r"tf\.Igamma"):
        float_twin(model)


def test_what_native_code_says_comes_with_the_layer_alone():
    inputs = keras.Input((4, 4, 1))
    larger = keras.Model(inputs, layers.CenterCrop(6, 6, name="larger")(inputs))
    with pytest.raises(ExportError) as caught:
        float_twin(larger)
    assert "layer 'larger' (CenterCrop)" in caught.value.found
    assert "loc(" not in caught.value.found
    assert "<unknown>" not in caught.value.found


def test_what_no_kernel_takes_is_refused_with_the_layer(tmp_path):
    inputs = keras.Input((2, 2, 2, 2, 1))
    model = keras.Model(inputs, layers.Flatten()(inputs[:, 1]))
    samples = np.zeros((4, 2, 2, 2, 2, 1), np.float32)
    for precision in ("float32", "int8"):  # newer converters write it, and no interpreter runs the file
        with pytest.raises(ExportError, match=r"StridedSlice.* in layer 'tf\.__operators__\.getitem"):
            export(Uncompressed(model), tmp_path / "bundle", calibration=samples, precision=precision, target="mobile")


def test_free_dimensions_are_refused():
    inputs = keras.Input((None, None, 1))
    with pytest.raises(ModelError, match="free dimensions"):
        float_twin(keras.Model(inputs, layers.GlobalAveragePooling2D()(inputs)))


def test_calibration_data_forms_are_equal(digits):
    (array,) = inputs_of(digits.small.model, 40)
    assert int8_twin(digits.small.model, [array]) == int8_twin(digits.small.model, Samples(array)) == digits.int8


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (np.zeros((4, 8, 8)), "has shape"),
        (np.zeros((4, 8, 7, 1)), "has shape"),
        (np.zeros((0, 8, 8, 1)), "0 calibration samples"),
        ([np.zeros((4, 8, 8, 1)), np.zeros((4, 5))], "2 calibration arrays"),
    ],
)
def test_calibration_data_that_does_not_fit(digits, calibration, message):
    with pytest.raises(DataError, match=message):
        int8_twin(digits.small.model, calibration)


CONVERTED_ANOTHER_WAY = {
    "softsign": ((5,), lambda t: layers.Dense(4, activation="softsign")(t)),
    "max of volumes": ((4, 6, 5, 2), lambda t: layers.MaxPooling3D(2, padding="same")(layers.Conv3D(3, 2)(t))),
    "mean of volumes": ((4, 6, 5, 2), lambda t: layers.AveragePooling3D((2, 3, 2), strides=(1, 2, 2))(t)),
    "cosine of two vectors": ((4, 6), lambda t: layers.Dot(-1, normalize=True)([t[:, 0], t[:, 1]])),
    "one row asks": ((4, 6), lambda t: layers.Attention()([t[:, :1], t])),
    "sum of products": ((4, 6), lambda t: tf.einsum("bd,bd->b", t[:, 0], t[:, 1])[:, None]),
    "row first": ((4, 6), lambda t: tf.einsum("bd,bnd->bn", t[:, 0], t)),
    "convolution over time": ((3, 6, 6, 2), lambda t: layers.ConvLSTM2D(3, 3, padding="same", return_sequences=True)(t)),
    "backwards": ((3, 6, 6, 2), lambda t: layers.ConvLSTM2D(3, 3, strides=2, go_backwards=True)(t)),
}


@pytest.mark.parametrize("kind", CONVERTED_ANOTHER_WAY)
def test_what_tflite_lacks_is_written_with_what_it_has(kind, tmp_path):
    keras.utils.set_random_seed(2)
    shape, body = CONVERTED_ANOTHER_WAY[kind]
    start = keras.Input(shape)
    model = keras.Model(start, layers.Dense(3)(layers.Flatten()(body(start))))
    x = np.random.default_rng(0).normal(size=(30, *shape)).astype(np.float32)
    expected = model.predict(x, verbose=0)
    agrees(float_twin(model), x, expected, 1e-5, tmp_path)
    agrees(int8_twin(model, x), x, expected, 0.05, tmp_path)


def agrees(content, x, expected, limit, folder):
    """The file's outputs are those expected, to a mean deviation of `limit` standard deviations."""
    (folder / "model.tflite").write_bytes(content)
    given = run_file(folder / "model.tflite", x).outputs[0].reshape(expected.shape)
    assert np.abs(given - expected).mean() < limit * expected.std()


def test_sequences_with_steps_to_skip_are_right(tmp_path):
    keras.utils.set_random_seed(2)
    start = layers.Input((6,), dtype="int32")
    signal = layers.LSTM(5)(layers.Embedding(9, 4, mask_zero=True)(start))
    model = keras.Model(start, layers.Dense(2)(signal))
    model.layers[1].set_weights([np.random.default_rng(3).normal(size=(9, 4))])
    x = np.random.default_rng(0).integers(1, 9, (30, 6)).astype(np.int32)
    x[np.arange(6) >= np.random.default_rng(1).integers(2, 7, 30)[:, None]] = 0
    expected = model.predict(x, verbose=0)
    agrees(float_twin(model), x, expected, 1e-5, tmp_path)
    agrees(int8_twin(model, x), x, expected, 0.08, tmp_path)


def test_a_mask_that_reads_the_input_of_an_integer_file_keeps_it():
    """Ranges of a GRU are measured a second time, and the input that the mask compares with zero was lost then."""
    keras.utils.set_random_seed(0)
    start = keras.Input((4, 3))
    model = keras.Model(start, layers.Dense(2)(layers.GRU(4)(layers.Masking()(start))))
    x = np.random.default_rng(0).normal(size=(32, 4, 3)).astype(np.float32)
    x[::2, 2:] = 0.0
    interpreter = tf.lite.Interpreter(model_content=int8_twin(model, x))
    interpreter.allocate_tensors()
    (given,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert given["dtype"] == np.int8
    found = []
    for sample in x:
        scale, zero = given["quantization"]
        interpreter.set_tensor(given["index"], np.clip(np.round(sample[None] / scale) + zero, -128, 127).astype(np.int8))
        interpreter.invoke()
        scale, zero = gives["quantization"]
        found.append((interpreter.get_tensor(gives["index"])[0].astype(np.float32) - zero) * scale)
    expected = model.predict(x, verbose=0)
    assert np.abs(np.array(found) - expected).max() < 0.1 * expected.std()


def test_losses_of_layers_are_left_out():
    """Layers with an ``activity_regularizer`` compute a sum that no output needs."""
    keras.utils.set_random_seed(2)
    files = {}
    for loss in (None, "l1", "l1_l2"):
        keras.backend.clear_session()
        inputs = keras.Input((6, 3))
        tensor = layers.GRU(4, return_sequences=True, activity_regularizer=loss, name="memory")(inputs)
        tensor = layers.Conv1D(4, 3, activation="relu", activity_regularizer=loss, name="conv")(tensor)
        model = keras.Model(inputs, layers.Dense(2, activity_regularizer=loss, name="head")(layers.Flatten()(tensor)))
        model.set_weights([np.sin(np.arange(weight.size).reshape(weight.shape)) for weight in model.get_weights()])
        files[loss] = pack(converted(model, Wish("float32")))
        samples = inputs_of(model, 4)
        np.testing.assert_allclose(run(files[loss], samples)[0], model.predict(samples, verbose=0), atol=1e-5)
    assert len(set(map(len, files.values()))) == 1
