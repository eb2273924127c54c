"""What compression hands to export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from keras_xaic.bundle import Bundle
from keras_xaic.grids import QuantizedKernel, load_kernels
from keras_xaic.models.loading import load_model
from keras_xaic.planning import Plan
from keras_xaic.training import Epoch


@dataclass(frozen=True)
class CompressedModel:
    """A model that lives within its plan.

    Attributes:
        model: The compressed Keras model: flat, BatchNorm folded, its planned kernels exactly on their grids.
        kernels: Kernel key -> the integers and steps that export writes.
        plan: The plan it was made by.
        history: Training stage -> what each epoch measured.
        trainable: The same model as it was trained: BatchNorm not folded, weights as they are before they are rounded to their
            grids, zero where masks make them so. From here training can go on. None where it was read from a bundle.
    """

    model: Any
    kernels: Mapping[str, QuantizedKernel]
    plan: Plan
    history: Mapping[str, list[Epoch]]
    trainable: Optional[Any] = None

    @property
    def storages(self) -> dict[str, str]:
        """Kernel key -> how its integers lie in the file."""
        return {layer.key: layer.storage for layer in self.plan.layers}

    @property
    def sparsity(self) -> float:
        """Fraction of zero weights over all kernels."""
        total = sum(kernel.integers.size for kernel in self.kernels.values())
        return sum(float(np.sum(kernel.integers == 0)) for kernel in self.kernels.values()) / max(1, total)

    @classmethod
    def load(cls, bundle: Bundle) -> CompressedModel:
        """Reads the compressed model back from a bundle.

        Raises:
            DataError, ModelError, PlanError: If a file of the bundle is missing or unusable.
        """
        model = load_model(bundle.keras_model)
        kernels = load_kernels(bundle.grids) if bundle.grids.is_file() else {}
        plan = Plan.load(bundle.plan) if bundle.plan.is_file() else Plan()
        return cls(model, kernels, plan, {})
