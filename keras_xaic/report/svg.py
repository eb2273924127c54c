"""Matplotlib figures as inline SVG whose colours follow the page, light or dark."""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

from keras_xaic.relevance.heat import blank_figure

# Colours that figures are drawn with -> CSS variables of the page.
INK, QUIET, LINE = "#010101", "#020202", "#030303"
RELEVANCE, BYTES, GOOD, FOR, AGAINST = "#040404", "#050505", "#060606", "#070707", "#080808"
_VARIABLES = {
    INK: "ink",
    QUIET: "quiet",
    LINE: "line",
    RELEVANCE: "relevance",
    BYTES: "bytes",
    GOOD: "good",
    FOR: "for",
    AGAINST: "against",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "text.parse_math": False,  # a name with two $ is no formula
    "font.size": 12.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


def drawing(width: float, height: float) -> Any:
    """Returns an empty figure, to be drawn on within `style`; sizes in inches of 72 CSS pixels."""
    return blank_figure((width, height), facecolor="none")


def style() -> Any:
    """Returns the context in which figures for the page are drawn."""
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def as_svg(figure: Any, description: str, salt: str) -> str:
    """Returns a figure as an ``<svg>`` element for a page.

    Args:
        figure: Drawn with the colours of this module.
        description: What it shows, for those who do not see it.
        salt: Makes the identifiers inside unlike those of other figures on the page.
    """
    import matplotlib

    target = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    markup = target.getvalue()
    markup = markup[markup.index("<svg") :]
    markup = re.sub(r"<metadata>.*?</metadata>", "", markup, flags=re.S)
    markup = re.sub(r"<!--.*?-->", "", markup, flags=re.S)
    markup = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", markup).replace("xlink:href", "href")
    markup = re.sub(
        r'\sid="(?:figure|axes|patch|line2d|text|matplotlib\.axis|legend|xtick|ytick|\w+Collection)_\d+"', "", markup
    )
    markup = re.sub(r"font: (\d+(?:\.\d+)?)px [^;\"]*", r"font-size: \1px", markup)
    for colour, name in _VARIABLES.items():
        markup = markup.replace(colour, f"var(--{name})")
    width = re.search(r'width="([\d.]+)pt"', markup)
    markup = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", markup, count=2)
    limit = f' style="max-width:{float(width.group(1)):.0f}px"' if width else ""
    return markup.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"{limit}', 1).strip()
