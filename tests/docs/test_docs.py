"""The documentation holds together: links lead somewhere, recipes get advice, generated pages can be made."""

from __future__ import annotations

import pathlib
import re

import pytest

from keras_xaic.recipes import RECIPES
from keras_xaic.report import schema

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
names = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_recipe_gets_advice():
    text = (ROOT / "docs" / "choose.md").read_text(encoding="utf-8")
    missing = [name for name in RECIPES if f"`{name}`" not in text]
    assert missing == []


def test_the_recipe_reference_comes_from_the_registry():
    hooks = pytest.importorskip("tools.docs_hooks", reason="the documentation's extra is not installed")
    page = hooks.on_page_markdown((ROOT / "docs" / "recipes.md").read_text(encoding="utf-8"))
    for recipe in RECIPES.values():
        assert f"## `{recipe.name}`" in page
        assert recipe.source in page
    assert '"name": "taylor-bits"' in page
    assert "| `float_layers` | `[]` | Name patterns of layers that are not quantized. |" in page
    assert "| conv | `int4` | `float32` | per channel | no | " in hooks.on_page_markdown("<!-- generated: storages -->")
    fields = hooks.on_page_markdown("<!-- generated: report.json -->")
    assert "| `explanation_similarity` | float or null |" in fields
    assert "| `schema` | integer |" in fields
    for part in _parts(schema.Report):
        assert f"`\n\n{part.__doc__.splitlines()[0]}\n" in fields, part


def _parts(part):
    """The models within a model of report.json, and itself."""
    named = re.findall(r"\w+Facts\b", " ".join(str(field.annotation) for field in part.model_fields.values()))
    return {part}.union(*(_parts(getattr(schema, name)) for name in named))


def test_every_section_of_a_report_is_explained():
    page = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    template = ROOT / "keras_xaic" / "report" / "templates" / "report.html.j2"
    sections = re.findall(r"<h2>([^<]+)</h2>", template.read_text(encoding="utf-8"))
    assert len(sections) >= 8
    assert [section for section in sections if f"**{section}.**" not in page] == []


def test_every_file_of_a_bundle_is_explained():
    """The names are those of `Bundle`, and of what travels to the device."""
    page = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    code = (ROOT / "keras_xaic" / "bundle.py").read_text(encoding="utf-8")
    names = set(re.findall(r'self\.path / "([\w.]+)"', code))
    assert len(names) > 8
    assert [name for name in sorted(names) if not re.search(rf"`{re.escape(name)}/?`", page)] == []


def test_the_tables_beside_the_rows_are_those_of_the_rows():
    hooks = pytest.importorskip("tools.docs_hooks", reason="the documentation's extra is not installed")
    assert hooks.compare() in (ROOT / "bench" / "results" / "compare.md").read_text(encoding="utf-8")


def test_formulas_become_mathml():
    hooks = pytest.importorskip("tools.docs_hooks", reason="the documentation's extra is not installed")
    shown = hooks.on_page_content(r'<p><span class="arithmatex">\(a &lt; \frac{b}{c}\)</span></p>')
    assert "<mfrac>" in shown
    assert "arithmatex" not in shown
