"""Models that still wear wrappers for training: of pruning, clustering, training on grids, spectral normalization."""

from __future__ import annotations

from typing import Any

from keras_xaic._keras import Layer, Model, keras
from keras_xaic.errors import ModelError
from keras_xaic.models.operations import Operation, Operations

ADVICE = {
    "PruneLowMagnitude": "give what tfmot.sparsity.keras.strip_pruning(model) returns",
    "ClusterWeights": "give what tfmot.clustering.keras.strip_clustering(model) returns",
    "ClusterWeightsRNN": "give what tfmot.clustering.keras.strip_clustering(model) returns",
    "ClusterWeightsMHA": "give what tfmot.clustering.keras.strip_clustering(model) returns",
    "QuantizeWrapper": "give the model itself, loaded within tfmot.quantization.keras.quantize_scope()",
    "QuantizeWrapperV2": "give the model itself, loaded within tfmot.quantization.keras.quantize_scope()",
    "QuantizeLayer": "give the model itself, loaded within tfmot.quantization.keras.quantize_scope()",
}
"""The toolkit's wrappers -> what a user with such a model in a file can do."""
NORMALIZED = "SpectralNormalization"
"""A wrapper of Keras that changes the kernel of its layer in training alone."""
if hasattr(keras.layers, NORMALIZED):  # Keras 2 does not find its own
    keras.utils.get_custom_objects().setdefault(NORMALIZED, getattr(keras.layers, NORMALIZED))


def refuse_wrapped(kind: str, owner: str, source: str) -> None:
    """Refuses a layer of a file that is one of the toolkit's wrappers.

    Raises:
        ModelError: With the function of the toolkit that takes the wrappers off.
    """
    if kind in ADVICE:
        found = f"{source}: {owner} is a wrapper of the TensorFlow Model Optimization toolkit ({kind})"
        raise ModelError(found, "a model without wrappers", ADVICE[kind])


def unwrapped(model: Model) -> Model:
    """Returns the model without wrappers for training: itself where it has none, else a new one.

    Kernels under spectral normalization are as training left them. Pruned weights are zeros, clustered ones the centroids.
    Models from quantization-aware training keep their weights as they are before rounding; ranges of activations are measured
    again on calibration data, as for any model.

    Args:
        model: A built model. It is not changed.

    Raises:
        ModelError: If it cannot be rebuilt, with the function of the toolkit that takes the wrappers off.
    """
    worn = [type(layer).__name__ for layer in model._flatten_layers() if type(layer).__name__ in {*ADVICE, NORMALIZED}]
    if not worn:
        return model
    try:
        if all(_holds_its_layer(kind) for kind in worn):
            return _taken_out(model)
        import tensorflow_model_optimization as tfmot

        sparsity, clustering, quantization = tfmot.sparsity.keras, tfmot.clustering.keras, tfmot.quantization.keras
        with sparsity.prune_scope(), clustering.cluster_scope(), quantization.quantize_scope():
            clone = keras.models.clone_model(model)  # the toolkit's own functions change the model that they are given
            for ours, theirs in zip(clone.variables, model.variables):
                ours.assign(theirs)
            clone = clustering.strip_clustering(sparsity.strip_pruning(clone))
    except Exception as error:  # whatever schedules and configurations of users lead to
        said = (str(error) or type(error).__name__).splitlines()[0]
        found = f"model {model.name!r} has wrappers for training ({worn[0]}) that do not come off ({said})"
        raise ModelError(found, "a model without wrappers", ADVICE.get(worn[0], "")) from None
    return unwrapped(clone) if any(map(_holds_its_layer, worn)) else clone


def _holds_its_layer(kind: str) -> bool:
    """Whether a wrapper leaves the weights of its layer as they are."""
    return kind == NORMALIZED or kind.startswith("Quantize")


def _taken_out(model: Model) -> Model:
    """Returns a flat model of the layers inside the wrappers of quantization-aware training and spectral normalization."""
    operations = Operations(model)
    inputs = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)
        for tensor, name in zip(model.inputs, model.input_names)
    ]
    tensors: dict[str, Any] = dict(zip(operations.inputs, inputs))
    clones: dict[str, Layer] = {}
    for operation in operations:
        if type(operation.layer).__name__ == "QuantizeLayer":
            tensors[operation.outputs[0]] = tensors[operation.inputs[0]]
            continue
        new = operation.path not in clones
        if new:
            clones[operation.path] = _inner_clone(operation)
        tensors.update(zip(operation.outputs, operation.call(tensors, clones[operation.path])))
        if new:
            _fill(operation.layer, clones[operation.path])
    return keras.Model(inputs, [tensors[key] for key in operations.outputs], name=model.name)


def _inner_clone(operation: Operation) -> Layer:
    layer = getattr(operation.layer, "layer", operation.layer)
    config = layer.get_config()
    if "activation" in config:
        plain = getattr(layer.activation, "activation", layer.activation)  # in the toolkit's own
        config["activation"] = None if type(plain).__name__ == "NoOpActivation" else plain
    if layer is not operation.layer:
        named = operation.layer if type(operation.layer).__name__ == NORMALIZED else layer
        config["name"] = operation.path.rpartition("/")[0] + named.name
    return type(layer).from_config(config)


def _fill(layer: Layer, clone: Layer) -> None:
    values = {_last_name(weight): weight for weight in layer.weights}
    for weight in clone.weights:
        weight.assign(values[_last_name(weight)])


def _last_name(weight: Any) -> str:
    return str(weight.name).split("/")[-1].split(":")[0]
