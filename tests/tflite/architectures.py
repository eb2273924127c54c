"""One small model for each kind of layer and activation: the table of what is converted, and tried on the interpreters."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from keras_xaic._keras import keras, layers, tf

IMAGE, SEQUENCE, ROW = (6, 6, 3), (10, 4), (6,)
ACTIVATIONS = [
    *(
        "relu",
        "relu6",
        "elu",
        "selu",
        "gelu",
        "swish",
        "mish",
        "sigmoid",
        "tanh",
        "softplus",
        "softsign",
        "hard_sigmoid",
        "exponential",
    ),
    *("softmax", "linear"),
]
SIMPLE: dict[str, tuple[tuple[int, ...], Callable[[], Any]]] = {
    "conv": (IMAGE, lambda: layers.Conv2D(4, 3)),
    "conv_same_stride": (IMAGE, lambda: layers.Conv2D(4, 3, strides=2, padding="same")),
    "conv_dilated": (IMAGE, lambda: layers.Conv2D(4, 3, dilation_rate=2)),
    "conv_groups": ((6, 6, 4), lambda: layers.Conv2D(4, 3, groups=2)),
    "depthwise_behind_groups": (
        (6, 6, 4),
        lambda: lambda t: layers.DepthwiseConv2D(3, padding="same")(layers.Conv2D(4, 3, groups=2)(t)),
    ),
    "conv_long_stride": ((14, 15, 3), lambda: layers.Conv2D(4, 3, strides=9, padding="same")),
    "conv_long_stride_padded": ((20, 14, 3), lambda: layers.Conv2D(4, 3, strides=9, padding="same")),
    "depthwise_long_stride": ((14, 14, 3), lambda: layers.DepthwiseConv2D(2, strides=5, padding="same")),
    "pooling_long_stride": ((14, 14, 3), lambda: layers.MaxPooling2D(2, 5, padding="same")),
    "average_pooling_long_stride": ((14, 14, 3), lambda: layers.AveragePooling2D(2, 5, padding="same")),
    "conv_1x1": (IMAGE, lambda: layers.Conv2D(4, 1)),
    "depthwise": (IMAGE, lambda: layers.DepthwiseConv2D(3)),
    "depthwise_multiplier": (IMAGE, lambda: layers.DepthwiseConv2D(3, depth_multiplier=2)),
    "separable": (IMAGE, lambda: layers.SeparableConv2D(4, 3)),
    "conv_transpose": (IMAGE, lambda: layers.Conv2DTranspose(4, 2, strides=2)),
    "conv_transpose_odd": (IMAGE, lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same")),
    "conv1d": (SEQUENCE, lambda: layers.Conv1D(4, 3)),
    "conv1d_causal": (SEQUENCE, lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2)),
    "separable1d": (SEQUENCE, lambda: layers.SeparableConv1D(4, 3)),
    "conv3d": ((4, 4, 4, 2), lambda: layers.Conv3D(3, 2)),
    "dense_on_sequence": (SEQUENCE, lambda: layers.Dense(5)),
    "time_distributed": (SEQUENCE, lambda: layers.TimeDistributed(layers.Dense(5))),
    "lstm": (SEQUENCE, lambda: layers.LSTM(5)),
    "lstm_sequences": (SEQUENCE, lambda: layers.LSTM(5, return_sequences=True)),
    "gru": (SEQUENCE, lambda: layers.GRU(5)),
    "gru_sequences": (SEQUENCE, lambda: layers.GRU(5, return_sequences=True)),
    "simple_rnn": (SEQUENCE, lambda: layers.SimpleRNN(5)),
    "rnn_of_cell": (SEQUENCE, lambda: layers.RNN(layers.LSTMCell(5))),
    "bidirectional_gru": (SEQUENCE, lambda: layers.Bidirectional(layers.GRU(4))),
    "bidirectional_lstm": (SEQUENCE, lambda: layers.Bidirectional(layers.LSTM(4))),
    "batch_normalization": (IMAGE, lambda: layers.BatchNormalization()),
    "layer_normalization": (SEQUENCE, lambda: layers.LayerNormalization()),
    "group_normalization": ((6, 6, 4), lambda: layers.GroupNormalization(2)),
    "unit_normalization": (ROW, lambda: layers.UnitNormalization()),
    "max_pooling": (IMAGE, lambda: layers.MaxPooling2D()),
    "average_pooling": (IMAGE, lambda: layers.AveragePooling2D()),
    "average_pooling_same": (IMAGE, lambda: layers.AveragePooling2D(3, 2, padding="same")),
    "global_average_pooling": (IMAGE, lambda: layers.GlobalAveragePooling2D()),
    "global_max_pooling": (IMAGE, lambda: layers.GlobalMaxPooling2D()),
    "pooling1d": (SEQUENCE, lambda: layers.MaxPooling1D(2)),
    "global_pooling1d": (SEQUENCE, lambda: layers.GlobalAveragePooling1D()),
    "upsampling_nearest": (IMAGE, lambda: layers.UpSampling2D()),
    "upsampling_bilinear": (IMAGE, lambda: layers.UpSampling2D(interpolation="bilinear")),
    "zero_padding": (IMAGE, lambda: layers.ZeroPadding2D(1)),
    "cropping": (IMAGE, lambda: layers.Cropping2D(1)),
    "permute": (IMAGE, lambda: layers.Permute((2, 3, 1))),
    "repeat_vector": (ROW, lambda: layers.RepeatVector(3)),
    "rescaling": (IMAGE, lambda: layers.Rescaling(0.5, 0.1)),
    "leaky_relu": (IMAGE, lambda: layers.LeakyReLU(0.2)),
    "prelu": (IMAGE, lambda: layers.PReLU(alpha_initializer=keras.initializers.RandomUniform(0.1, 0.4), shared_axes=[1, 2])),
    "thresholded_relu": (IMAGE, lambda: layers.ThresholdedReLU(0.3)),
    "sum": (IMAGE, lambda: layers.Lambda(lambda t: tf.reduce_sum(t, (1, 2)))),
    "reduce_max": (IMAGE, lambda: layers.Lambda(lambda t: tf.reduce_max(t, -1))),
    "abs": (IMAGE, lambda: layers.Lambda(lambda t: tf.abs(t))),
    "square": (IMAGE, lambda: layers.Lambda(lambda t: tf.square(t))),
    "log_sigmoid": (IMAGE, lambda: layers.Lambda(lambda t: tf.math.log_sigmoid(t))),
    "scaled": (IMAGE, lambda: layers.Lambda(lambda t: tf.nn.relu(t) * 30.0)),
    "where": (IMAGE, lambda: layers.Lambda(lambda t: tf.where(t > 0.0, t, 20.0 * t))),
    "clip": (IMAGE, lambda: layers.Lambda(lambda t: tf.clip_by_value(t, -1.0, 0.5))),
}
JOINING: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: layers.Add()([a, b]),
    "subtract": lambda a, b: layers.Subtract()([a, b]),
    "multiply": lambda a, b: layers.Multiply()([a, b]),
    "average": lambda a, b: layers.Average()([a, b]),
    "maximum": lambda a, b: layers.Maximum()([a, b]),
    "minimum": lambda a, b: layers.Minimum()([a, b]),
    "concatenate": lambda a, b: layers.Concatenate()([a, b]),
    "dot": lambda a, b: layers.Dot(-1)([layers.Flatten()(a), layers.Flatten()(b)]),
    "squeeze_excite": lambda a, b: layers.Multiply()(
        [a, layers.Dense(3, "sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(b))]
    ),
    "attention": lambda a, b: layers.MultiHeadAttention(2, 3)(layers.Reshape((36, 3))(a), layers.Reshape((36, 3))(b)),
    "unlike_scales": lambda a, b: layers.Concatenate()([a * 0.01, b * 30.0]),
}
NAMES = [*SIMPLE, *(f"act_{name}" for name in ACTIVATIONS), *JOINING, "dead"]


def architecture(name: str) -> Any:
    """Builds the model of this name: the layer, then a dense layer whose outputs depend on the input."""
    keras.utils.set_random_seed(7)
    if name in SIMPLE:
        shape, make = SIMPLE[name]
        inputs = keras.Input(shape)
        x = make()(inputs)
    elif name in JOINING:
        inputs = keras.Input(IMAGE)
        x = JOINING[name](layers.Conv2D(3, 1)(inputs), layers.Conv2D(3, 1, activation="relu")(inputs))
    elif name == "dead":
        inputs = keras.Input(IMAGE)
        dead = layers.Conv2D(3, 1, activation="relu", bias_initializer=keras.initializers.Constant(-100.0))(inputs)
        x = layers.Conv2D(3, 1)(layers.Concatenate()([layers.Conv2D(3, 1)(dead), layers.Conv2D(3, 1)(inputs)]))
    else:
        inputs = keras.Input(ROW)
        x = layers.Activation(name[4:])(layers.Dense(8, kernel_initializer=keras.initializers.RandomNormal(0, 1.0))(inputs))
    x = layers.Flatten()(x) if len(x.shape) > 2 else x
    return keras.Model(inputs, layers.Dense(4)(x), name=name)


def random_inputs(model: Any, count: int, seed: int) -> np.ndarray:
    """Returns random inputs."""
    return np.random.default_rng(seed).normal(0, 1.5, (count, *model.inputs[0].shape[1:])).astype(np.float32)
