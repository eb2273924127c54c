"""Small .tflite files as other people make them: none is written by this package."""

from __future__ import annotations

import io
import zipfile

import flatbuffers
import numpy as np

from keras_xaic._keras import keras, layers, tf
from keras_xaic.tflite.flatbuffer import IDENTIFIER, load, schema


def convert(model: keras.Model, precision: str = "float32") -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if precision != "float32":
        rng = np.random.default_rng(0)
        samples = [[rng.random((1, *i.shape[1:])).astype(np.float32) for i in model.inputs] for _ in range(10)]
        sets = tf.lite.OpsSet
        int16 = sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: samples
        converter.target_spec.supported_ops = [sets.TFLITE_BUILTINS_INT8 if precision == "int8" else int16]
        if precision == "int8":
            converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def image_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 2), name="image"),
            layers.Conv2D(6, 3, activation="relu"),
            layers.DepthwiseConv2D(3, activation="relu6"),
            layers.Flatten(),
            layers.Dense(5, activation="softmax", name="class"),
        ]
    )


def of_functions(**functions: tuple) -> bytes:
    """A file with one signature for each of ``name=(function, *specifications)``."""
    module, made = tf.Module(), {}
    for name, (function, *specifications) in functions.items():
        made[name] = tf.function(function).get_concrete_function(*specifications)
    module.kept = list(made.values())
    converter = tf.lite.TFLiteConverter.from_concrete_functions(list(made.values()), module)
    return bytes(converter.convert())


def two_signatures(folder) -> bytes:
    class Both(tf.Module):
        def __init__(self):
            super().__init__()
            self.kernel = tf.Variable(np.random.default_rng(0).random((4, 40)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32, "x")])
        def encode(self, x):
            return {"code": tf.nn.relu(x @ self.kernel)}

        @tf.function(input_signature=[tf.TensorSpec((1, 40), tf.float32, "code")])
        def decode(self, code):
            return {"x": code @ tf.transpose(self.kernel)}

    both = Both()
    tf.saved_model.save(both, str(folder), signatures={"encode": both.encode, "decode": both.decode})
    return bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=["encode", "decode"]).convert())


def state_that_is_set(folder) -> bytes:
    """Its first graph has no inputs."""

    class Sums(tf.Module):
        def __init__(self):
            super().__init__()
            self.sum = tf.Variable([[1.0, 2.0, 3.0, 4.0]])

        @tf.function(input_signature=[])
        def forget(self):
            self.sum.assign(tf.zeros((1, 4)))
            return {"done": tf.constant([1.0])}

        @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32, "x")])
        def step(self, x):
            self.sum.assign_add(x)
            return {"y": self.sum + 0.0}

    sums = Sums()
    tf.saved_model.save(sums, str(folder), signatures={"step": sums.step, "forget": sums.forget})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=["forget", "step"])
    converter.experimental_enable_resource_variables = True
    return bytes(converter.convert())


def loop() -> bytes:
    def double(x):
        return tf.while_loop(lambda i, y: i < 5, lambda i, y: (i + 1, y * 1.5 + 0.25), (0, x))[1]

    return of_functions(double=(double, tf.TensorSpec((1, 6), tf.float32)))


def branch() -> bytes:
    def choose(x):
        return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.sin(x), lambda: tf.exp(x))

    return of_functions(choose=(choose, tf.TensorSpec((1, 6), tf.float32)))


def words() -> bytes:
    def pick(texts, places):
        return tf.gather(texts, places)

    return of_functions(pick=(pick, tf.TensorSpec((4,), tf.string), tf.TensorSpec((3,), tf.int32)))


def free_shapes() -> bytes:
    def scale(x):
        return tf.reduce_mean(x, axis=1, keepdims=True) * tf.ones_like(x) + x

    return of_functions(scale=(scale, tf.TensorSpec((None, None), tf.float32)))


def recurrent() -> bytes:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5, 3), batch_size=1), layers.LSTM(4), layers.Dense(2)])
    return convert(model)


def sparse() -> bytes:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, name="thin"), layers.Dense(3)])
    kernel, bias = model.get_layer("thin").get_weights()
    blocks = np.kron(np.random.default_rng(0).random((64, 8)) > 0.9, np.ones((1, 4)))
    model.get_layer("thin").set_weights([kernel * blocks, bias])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    return bytes(converter.convert())


def random_numbers() -> bytes:
    return of_functions(noise=(lambda x: x + tf.random.uniform((1, 4)), tf.TensorSpec((1, 4), tf.float32)))


def with_metadata(content: bytes, name: str = "TFLITE_METADATA", labels: bytes = b"cat\ndog\n") -> bytes:
    """The file with metadata, and with an appended archive of labels, as the metadata writer of TFLite does it."""
    model = load(content)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(b"what programs want to know", np.uint8)
    entry.name, entry.buffer = name, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    whole = io.BytesIO(plainly(model))
    with zipfile.ZipFile(whole, "a") as archive:
        archive.writestr("labels.txt", labels)
    return whole.getvalue()


def with_custom_operator(content: bytes) -> bytes:
    """The file with its first operator replaced by one that no interpreter has."""
    model = load(content)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = b"TheirOwn", 1
    model.operatorCodes.append(code)
    record = model.subgraphs[0].operators[0]
    record.opcodeIndex = len(model.operatorCodes) - 1
    record.builtinOptions, record.builtinOptionsType = None, 0
    record.customOptions = np.arange(7, dtype=np.uint8)
    return plainly(model)


def of_a_later_version(content: bytes, monkeypatch) -> bytes:
    """The file with a field that this version of the format does not have."""

    def end(builder):
        builder.PrependUint32Slot(11, 7, 0)
        return builder.EndObject()

    with monkeypatch.context() as patched:
        patched.setattr(schema, "ModelStart", lambda builder: builder.StartObject(12))
        patched.setattr(schema, "ModelEnd", end)
        return plainly(load(content))


def plainly(model) -> bytes:
    """Writes the objects with the schema's own builder."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())
