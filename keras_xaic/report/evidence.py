"""What a page shows beside report.json, from the other files of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

from keras_xaic.bundle import Bundle
from keras_xaic.grids import QuantizedKernel, load_kernels
from keras_xaic.relevance import Explanations
from keras_xaic.report.points import FRONT, Found, read_front


@dataclass(frozen=True)
class Evidence:
    """What is drawn; every part may be missing.

    Attributes:
        kernels: Kernel key -> its integers and steps (grids.npz).
        explanations: What both models look at (explanations.npz).
        front: The models that a search found (front.json).
        unverified: Why the bundle is not to be used (UNVERIFIED.txt); None where it may be.
    """

    kernels: Mapping[str, QuantizedKernel] = field(default_factory=dict)
    explanations: Optional[Explanations] = None
    front: Sequence[Found] = ()
    unverified: Optional[str] = None

    @classmethod
    def read(cls, bundle: Bundle) -> Evidence:
        """Reads what the bundle has.

        Raises:
            DataError: If a file is there and unusable.
        """
        front = bundle.path / FRONT
        return cls(
            kernels=load_kernels(bundle.grids) if bundle.grids.is_file() else {},
            explanations=Explanations.load(bundle.explanations) if bundle.explanations.is_file() else None,
            front=read_front(front).points if front.is_file() else (),
            unverified=bundle.why_unverified(),
        )
