"""What `auto` would be without explainable AI: the control that says what relevance adds."""

from __future__ import annotations

from dataclasses import replace

from keras_xaic.recipes.auto import AUTO

AUTO_MAGNITUDE = replace(
    AUTO,
    name="auto-magnitude",
    summary="As auto, with the magnitude of weights in place of relevance: as a baseline it says what relevance adds.",
    rule="magnitude",
    score="magnitude",
    sensitivity="weight_error",
    control=True,
)
