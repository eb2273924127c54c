"""The documentation holds together: links lead somewhere, recipes get advice, generated pages can be made."""

from __future__ import annotations

import ast
import json
import operator
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


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_to_sections(page):
    for target, section in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            text = ((page.parent / target) if target else page).read_text(encoding="utf-8")
            titles = [
                re.sub(r"[^\w\- ]", "", one.lower()).strip().replace(" ", "-") for one in re.findall(r"^#+ (.+)$", text, re.M)
            ]
            assert section in titles, (target, section)


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r": ([\w/-]+\.md)$", text, re.M)
    there = [
        page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "decisions"
    ]
    assert sorted(listed) == sorted(there)


def test_the_table_of_the_readme_is_that_of_the_rows():
    from bench import headline

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert headline.fill(readme) == readme, "python bench/headline.py"
    assert headline.fill(readme, "| other rows |\n") != readme


def test_only_equal_schedules_are_compared():
    from bench import headline

    lines = headline.read()
    assert headline.table(lines).count("\n| ") == len({line.model for line in lines})
    for line in lines:
        if line.method == headline.INT8:
            for row in line.rows:
                row["epochs"] += 1
    assert headline.table(lines).count("\n| ") == 0


def test_what_the_page_on_several_machines_says_of_costs_is_in_the_rows():
    page = (ROOT / "docs" / "several-machines.md").read_text(encoding="utf-8")
    text = (ROOT / "bench" / "results" / "search.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert {row["what"] for row in rows} == {"costs", "front", "ray"}
    for row in rows:
        if row["what"] == "costs":
            assert f" | {row['trials_per_hour']:.0f} | {100 * row['cache_hits']:.0f} % |" in page
        elif row["what"] == "ray":
            said = f"took {row['start_seconds']} s, the first call {row['first_call_seconds']} s and each further one"
            assert f"{said} {1000 * row['call_seconds']:.0f} ms" in " ".join(page.split())
        else:
            share = f"{100 * row['hypervolume_of_auto']:.1f} %"
            assert f" | {row['trials']} | {row['seconds'] / 60:.0f} | {row['points_on_front']} | {share} |" in page


def test_every_option_of_every_command_is_listed():
    hooks = pytest.importorskip("tools.docs_hooks", reason="the documentation's extra is not installed")
    import typer

    from keras_xaic.cli.app import app

    page = hooks.commands()
    for name, command in typer.main.get_command(app).commands.items():
        section = page.partition(f"## `xaic {name}`\n")[2].partition("\n## ")[0]
        assert f"\n    xaic {name}" in section
        for one in command.params:
            assert all(f"`{option}`" in section for option in one.opts if option.startswith("-")), one.opts
    assert "| `--recipe` | `auto` | A recipe of `xaic recipes`, or the path of one in JSON. |" in page
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in page.splitlines() if row.startswith("| ")), "a cell too many"


def test_the_catalogue_of_errors_is_made_from_the_code():
    from tools import error_catalogue

    page = error_catalogue.tables()
    for kind in ("DataError: exit code 2", "ModelError: exit code 2", "EdgeError: exit code 4", "MachineError: exit code 5"):
        assert f"## {kind}\n" in page
    line = "| the tf.data dataset never ends | one pass over the samples | Leave repeat() out, or use take(n) |"
    assert line in page.splitlines()
    assert "| pip install 'keras-xaic[cluster]' |" in page
    assert not re.search(r"\{[a-z_]+[=}]", page), "an option that is not spelled as it is typed"
    assert all(row.count("|") - row.count("\\|") == 4 for row in page.splitlines() if row.startswith("| "))
    assert "<!-- generated: errors -->" in (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")


MIGRATE = ROOT / "docs" / "migrate.md"
RAN = {
    "mct": "mct.py",
    "qtyping": "ai_edge.py",
    "quantizer": "ai_edge.py",
    "recipe_manager": "ai_edge.py",
    "tool": "ai_edge.py",
}
"""What other tools' names in the page start with -> the benchmark's program that ran with them."""


def dotted(text):
    """The dotted names in the Python blocks of a page."""
    found = set()
    for code in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute) and re.fullmatch(r"[\w.]+", ast.unparse(node)):
                found.add(ast.unparse(node))
    return found


def test_names_of_tools_that_are_not_installed_here_are_those_that_ran():
    names = [name for name in dotted(MIGRATE.read_text(encoding="utf-8")) if name.split(".")[0] in RAN]
    assert len(names) > 10
    for name in names:
        assert name in (ROOT / "bench" / "peers" / RAN[name.split(".")[0]]).read_text(encoding="utf-8"), name


@pytest.mark.slow
def test_names_of_tensorflow_and_of_ours_exist():
    import tensorflow_model_optimization as tfmot

    import keras_xaic as xaic
    from keras_xaic._keras import tf

    names = [name for name in dotted(MIGRATE.read_text(encoding="utf-8")) if name.split(".")[0] in ("tf", "tfmot", "xaic")]
    assert len(names) > 8
    for name in names:
        assert operator.attrgetter(name.partition(".")[2])({"tf": tf, "tfmot": tfmot, "xaic": xaic}[name.split(".")[0]])


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
