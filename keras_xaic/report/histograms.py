"""How the weights of a layer use their grid, as small inline SVG pictures."""

from __future__ import annotations

from html import escape

import numpy as np

from keras_xaic.grids import QuantizedKernel

WIDTH, HEIGHT, GROUND = 240.0, 84.0, 8.0
_MARKED = 64  # grids with more levels than this get no mark for each


def histogram_svg(kernel: QuantizedKernel, name: str) -> str:
    """Returns one bar for each level of the grid, as high as the square root of its number of weights; zero stands out.

    The square root keeps rare levels visible beside the many weights near zero. Ticks below mark where levels are.

    Args:
        kernel: The weights on their grid.
        name: Of the layer, for those who do not see the picture.
    """
    counts = kernel.histogram.astype(np.float64)
    levels, zero = len(counts), len(counts) // 2
    step = WIDTH / levels
    heights = np.sqrt(counts / max(1.0, counts.max())) * (HEIGHT - GROUND - 2)
    marked = np.arange(levels) if levels <= _MARKED else np.flatnonzero(counts)
    is_sparse = levels > _MARKED >= len(marked)  # a codebook: few values, anywhere
    bar = 2.4 if is_sparse else max(step * 0.72, step - 6)
    path = "".join(
        f"M{step * k + (step - bar) / 2:.2f} {HEIGHT - GROUND:g}v{-height:.1f}h{bar:.2f}v{height:.1f}z"
        for k, height in enumerate(heights)
        if k != zero and height > 0
    )
    middle = (
        f'<rect class="zero" x="{step * zero + (step - bar) / 2:.2f}" y="{HEIGHT - GROUND - heights[zero]:.1f}" '
        f'width="{max(bar, 1.5):.2f}" height="{heights[zero]:.1f}"/>'
    )
    ticks = "".join(f"M{step * (k + 0.5):.2f} {HEIGHT - GROUND + 2:g}v4" for k in marked) if len(marked) <= _MARKED else ""
    label = escape(f"Weights of {name} on their {kernel.bits}-bit grid")
    return (
        f'<svg class="grid" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f'<path class="bars" d="{path}"/>{middle}<path class="ticks" d="{ticks}M0 {HEIGHT - GROUND:g}h{WIDTH:g}"/></svg>'
    )
