"""What a page shows beside report.json: arrays from the other files of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from keras_xaic.bundle import Bundle
from keras_xaic.grids import QuantizedKernel, load_kernels
from keras_xaic.json_files import read_json
from keras_xaic.relevance import Explanations


@dataclass(frozen=True)
class Evidence:
    """What is drawn; every part may be missing.

    Attributes:
        kernels: Kernel key -> its integers and steps (grids.npz).
        explanations: What both models look at (explanations.npz).
        front: The models that a search found (pareto.json): ``flash_bytes``, ``held_back_accuracy``, ``best``.
    """

    kernels: Mapping[str, QuantizedKernel] = field(default_factory=dict)
    explanations: Optional[Explanations] = None
    front: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def read(cls, bundle: Bundle) -> Evidence:
        """Reads what the bundle has; pareto.json may also lie beside or above it, as in the directory of a search.

        Raises:
            DataError: If a file is there and unusable.
        """
        places = (bundle.path, bundle.path.absolute().parent, bundle.path.absolute().parent.parent)
        found = [place / "pareto.json" for place in places if (place / "pareto.json").is_file()]
        return cls(
            kernels=load_kernels(bundle.grids) if bundle.grids.is_file() else {},
            explanations=Explanations.load(bundle.explanations) if bundle.explanations.is_file() else None,
            front=read_json(found[0]) if found else (),
        )
