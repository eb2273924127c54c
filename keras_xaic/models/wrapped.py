"""Models that still wear wrappers for training: of pruning, clustering, training on grids, spectral normalization."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Optional

from keras_xaic._keras import Layer, Model, keras
from keras_xaic.errors import ModelError, XaicError, first_line
from keras_xaic.files import machine_fault
from keras_xaic.models.losses import carry_losses
from keras_xaic.models.operations import Operation
from keras_xaic.models.rebuilding import rebuilt, with_layers

_AS_H5 = "save it as .h5, or give the model itself, loaded within tfmot.quantization.keras.quantize_scope()"
ADVICE = {
    "PruneLowMagnitude": "give what tfmot.sparsity.keras.strip_pruning(model) returns",
    "ClusterWeights": "give what tfmot.clustering.keras.strip_clustering(model) returns",
    "ClusterWeightsRNN": "give what tfmot.clustering.keras.strip_clustering(model) returns",
    "ClusterWeightsMHA": "give what tfmot.clustering.keras.strip_clustering(model) returns",
    "QuantizeWrapper": _AS_H5,
    "QuantizeWrapperV2": _AS_H5,
    "QuantizeLayer": _AS_H5,
}
"""The toolkit's wrappers -> what a user can do with a model whose wrappers do not come off."""
NORMALIZED = "SpectralNormalization"
"""A wrapper of Keras that changes the kernel of its layer in training alone."""
if hasattr(keras.layers, NORMALIZED):  # Keras 2 does not find its own
    keras.utils.get_custom_objects().setdefault(NORMALIZED, getattr(keras.layers, NORMALIZED))


@contextlib.contextmanager
def wrappers_known(config: object, source: str) -> Iterator[None]:
    """Has Keras know the toolkit's wrappers while a file is checked and loaded, if its configuration has any.

    Args:
        config: The configuration as read from JSON.
        source: The file, for the error message.

    Raises:
        ModelError: If they cannot be rebuilt, with the function of the toolkit that takes them off.
    """
    kind = _wrapper_in(config)
    if kind is None:
        yield
        return
    try:
        with _toolkit_scopes():
            yield
    except XaicError:
        raise
    except Exception as error:  # whatever the toolkit stumbles upon; Keras itself does not read its .keras of such models
        found = f"{source} has wrappers for training ({kind}) that Keras does not rebuild ({first_line(error)})"
        raise machine_fault(error) or ModelError(found, "a model without wrappers", ADVICE[kind]) from error


def _wrapper_in(config: object) -> Optional[str]:
    """Returns the class of a wrapper of the toolkit, if a configuration has any."""
    if isinstance(config, Mapping):
        kind = config.get("class_name")
        if isinstance(kind, str) and kind in ADVICE:
            return kind
        config = list(config.values())
    return next((kind for one in config if (kind := _wrapper_in(one))), None) if isinstance(config, list) else None


@contextlib.contextmanager
def _toolkit_scopes() -> Iterator[None]:
    import tensorflow_model_optimization as tfmot

    sparsity, clustering, quantization = tfmot.sparsity.keras, tfmot.clustering.keras, tfmot.quantization.keras
    with sparsity.prune_scope(), clustering.cluster_scope(), quantization.quantize_scope():
        yield


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
            return with_layers(model, _inside)
        import tensorflow_model_optimization as tfmot

        with _toolkit_scopes():
            clone = keras.models.clone_model(model)  # the toolkit's own functions change the model that they are given
            for ours, theirs in zip(clone.variables, model.variables):
                ours.assign(theirs)
            clone = tfmot.clustering.keras.strip_clustering(tfmot.sparsity.keras.strip_pruning(clone))
    except Exception as error:  # whatever schedules and configurations of users lead to
        said = (str(error) or type(error).__name__).splitlines()[0]
        found = f"model {model.name!r} has wrappers for training ({worn[0]}) that do not come off ({said})"
        raise ModelError(found, "a model without wrappers", ADVICE.get(worn[0], "")) from None
    carry_losses(model, clone)
    return unwrapped(clone) if any(map(_holds_its_layer, worn)) else clone


def _holds_its_layer(kind: str) -> bool:
    """Whether a wrapper leaves the weights of its layer as they are, so that taking it out is all there is to do."""
    return kind == NORMALIZED or kind.startswith("Quantize")


def _inside(operation: Operation) -> Optional[Layer]:
    """Returns a new layer like the one inside a wrapper, named by its path; None for what only quantizes a tensor."""
    layer, kind = operation.layer, type(operation.layer).__name__
    if kind == "QuantizeLayer":
        return None
    inside = layer.layer if kind in ADVICE or kind == NORMALIZED else layer  # other layers have a layer, too: Bidirectional
    config = inside.get_config()
    if "activation" in config:
        plain = getattr(inside.activation, "activation", inside.activation)  # in the toolkit's own
        config["activation"] = None if type(plain).__name__ == "NoOpActivation" else plain
    around = operation.path.rpartition("/")[0]
    name = inside.name if kind in ADVICE else layer.name  # the toolkit names its wrappers "quant_NAME"
    return rebuilt(inside, {**config, "name": f"{around}/{name}" if around else name})
