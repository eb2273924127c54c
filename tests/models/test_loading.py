from __future__ import annotations

import io
import json
import os
import pathlib
import pickle
import shutil
import zipfile

import h5py
import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import ModelError
from keras_xaic.models.given import as_model
from keras_xaic.models.loading import load_model, save_model

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
KERAS3 = FIXTURES / "keras3.zip"


def small_model():
    """Two inputs, a shared layer, nested models of both kinds and plain operators."""
    image, vector = keras.Input((6, 6, 3), name="image"), keras.Input((4,), name="vector")
    block = keras.Sequential([layers.Input((4, 4, 4)), layers.BatchNormalization(), layers.ReLU(6.0)], name="block")
    inside = keras.Input((4, 4, 4))
    inner = keras.Model(inside, layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(4, 1)(inside)), name="inner")
    shared = layers.Dense(4, activation=keras.activations.gelu, name="shared", kernel_regularizer="l2")
    x = layers.Conv2D(4, 3, activation="swish", name="conv")(image)
    x = inner(block(shared(shared(x) + 2.0 * x)))
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), vector])
    model = keras.Model([image, vector], [layers.Dense(2, name="head")(x), x], name="small")
    rng = np.random.default_rng(3)
    model.set_weights([rng.uniform(0.1, 0.9, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def inputs_of(model, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(3, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs]


def assert_same(found, expected, atol=0.0):
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected)):
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


def lambda_model():
    return keras.Sequential([layers.Input((2,)), layers.Lambda(lambda v: v * 2, name="twice")], name="with_code")


def repack(path, target, **members):
    """Copies a .keras archive with other members; None leaves one out, a function edits the parsed JSON."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        contents = {name: old.read(name) for name in old.namelist()}
        for name, content in members.items():
            name = (
                name.replace("__", "/").replace("_json", ".json").replace("_h5", ".weights.h5").replace("_npz", ".weights.npz")
            )
            if callable(content):
                config = json.loads(contents[name])
                content(config)
                content = json.dumps(config)
            contents[name] = content
        for name, content in contents.items():
            if content is not None:
                new.writestr(name, content)
    return target


def error_of(path, **options):
    with pytest.raises(ModelError) as caught:
        load_model(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["m.h5", "m.keras", "saved_model"])
def test_a_model_comes_back_with_the_same_outputs(tmp_path, name):
    model = small_model()
    model.compile("adam", "mse")
    model.save(tmp_path / name)
    loaded = load_model(tmp_path / name)
    assert loaded.optimizer is None
    assert_same(loaded(inputs_of(model)), model(inputs_of(model)))
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    assert loaded.get_layer("shared").kernel_regularizer is not None


def test_the_content_decides_about_the_format_not_the_name(tmp_path):
    model = small_model()
    model.save(tmp_path / "m.h5")
    model.save(tmp_path / "m.keras")
    for old, new in (("m.h5", "a.keras"), ("m.keras", "b.bin")):
        os.rename(tmp_path / old, tmp_path / new)
        assert_same(load_model(tmp_path / new)(inputs_of(model)), model(inputs_of(model)))


def test_finite_weights_whose_sum_is_not_are_no_fault(tmp_path):
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3)])
    weights = [np.full((4, 3), 2e38, np.float32), np.zeros(3, np.float32)]
    model.set_weights(weights)
    model.save(tmp_path / "large.keras")
    np.testing.assert_array_equal(load_model(tmp_path / "large.keras").get_weights()[0], weights[0])
    weights[0][2, 1] = np.inf
    model.set_weights(weights)
    model.save(tmp_path / "infinite.keras")
    with pytest.raises(ModelError, match="holds values that are not finite"):
        load_model(tmp_path / "infinite.keras")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_borders_that_were_found_in_data_come_back(tmp_path, suffix):
    bins = layers.Discretization(num_bins=4)
    bins.adapt(np.arange(10.0)[:, None])
    inputs = keras.Input((3,))
    inner = keras.Model(inputs, layers.Embedding(4, 2)(bins(inputs)))
    model = keras.Sequential([keras.Input((3,)), inner, layers.Flatten()])
    model.save(tmp_path / f"model{suffix}")
    x = np.random.default_rng(0).uniform(0, 9, (6, 3)).astype(np.float32)
    assert_same(load_model(tmp_path / f"model{suffix}").predict(x, verbose=0), model.predict(x, verbose=0))


def test_a_model_that_takes_texts_is_refused_with_the_way_out():
    inputs = keras.Input((1,), dtype="string", name="word")
    model = keras.Model(inputs, layers.Embedding(5, 2)(layers.StringLookup(vocabulary=["a"], name="table")(inputs)))
    with pytest.raises(ModelError, match=r"takes texts \(input 'word'\).*get_layer\('table'\)"):
        as_model(model)


def test_loading_a_model_whose_loss_is_custom_needs_no_loss(tmp_path):
    model = keras.Sequential([layers.Input((2,)), layers.Dense(1)])
    model.compile("sgd", loss=lambda y, p: y - p)
    for name in ("m.h5", "m.keras", "saved_model"):
        model.save(tmp_path / name)
        load_model(tmp_path / name)


def test_save_model_is_deterministic_atomic_and_without_optimizer(tmp_path):
    model = small_model()
    model.compile("adam", "mse")
    x = inputs_of(model)
    model.fit(x, list(model.predict(x, verbose=0)), verbose=0)
    first = save_model(model, tmp_path / "new" / "first.keras")
    second = save_model(load_model(first), tmp_path / "second.keras")
    assert first.read_bytes() == second.read_bytes()
    assert os.listdir(first.parent) == ["first.keras"]
    with zipfile.ZipFile(first) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
        assert "optimizer" not in weights
    for loaded in (load_model(first), keras.models.load_model(first)):
        assert_same(loaded(x), model(x))


def test_save_model_keeps_what_was_there_when_it_fails(tmp_path):
    target = tmp_path / "m.keras"
    save_model(small_model(), target)
    before = target.read_bytes()

    class Unsaveable(layers.Layer):
        def get_config(self):
            raise RuntimeError("no config")

    with pytest.raises(ModelError, match="no config"):
        save_model(keras.Sequential([layers.Input((2,)), Unsaveable()]), target)
    assert target.read_bytes() == before
    with pytest.raises(ModelError, match=r"\.keras"):
        save_model(small_model(), tmp_path / "m.h5")


# --- code in files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.h5", "m.keras", pytest.param("saved_model", marks=pytest.mark.slow)])
def test_a_lambda_layer_is_refused_by_name_unless_allowed(tmp_path, name):
    lambda_model().save(tmp_path / name)
    message = error_of(tmp_path / name)
    assert "'twice' (Lambda)" in message
    assert "allow" in message
    np.testing.assert_array_equal(load_model(tmp_path / name, allow_unsafe=True)(np.ones((1, 2))), [[2, 2]])


def test_an_allowed_lambda_layer_in_a_functional_savedmodel_is_read(tmp_path):
    inputs = keras.Input((2,))
    keras.Model(inputs, layers.Lambda(lambda v: v * 2)(inputs)).save(tmp_path / "saved_model")
    np.testing.assert_array_equal(load_model(tmp_path / "saved_model", allow_unsafe=True)(np.ones((1, 2))), [[2, 2]])


@pytest.mark.parametrize("name", ["m.h5", "m.keras", "saved_model"])
def test_functions_of_tensorflow_as_activations_are_known(tmp_path, name):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((3,)), layers.Dense(4, activation=tf.nn.log_softmax)])
    model.save(tmp_path / name)
    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(load_model(tmp_path / name)(x), model(x), atol=1e-6)


def own_activation(x):
    return tf.nn.relu(x) - 0.1


def test_own_functions_in_h5_files_are_found_which_keras_2_does_not(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((3,)), layers.Dense(4, activation=own_activation)])
    model.save(tmp_path / "m.h5")
    assert "needs the custom function 'own_activation'" in error_of(tmp_path / "m.h5")
    with keras.utils.custom_object_scope({"own_activation": own_activation}):
        x = np.ones((2, 3), np.float32)
        np.testing.assert_allclose(load_model(tmp_path / "m.h5")(x), model(x), atol=1e-6)


@pytest.mark.parametrize("wrap", ["nested", "time_distributed", "bidirectional_nested"])
@pytest.mark.parametrize("name", ["m.h5", "m.keras", "saved_model"])
def test_a_lambda_layer_is_found_wherever_it_hides(tmp_path, wrap, name):
    hidden = layers.Lambda(lambda v: v + 1, name="hidden")
    inner = keras.Sequential([layers.Input((2,)), hidden])
    if wrap == "nested":
        model = keras.Sequential([layers.Input((2,)), keras.Sequential([layers.Input((2,)), inner])])
    elif wrap == "time_distributed":
        model = keras.Sequential([layers.Input((3, 2)), layers.TimeDistributed(hidden)])
    else:
        model = keras.Sequential([layers.Input((3, 2)), layers.TimeDistributed(inner)])
    model.save(tmp_path / name)
    assert "'hidden'" in error_of(tmp_path / name)


def test_pickled_weights_are_never_read(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pathlib.Path.touch, (tmp_path / "exploded",))

    buffer = io.BytesIO()
    np.savez(buffer, __root__=np.array([Bomb()], dtype=object))
    save_model(small_model(), tmp_path / "m.keras")
    bad = repack(tmp_path / "m.keras", tmp_path / "bad.keras", model_h5=None, model_npz=buffer.getvalue())
    assert "model.weights.npz" in error_of(bad)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(1))  # the bomb above would have worked:
    np.load(io.BytesIO(buffer.getvalue()), allow_pickle=True)["__root__"]
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({"module": "os", "class_name": "function", "config": "system", "registered_name": "function"}, "os.system"),
        ({"module": "keras.src.utils.generic_utils", "class_name": "function", "config": "func_load"}, "func_load"),
        (
            {"module": "subprocess", "class_name": "Popen", "config": {"args": "true"}, "registered_name": None},
            "subprocess.Popen",
        ),
        ({"class_name": "__lambda__", "config": {"value": ["4wAA", None, None]}}, "Python code"),
    ],
)
def test_an_activation_that_names_foreign_code_is_refused(tmp_path, edit, expected):
    save_model(small_model(), tmp_path / "m.keras")

    def change(config):
        next(layer for layer in config["config"]["layers"] if layer["name"] == "conv")["config"]["activation"] = edit

    message = error_of(repack(tmp_path / "m.keras", tmp_path / "bad.keras", config_json=change))
    assert expected in message
    assert "'conv'" in message


def test_a_tensorflow_function_that_writes_files_is_refused(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, tf.math.tanh(inputs))
    save_model(model, tmp_path / "m.keras")
    load_model(tmp_path / "m.keras")

    def change(config):
        layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "TFOpLambda")
        layer["config"]["function"] = "io.write_file"

    assert "tf.io.write_file" in error_of(repack(tmp_path / "m.keras", tmp_path / "bad.keras", config_json=change))


def test_an_archive_member_outside_the_archive_is_refused(tmp_path):
    save_model(small_model(), tmp_path / "m.keras")
    shutil.copy(tmp_path / "m.keras", tmp_path / "bad.keras")
    with zipfile.ZipFile(tmp_path / "bad.keras", "a") as archive:
        archive.writestr("../escaped", b"x")
    assert "../escaped" in error_of(tmp_path / "bad.keras")
    assert not (tmp_path.parent / "escaped").exists()


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    save_model(small_model(), tmp_path / "m.keras")
    monkeypatch.setattr("keras_xaic.hdf5.MAX_WEIGHT_BYTES", 1000)
    assert "1,000 B" in error_of(tmp_path / "m.keras")


def test_arrays_that_claim_more_than_the_limit_are_refused(tmp_path):
    small_model().save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file.create_dataset("huge", (10**9, 10**3), dtype="f4")  # chunks are never written: the file stays small
    assert "unpacks to more than" in error_of(tmp_path / "m.h5")


def test_weights_that_link_to_other_files_are_refused(tmp_path):
    small_model().save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file["model_weights/elsewhere"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/secret")
    assert "/model_weights/elsewhere" in error_of(tmp_path / "m.h5")


def test_groups_that_contain_themselves_are_refused(tmp_path):
    small_model().save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file["model_weights/around"] = file["model_weights"]
    assert "/model_weights/around" in error_of(tmp_path / "m.h5")


# --- files that cannot be used ---------------------------------------------------------------------------------------


class Custom(layers.Layer):
    def call(self, inputs):
        return inputs * 3.0


@pytest.mark.parametrize("name", ["m.h5", "m.keras", pytest.param("saved_model", marks=pytest.mark.slow)])
def test_an_unknown_custom_layer_is_named_and_a_known_one_loads(tmp_path, name):
    model = keras.Sequential([layers.Input((2,)), Custom(name="mine")])
    with keras.utils.custom_object_scope({"Custom": Custom}):
        model.save(tmp_path / name)
        np.testing.assert_array_equal(load_model(tmp_path / name)(np.ones((1, 2))), [[3, 3]])
    message = error_of(tmp_path / name)
    assert "Custom" in message
    assert "'mine'" in message
    assert "register" in message


@keras.utils.register_keras_serializable("mine")
class OwnPart(layers.Layer):
    """May be an activation; only its entry in the file matters."""


@keras.utils.register_keras_serializable("mine")
class OwnStart(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None, **_):
        return tf.zeros(shape)

    def get_config(self):
        return {}


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
@pytest.mark.parametrize("option", ["activation", "kernel_initializer"])
def test_parts_of_a_layer_that_are_ones_own_are_named_with_it(tmp_path, monkeypatch, name, option):
    own = {"activation": OwnPart, "kernel_initializer": OwnStart}[option]
    inputs = keras.Input((4,))
    keras.Model(inputs, layers.Dense(3, name="body", **{option: own()})(inputs)).save(tmp_path / name)
    assert load_model(tmp_path / name).get_layer("body")
    monkeypatch.delitem(keras.utils.get_custom_objects(), f"mine>{own.__name__}")
    said = error_of(tmp_path / name)
    assert f"layer 'body' (Dense) needs the custom class {own.__name__!r}, which is not known here" in said


def test_an_unknown_activation_is_named(tmp_path):
    def my_activation(x):
        return x

    keras.Sequential([layers.Input((2,)), layers.Dense(1, activation=my_activation, name="d")]).save(tmp_path / "m.h5")
    message = error_of(tmp_path / "m.h5")
    assert "my_activation" in message
    assert "'d'" in message


def test_what_is_no_model_says_so_in_one_line(tmp_path):
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "text.keras").write_text("not a model")
    (tmp_path / "plain").mkdir()
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    keras.Sequential([layers.Input((2,)), layers.Dense(1)]).save_weights(tmp_path / "only.weights.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = 1
    for name in ("empty.h5", "text.keras", "plain", "other.keras", "only.weights.h5", "other.h5", "missing.h5"):
        message = error_of(tmp_path / name)
        assert "\n" not in message
        assert "Expected" in message
    assert "does not exist" in error_of(tmp_path / "missing.h5")


@pytest.mark.parametrize("name", ["m.h5", "m.keras"])
def test_a_file_cut_anywhere_is_one_clear_error(tmp_path, name):
    small_model().save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    bad = tmp_path / ("bad" + name[1:])
    for part in (0.02, 0.3, 0.6, 0.9):
        bad.write_bytes(content[: int(len(content) * part)])
        error_of(bad)


def test_random_damage_never_escapes_as_another_error(tmp_path):
    save_model(small_model(), tmp_path / "m.keras")
    content, rng = (tmp_path / "m.keras").read_bytes(), np.random.default_rng(0)
    for _ in range(25):
        damaged = np.frombuffer(content, np.uint8).copy()
        at = rng.integers(0, len(damaged), 20)
        damaged[at] = rng.integers(0, 256, 20)
        (tmp_path / "bad.keras").write_bytes(damaged.tobytes())
        error_of(tmp_path / "bad.keras")  # the archive's checksums see every change of content


def test_a_damaged_deflated_member_is_one_line(tmp_path):
    save_model(small_model(), tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "bad.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        start = archive.getinfo("config.json").header_offset + 30 + len("config.json")
    content = bytearray((tmp_path / "bad.keras").read_bytes())
    content[start] = 0xFF  # a kind of block that deflate does not have
    (tmp_path / "bad.keras").write_bytes(content)
    assert "is damaged (Error -3" in error_of(tmp_path / "bad.keras")


def test_a_graph_with_a_cycle_is_refused_instead_of_waiting_forever(tmp_path):
    save_model(small_model(), tmp_path / "m.keras")

    def change(config):
        next(layer for layer in config["config"]["layers"] if layer["name"] == "conv")["inbound_nodes"][0][0][0] = "head"

    assert "'conv'" in error_of(repack(tmp_path / "m.keras", tmp_path / "bad.keras", config_json=change))


def test_saved_models_without_layers_say_what_to_do(tmp_path):
    model = keras.Sequential([layers.Input((2,)), layers.Dense(1)])
    tf.saved_model.save(model, str(tmp_path / "plain"))
    assert "keras_metadata.pb" in error_of(tmp_path / "plain")

    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    subclassed = Subclassed()
    subclassed(np.ones((1, 2), np.float32))
    subclassed.save(tmp_path / "subclassed")
    assert "Subclassed" in error_of(tmp_path / "subclassed")
    model.save(tmp_path / "damaged")
    metadata = tmp_path / "damaged" / "keras_metadata.pb"
    metadata.write_bytes(metadata.read_bytes()[:-20])
    error_of(tmp_path / "damaged")


# --- files written by Keras 3 ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras3(tmp_path_factory):
    directory = tmp_path_factory.mktemp("keras3")
    with zipfile.ZipFile(KERAS3) as archive:
        archive.extractall(directory)
    return directory


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("name", ["graph", "sequential"])
def test_keras_3_models_answer_as_they_did_in_keras_3(keras3, name, ending):
    model = load_model(keras3 / f"{name}.{ending}")
    with np.load(keras3 / f"{name}.npz") as stored:
        inputs = [stored[key] for key in stored.files if key.startswith("x")]
        outputs = [stored[key] for key in stored.files if key.startswith("y")]
    found = model(inputs if len(inputs) > 1 else inputs[0])
    for one, expected in zip(tf.nest.flatten(found), outputs):
        np.testing.assert_allclose(one, expected, rtol=1e-6, atol=1e-6)


def test_keras_3_models_can_be_saved_and_loaded_on(keras3, tmp_path):
    model = load_model(keras3 / "graph.keras")
    again = load_model(save_model(model, tmp_path / "m.keras"))
    assert_same(again(inputs_of(model)), model(inputs_of(model)))
    assert model.get_layer("first").kernel_regularizer is not None


def edit_layer(name, **settings):
    def change(config):
        layer = next(layer for layer in config["config"]["layers"] if layer["name"] == name)
        layer["config"].update(settings.pop("config", {}))
        layer.update(settings)

    return change


def test_keras_3_settings_without_counterpart_are_refused_not_dropped(keras3, tmp_path):
    change = edit_layer("side", config={"novelty": 4})
    message = error_of(repack(keras3 / "graph.keras", tmp_path / "bad.keras", config_json=change))
    assert "novelty=4" in message
    assert "'side'" in message


def test_keras_3_operations_without_counterpart_are_named(keras3, tmp_path):
    change = edit_layer("multiply", class_name="Cross")
    message = error_of(repack(keras3 / "graph.keras", tmp_path / "bad.keras", config_json=change))
    assert "Cross" in message
    assert "'multiply'" in message


def test_keras_3_weights_that_are_missing_or_wrong_are_named(keras3, tmp_path):
    with zipfile.ZipFile(keras3 / "graph.keras") as archive:
        content = archive.read("model.weights.h5")
    for change, expected in (
        (lambda g: g.__delitem__("vars/1"), "shapes"),
        (lambda g: g.parent.__delitem__("conv2d"), "no weights"),
    ):
        buffer = io.BytesIO(content)
        with h5py.File(buffer, "a") as file:
            change(file["layers/conv2d"])
        message = error_of(repack(keras3 / "graph.keras", tmp_path / "bad.keras", model_h5=buffer.getvalue()))
        assert expected in message
        assert "'first'" in message


@pytest.mark.parametrize("release", ["2.14", "2.21"])
def test_files_of_other_releases_of_keras_2(release):
    with np.load(FIXTURES / f"keras2-{release}.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    model = load_model(FIXTURES / f"keras2-{release}.keras")
    np.testing.assert_allclose(model.predict(x, verbose=0), y, atol=1e-5)
