"""Inputs and their relevance as pixels and lines: what pictures and the report's page share."""

from __future__ import annotations

import functools
import io
from typing import Any, Optional

import numpy as np

FOR, AGAINST = (196, 38, 46), (32, 90, 182)
"""Colours of relevance for and against the target; told apart by people who do not see red and green differently, too."""
_IMAGE_COLUMNS = 8  # a (rows, columns) input with more columns than this is drawn as an image, else as that many lines


def kind_of(sample: np.ndarray) -> str:
    """Returns how an input is drawn (see `as_drawn`): ``image``, ``lines`` (time, channels) or ``bars``."""
    shape = sample.shape
    if sample.ndim == 3 or (sample.ndim == 2 and shape[0] > 1 and shape[1] > _IMAGE_COLUMNS):
        return "image"
    return "lines" if sample.ndim == 2 and shape[0] > 1 else "bars"


def as_drawn(values: np.ndarray) -> np.ndarray:
    """Returns an input, or its relevance, as it is drawn: an image of one row or column is a sequence, (time, channels).

    In float64, in which sums and differences of what float32 holds do not overflow.
    """
    is_line = values.ndim == 3 and min(values.shape[:2]) == 1
    return np.asarray(values.reshape(-1, values.shape[-1]) if is_line else values, np.float64)


def heat_limit(heat: np.ndarray) -> float:
    """Returns the colour limit: the 99.5th percentile, so that one pixel does not leave the rest pale."""
    limit = float(np.percentile(np.abs(heat), 99.5))
    return limit if limit > 0 else 1.0


def input_image(sample: np.ndarray) -> np.ndarray:
    """Returns an image input as (height, width, 3) uint8, stretched to the full range; gray unless it has three channels."""
    pixels = sample if sample.ndim == 3 else sample[..., None]
    low, high = float(pixels.min()), float(pixels.max())
    shown = (pixels - low) / (high - low if high > low else 1.0)
    if pixels.shape[-1] != 3:
        shown = np.repeat(shown.mean(-1, keepdims=True), 3, axis=-1)
    return np.asarray(np.round(shown * 255), np.uint8)


def heat_image(sample: np.ndarray, relevance: np.ndarray, limit: Optional[float] = None) -> np.ndarray:
    """Returns relevance as colour over a pale gray input, (height, width, 3) uint8: red for, blue against the target.

    Full colour is that of `limit`; None: of `heat_limit`.
    """
    heat = relevance.sum(-1) if relevance.ndim == 3 else relevance
    strength = np.clip(np.abs(heat) / (limit or heat_limit(heat)), 0, 1)[..., None] ** 0.7  # so that weak relevance is seen
    ground = 176 + 72 * (input_image(sample).mean(-1, keepdims=True) / 255)
    colour = np.where(heat[..., None] > 0, FOR, AGAINST)
    return np.asarray(np.round(ground * (1 - strength) + colour * strength), np.uint8)


def blank_figure(size: tuple[float, float], **options: Any) -> Any:
    """Returns an empty matplotlib figure with a canvas of its own: no display, nothing global; notebooks show it.

    Args:
        size: Width and height in inches.
        **options: As for `matplotlib.figure.Figure`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=size, layout="constrained", **options)
    FigureCanvasAgg(figure)
    figure._repr_png_ = functools.partial(_png, figure)  # else only where pyplot was imported
    return figure


def _png(figure: Any) -> bytes:
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=120)
    return target.getvalue()
