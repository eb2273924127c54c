"""What both models look at, as pictures inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from html import escape
from typing import Optional

import numpy as np
from PIL import Image

from keras_xaic.relevance import Explanations
from keras_xaic.relevance.heat import as_drawn, heat_image, heat_limit, input_image, kind_of
from keras_xaic.report import svg
from keras_xaic.report.schema import ShownFacts

LARGEST = 96
"""Longer side of a picture in pixels; larger inputs are made smaller, or the page would be megabytes."""
_POINTS = 300
CHANGED = "what changed"
"""Caption of the picture of both models' difference."""


@dataclass(frozen=True)
class Panel:
    """One picture: what stands below it, and its markup."""

    caption: str
    markup: str


def panels(explanations: Explanations, position: int, shown: ShownFacts) -> list[Panel]:
    """Returns the pictures of one sample: the input, and its relevance in the original and in the compressed model.

    The next shows what changed: the compressed model's relevance less the original's, each relative to its largest. A newly
    wrong output gets one more: what speaks for that output in the compressed model.
    """
    drawn = (explanations.inputs, explanations.original, explanations.compressed, explanations.answered)
    sample, original, compressed, answered = (as_drawn(one[position]) for one in drawn)
    maps = {"original": original, "compressed": compressed}
    maps[CHANGED] = _change(sample, *maps.values())
    if shown.answer is not None and shown.truth is not None and shown.answer != shown.truth:
        maps["for its own class"] = answered
    name = f"sample {shown.sample}"
    if kind_of(sample) == "image":
        pictures = [Panel("input", _png(input_image(sample), f"input of {name}"))]
        return pictures + [
            Panel(caption, _png(heat_image(sample, relevance, _limit(caption)), f"relevance of {name}, {caption}"))
            for caption, relevance in maps.items()
        ]
    return [
        Panel(caption, _curve(sample, relevance, f"{name}, {caption}", _limit(caption))) for caption, relevance in maps.items()
    ]


def _change(sample: np.ndarray, original: np.ndarray, compressed: np.ndarray) -> np.ndarray:
    """Returns how much more a position matters in the compressed model, of its largest relevance in each."""
    is_wide = original.ndim == 3 or kind_of(sample) == "lines"
    before, after = (one.sum(-1) if is_wide else one for one in (original, compressed))
    return np.asarray(after / heat_limit(after) - before / heat_limit(before))


def _limit(caption: str) -> Optional[float]:
    """Returns what is drawn in full colour: a change of all there is; relevance relative to its largest."""
    return 1.0 if caption == CHANGED else None


def _png(pixels: np.ndarray, description: str) -> str:
    image = Image.fromarray(pixels)
    longer = max(image.size)
    if longer > LARGEST:
        small = [max(1, side * LARGEST // longer) for side in image.size]
        image = image.resize((small[0], small[1]), Image.Resampling.BOX)
    target = io.BytesIO()
    image.save(target, "PNG", optimize=True)
    content = base64.b64encode(target.getvalue()).decode()
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img {size} alt="{escape(description)}" src="data:image/png;base64,{content}">'


def _curve(sample: np.ndarray, relevance: np.ndarray, description: str, limit: Optional[float]) -> str:
    """The input as lines over its relevance, step by step; inputs without an order as bars of relevance alone."""
    is_sequence = kind_of(sample) == "lines"
    lines = sample if is_sequence else sample.reshape(-1, 1)
    total = relevance.reshape(len(lines), -1).sum(-1)
    thin = max(1, -(-len(lines) // _POINTS))
    if thin > 1:
        whole = len(total) // thin * thin
        total = total[:whole].reshape(-1, thin).mean(-1)
        lines = lines[:whole:thin]
    total = np.clip(total / (limit or heat_limit(total)), -1, 1)
    steps = np.arange(len(total))
    with svg.style():
        figure = svg.drawing(3.4, 1.5)
        axes = figure.add_subplot()
        axes.fill_between(steps, np.maximum(total, 0), step="mid", color=svg.FOR, linewidth=0)
        axes.fill_between(steps, np.minimum(total, 0), step="mid", color=svg.AGAINST, linewidth=0)
        axes.axhline(0, color=svg.LINE, linewidth=0.8)
        if is_sequence:
            height = float(np.abs(lines - lines.mean()).max()) or 1.0
            axes.plot(steps, (lines - lines.mean()) / height, color=svg.INK, linewidth=0.8, alpha=0.75)
        axes.set_ylim(-1.08, 1.08)
        axes.set_xlim(-0.5, len(steps) - 0.5)
        axes.set_axis_off()
    return svg.as_svg(figure, description, description)
