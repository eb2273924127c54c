from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from keras_xaic.errors import ExportError
from keras_xaic.grids import QuantizedKernel
from keras_xaic.report import Evidence, Found, Front, LayerFacts, Report, rebuild_html, render_html, save_front, write_html
from keras_xaic.report.front_page import render_front
from keras_xaic.report.histograms import histogram_svg

VOID = {"meta", "br", "link", "img", "input"}
SUFFIXES = {"kB": 1e3, "MB": 1e6, "B": 1.0, "%": 0.01, "pp": 1.0, "us": 1e-3, "ms": 1.0, "s": 1e3, "": 1.0}


class Page(HTMLParser):
    """Fails on tags that are not closed in order; collects text, figures, and digits in tables that are no figures."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.figures: list[tuple[str, str, str]] = []  # (pointer, value, text)
        self.loose: list[str] = []
        self.images: list[dict] = []
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        assert "id" not in given or f"#{given['id']}" in self.rawdata, "an identifier that nothing refers to"
        if tag == "img":
            self.images.append(given)
        if tag not in VOID:
            self.open.append((tag, given))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tags = [tag for tag, _ in self.open]
        if not tags or tags[-1] == "style":
            return
        self.text.append(data)
        if tags[-1] == "data":
            given = self.open[-1][1]
            self.figures.append((given["data-json"], given["value"], data))
        elif ("td" in tags or "dl" in tags) and re.search(r"\d", data):
            self.loose.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def entry(facts, pointer: str):
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        facts = facts[int(part)] if isinstance(facts, list) else facts[part]
    return facts


def check_figures(page: Page, report: Report) -> None:
    """Every figure equals its entry of report.json, and what is read of it equals it to the digits that are shown."""
    facts = json.loads(report.to_json())
    for pointer, value, text in page.figures:
        expected = entry(facts, pointer)
        if isinstance(expected, str):
            assert value == text == expected
            continue
        assert json.loads(value) == expected
        digits, suffix = re.fullmatch(r"(-?[\d,.]+(?:e[+-]?\d+)?) ?(\D*)", text).groups()
        if report.metric.name == "mse" and suffix == "%":
            suffix = ""
        shown = digits.replace(",", "")
        mantissa = shown.partition("e")[0]
        last = 10.0 ** -len(mantissa.partition(".")[2]) if "e" not in shown else 10 ** float(shown.partition("e")[2]) / 100
        significant = abs(expected) * 0.005  # "%.3g"
        assert float(shown) * SUFFIXES[suffix] == pytest.approx(expected, abs=max(0.501 * last * SUFFIXES[suffix], significant))


def test_every_figure_on_the_page_is_an_entry_of_report_json(report, evidence):
    page = Page(render_html(report, evidence))
    check_figures(page, report)
    assert page.loose == []
    pointers = {pointer for pointer, _, _ in page.figures}
    assert {
        "/compressed/flash_bytes", "/original/edge_metric", "/baselines/int8/drop_pp",
        "/interpreters/tflite-runtime/metric", "/judge/interpreter",
        "/layers/0/filters_kept", "/layers/1/bits", "/classes/1/confused_with/0/samples", "/explanations/shown/0/similarity",
        "/compressed/latency_ms/tflite-runtime/median", "/compressed/explanation_similarity", "/versions/numpy", "/seed",
    } <= pointers  # fmt: skip


def test_the_check_sees_a_wrong_figure(report):
    markup = render_html(report).replace(">61.2 kB<", ">60.2 kB<")
    with pytest.raises(AssertionError):
        check_figures(Page(markup), report)
    with pytest.raises(AssertionError):
        check_figures(Page(render_html(report).replace('value="61200"', 'value="61201"')), report)


def test_the_page_shows_what_was_measured(report):
    text = Page(render_html(report)).words
    for figure in ("61.2 kB", "83.88 %", "84.29 %", "0.61 pp", "40.0 kB", "391 us", "numpy 1.26.4", "attribute 3.2"):
        assert figure in text
    assert "Baseline magnitude is 1.4 points worse" in text
    assert "tflm refused <model>" in text  # as text, not as markup


def test_nothing_is_loaded_from_anywhere(report, evidence):
    markup = render_html(report, evidence)
    assert not re.search(r"https?://|<script .|src=.[^d]|<link|@import|url\((?!#)|fetch\(|import\(", markup)
    assert all(image["src"].startswith("data:image/png;base64,") for image in Page(markup).images)
    assert "prefers-color-scheme: dark" in markup
    assert len(markup.encode()) < 3_000_000


def test_names_cannot_become_markup(changed):
    report = changed(model={"name": "<img onerror=x>"}, layers=[{"name": "<b>", "relevance": 1.0, "flash_bytes": 5}])
    markup = render_html(report)
    assert "<img" not in markup
    assert "<b>&" not in markup
    assert "<img onerror=x>" in Page(markup).words


def test_bars_are_as_long_as_the_shares(changed):
    layers = [
        LayerFacts(name="a", relevance=0.75, flash_bytes=100, bits=8, filters=8, filters_kept=2),
        LayerFacts(name="b", relevance=0.25, flash_bytes=300, bits=2, sparsity=0.25),
        LayerFacts(name="c", relevance=None, flash_bytes=0),
    ]
    markup = render_html(Report(layers=layers))
    bars = re.findall(r'class="meter (\w+)"[^>]*>.*?style="width:([\d.]+)%"', markup)
    lengths = {name: [float(width) for found, width in bars if found == name] for name, _ in bars}
    assert lengths["relevance"] == pytest.approx([100, 33.3, 0], abs=0.1)
    assert lengths["flash_bytes"] == pytest.approx([33.3, 100, 0], abs=0.1)
    assert lengths["bits"] == [100, 25, 0]
    assert lengths["filters_kept"] == [25, 0, 0]
    assert lengths["sparsity"] == [0, 25, 0]


def test_bars_of_a_grid_are_as_high_as_the_root_of_the_counts(report, evidence):
    markup = render_html(report, evidence)
    path = re.search(r'class="bars" d="([^"]*)"', markup).group(1)
    heights = [float(h) for h in re.findall(r"v-([\d.]+)", path)]
    full = float(re.search(r'class="zero"[^>]*height="([\d.]+)"', markup).group(1))
    assert heights == pytest.approx(
        [full * (n / 8) ** 0.5 for n in (1, 2, 3, 5, 2)], abs=0.1
    )  # 8 zeros; none on the last level


def test_a_level_in_use_is_marked_however_many_there_could_be():
    few = QuantizedKernel(np.array([-120, -7, 0, 0, 55], np.int8), np.ones(1, np.float32), 8)
    drawn = histogram_svg(few, "head")
    bars, ticks = (
        re.search(r'class="bars" d="([^"]*)"', drawn).group(1),
        re.search(r'class="ticks" d="([^"]*)"', drawn).group(1),
    )
    places = [float(x) + 1.2 for x in re.findall(r"M([\d.]+) ", bars)]
    expected = [(level + 127.5) * 240 / 255 for level in (-120, -7, 55)]
    assert places == pytest.approx(expected, abs=0.02)
    assert [float(x) for x in re.findall(r"M([\d.]+) [\d.]+v4", ticks)] == pytest.approx(sorted([*expected, 120]), abs=0.02)


def test_pictures_say_what_they_show_and_keep_their_pixels(report, evidence):
    page = Page(render_html(report, evidence))
    assert len(page.images) == 5 + 4  # the newly wrong sample also shows what speaks for the wrong answer
    assert all(image["alt"] for image in page.images)
    assert len({image["alt"] for image in page.images}) == 9
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(page.images[0]["src"].partition(",")[2]))))
    sample = evidence.explanations.inputs[0]
    expected = (sample - sample.min()) / (sample.max() - sample.min()) * 255
    assert np.abs(shown - expected).max() <= 0.5


def test_heat_is_red_where_relevance_speaks_for_the_class(report, evidence):
    page = Page(render_html(report, evidence))
    heat = evidence.explanations.original[0].sum(-1)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(page.images[1]["src"].partition(",")[2])))).astype(int)
    strong = np.abs(heat) > 0.3 * np.abs(heat).max()
    assert ((shown[..., 0] > shown[..., 2]) == (heat > 0))[strong].all()


def test_what_changed_is_red_where_the_compressed_model_lets_more_speak_for_the_class(report, evidence):
    page = Page(render_html(report, evidence))
    before, after = (maps[0].sum(-1) for maps in (evidence.explanations.original, evidence.explanations.compressed))
    change = after / np.percentile(np.abs(after), 99.5) - before / np.percentile(np.abs(before), 99.5)
    place = next(i for i, image in enumerate(page.images) if "what changed" in image["alt"])
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(page.images[place]["src"].partition(",")[2])))).astype(int)
    strong = np.abs(change) > 0.3
    assert ((shown[..., 0] > shown[..., 2]) == (change > 0))[strong].all()
    same = replace(evidence.explanations, compressed=2 * evidence.explanations.original)
    pale = Page(render_html(report, replace(evidence, explanations=same))).images[place]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(pale["src"].partition(",")[2])))).astype(int)
    assert np.ptp(pixels, axis=-1).max() <= 1, "the same reasons have no colour, however large they are"


@pytest.mark.parametrize("shape", [(40, 3), (12,), (28, 28), (200, 150, 1), (40, 1, 3), (1, 40, 12), (1, 1, 5)])
def test_other_inputs_are_drawn_too(report, evidence_of, shape):
    page = Page(render_html(report, evidence_of(*shape)))
    assert "Right before, wrong now" in page.words
    assert all(int(image["width"]) <= 96 for image in page.images)


def test_a_name_is_no_formula():
    two = {"original": {"tflite_fp32_bytes": 9, "edge_metric": 0.4}, "compressed": {"flash_bytes": 3, "edge_metric": 0.3}}
    assert "cost_$x^$" in render_html(Report(recipe="cost_$x^$", metric={"name": "$_$"}, **two))


def test_the_worst_class_stands_first(report):
    text = Page(render_html(report)).words
    table = text[text.index("Classes, worst first") :]
    assert table.index("76.00 %") < table.index("89.90 %")
    assert "class 7 : 61 ( 32 )" in table


def test_the_front_of_a_search_is_drawn(report, evidence):
    assert "Pareto front" in render_html(report, evidence)
    assert "Pareto front" not in render_html(report)


def test_the_front_of_a_search_shows_short_times_in_microseconds():
    points = [Found(trial=n, values={"latency": 0.00262 * (n + 1), "metric": 0.5 + n / 10}, best=True) for n in range(2)]
    page = render_front(Front(objectives=("latency", "metric"), points=points))
    assert "2.62 us" in page
    assert "latency (us)" in page
    slow = [one.model_copy(update={"values": {**one.values, "latency": 12.5}}) for one in points]
    assert "latency (ms)" in render_front(Front(objectives=("latency", "metric"), points=slow))


def test_sections_without_figures_are_left_out(report, evidence):
    whole = Page(render_html(report, evidence)).words
    text = Page(render_html(Report(layers=[LayerFacts(name="a")]))).words
    for title in ("Classes", "What the model looks at", "Weights on their grids", "Proof"):
        assert title in whole
        assert title not in text


def test_the_same_report_gives_the_same_page(report, evidence):
    assert render_html(report, evidence) == render_html(report, evidence)


def test_it_is_written_into_the_bundle_and_rebuilt_from_its_files(report, evidence, tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"x")
    report.save(tmp_path)
    evidence.explanations.save(tmp_path / "explanations.npz")
    save_front(Front(objectives=("flash", "metric"), points=evidence.front), tmp_path)
    bundle = rebuild_html(tmp_path)
    whole = Evidence(explanations=evidence.explanations, front=evidence.front)
    assert bundle.html.read_text(encoding="utf-8") == render_html(report, whole)
    assert write_html(Report(), tmp_path / "empty.html").is_file()


@pytest.mark.parametrize("slim", [False, True])
def test_the_page_of_a_bundle_that_is_not_to_be_used_says_so_first(report, tmp_path, slim):
    from keras_xaic.report.schema import SlimFacts

    (tmp_path / "model.tflite").write_bytes(b"x")
    (Report(slim=SlimFacts(original_bytes=2, original_gzip_bytes=2)) if slim else report).save(tmp_path)
    bundle = rebuild_html(tmp_path)
    assert "Not verified" not in bundle.html.read_text(encoding="utf-8")
    bundle.mark("tflm disagrees <here>.")
    page = rebuild_html(tmp_path).html.read_text(encoding="utf-8")
    assert page.index("Do not use this bundle as it is. tflm disagrees &lt;here&gt;.") < page.index("Before and after")
    bundle.mark(None)
    assert "Not verified" not in rebuild_html(tmp_path).html.read_text(encoding="utf-8")


def test_a_page_that_is_not_ours_is_not_replaced(report, tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"x")
    report.save(tmp_path)
    (tmp_path / "report.html").write_text("<h1>my thesis</h1>")
    with pytest.raises(ExportError, match=r"report\.html is there and xaic did not write it"):
        rebuild_html(tmp_path)
    assert (tmp_path / "report.html").read_text() == "<h1>my thesis</h1>"
    (tmp_path / "report.html").unlink()
    rebuild_html(rebuild_html(tmp_path).path)


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
@pytest.mark.parametrize(
    ("clicks", "order", "said"),
    [
        (["relevance", "relevance"], "bac", "ascending"),
        (["flash"], "bac", "descending"),
        (["flash", "layer"], "abc", "ascending"),
        (["layer", "layer"], "cba", "descending"),
    ],
)
@pytest.mark.slow
def test_the_layers_are_sorted_by_their_headings(clicks, order, said, changed, tmp_path):
    """In a browser, by what a keyboard reaches: buttons. Layers of which a figure is not known come last."""
    rows = [
        LayerFacts(name="a", relevance=0.75, flash_bytes=9_100, bits=8),
        LayerFacts(name="b", relevance=0.25, flash_bytes=30_000, bits=2),
        LayerFacts(name="c", relevance=None, flash_bytes=0),
    ]
    press = "".join(
        f'[...document.querySelectorAll("thead button")].find(one => one.textContent === "{name}").click();' for name in clicks
    )
    markup = render_html(changed(layers=rows)).replace("</body>", f"<script>{press}</script></body>")
    (tmp_path / "page.html").write_text(markup, encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'home'}", "--dump-dom"]
    shown = subprocess.run(
        [*command, str(tmp_path / "page.html")], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    body = shown[shown.index('class="sticky sortable"') :]
    assert "".join(re.findall(r'<th scope="row"[^>]*>(\w)<', body)) == order
    assert re.findall(r'<th scope="col" aria-sort="(\w+)"><button type="button">(\w+)<', body) == [(said, clicks[-1])]


def test_a_single_layer_needs_no_script(changed):
    assert "<script" not in render_html(changed(layers=[LayerFacts(name="a")]))
