from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from keras_xaic.report import LayerFacts, Report, render_html, write_html
from keras_xaic.report.chart import LABELS, WIDTH, layer_chart

VOID = {"meta", "br", "link", "img", "input"}


class Balanced(HTMLParser):
    """Fails on tags that are not closed in order; collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def read(page: str) -> str:
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return " ".join(" ".join(parser.text).split())


def test_the_page_shows_what_was_measured(report):
    text = read(render_html(report))
    for figure in (
        "61.2 kB",
        "83.88 %",
        "84.29 %",
        "0.61 pp",
        "40.0 kB",
        "0.391 ms",
        "numpy 1.26.4",
        "attribute 3.2",
    ):
        assert figure in text
    assert "Baseline magnitude is 1.4 points worse" in text
    assert "tflm refused <model>" in text  # as text, not as markup


def test_nothing_is_loaded_from_anywhere(report):
    page = render_html(report)
    assert not re.search(r"https?://|<script|<link|@import|url\(|src=", page)
    assert "prefers-color-scheme: dark" in page


def test_names_cannot_become_markup(changed):
    report = changed(model={"name": "<img onerror=x>"}, layers=[{"name": "<b>", "relevance": 1.0, "flash_bytes": 5}])
    page = render_html(report)
    assert "<img" not in page
    assert "<b>" not in page
    assert "<img onerror=x>" in read(page)


def test_bars_are_as_long_as_the_shares():
    layers = [
        LayerFacts(name="a", relevance=3.0, flash_bytes=100),
        LayerFacts(name="b", relevance=1.0, flash_bytes=300),
        LayerFacts(name="c", relevance=None, flash_bytes=0),
    ]
    root = ET.fromstring(layer_chart(layers))
    bars = [r for r in root.iter("rect") if float(r.get("x")) == LABELS and r.get("height") == "11" and float(r.get("y")) > 20]
    widths = {(r.get("class"), i): float(r.get("width")) for i, r in enumerate(bars)}
    assert list(widths.values()) == pytest.approx([WIDTH, WIDTH / 3, WIDTH / 3, WIDTH, 1.0], abs=0.1)
    assert [key[0] for key in widths] == ["relevance", "bytes", "relevance", "bytes", "bytes"]


def test_no_chart_without_figures():
    assert layer_chart([]) == ""
    assert layer_chart([LayerFacts(name="a")]) == ""
    assert "<svg" not in render_html(Report(layers=[LayerFacts(name="a")]))


def test_it_is_written_into_the_bundle(report, tmp_path):
    assert write_html(report, tmp_path) == tmp_path / "report.html"
    assert read((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert write_html(Report(), tmp_path / "empty.html").is_file()
