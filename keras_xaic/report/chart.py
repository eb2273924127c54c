"""Pictures of the report as inline SVG, without scripts and without the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Optional

from keras_xaic.report.schema import LayerFacts

ROW, BAR, LABELS, WIDTH, VALUES = 34, 11, 170, 430, 90


@dataclass(frozen=True)
class Series:
    """One value per layer: its name, its CSS class, and the values (None where there is none)."""

    name: str
    style: str
    values: Sequence[Optional[float]]

    def shares(self) -> list[Optional[float]]:
        """Returns the values divided by their sum."""
        total = sum(value for value in self.values if value is not None and value > 0)
        return [None if value is None or total == 0 else max(0.0, value) / total for value in self.values]


def layer_chart(layers: Sequence[LayerFacts]) -> str:
    """Returns two bars per layer: its share of the relevance and its share of the bytes.

    Returns:
        An ``<svg>`` element, or nothing where neither is known.
    """
    series = [
        Series("share of relevance", "relevance", [layer.relevance for layer in layers]),
        Series("share of bytes", "bytes", [layer.flash_bytes for layer in layers]),
    ]
    series = [one for one in series if any(value is not None for value in one.shares())]
    if not layers or not series:
        return ""
    top = 26
    height = top + ROW * len(layers)
    longest = max((value for one in series for value in one.shares() if value is not None), default=0.0) or 1.0
    parts = [
        f'<svg class="chart" viewBox="0 0 {LABELS + WIDTH + VALUES} {height}" role="img" aria-label="'
        f'{escape(" and ".join(one.name for one in series))} of each layer">'
    ]
    for k, one in enumerate(series):
        x = LABELS + 160 * k
        parts.append(f'<rect class="{one.style}" x="{x}" y="4" width="11" height="11" rx="2"/>')
        parts.append(f'<text x="{x + 17}" y="14">{escape(one.name)}</text>')
    for i, layer in enumerate(layers):
        y = top + ROW * i
        name = layer.name if len(layer.name) <= 24 else layer.name[:23] + "…"
        parts.append(f'<text class="label" x="{LABELS - 10}" y="{y + ROW / 2 + 2:g}">{escape(name)}</text>')
        for k, one in enumerate(series):
            value = one.shares()[i]
            if value is not None:
                parts.append(_bar(one, value, longest, y + 3 + k * (BAR + 2), layer.name))
    return "".join([*parts, "</svg>"])


def _bar(series: Series, value: float, longest: float, y: float, layer: str) -> str:
    width = max(1.0, WIDTH * value / longest)
    return (
        f"<g><title>{escape(layer)}: {100 * value:.1f} % ({escape(series.name)})</title>"
        f'<rect class="{series.style}" x="{LABELS}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>'
        f'<text class="value" x="{LABELS + width + 6:.1f}" y="{y + BAR - 1}">{100 * value:.1f} %</text></g>'
    )
