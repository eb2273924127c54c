"""What mkdocs cannot do by itself: formulas as MathML, and pages that come from the code and so cannot go stale."""

from __future__ import annotations

import html
import inspect
import json
import pathlib
import re
import statistics
import sys
from typing import Any

from latex2mathml.converter import convert

ROOT = pathlib.Path(__file__).parents[1]
sys.path.append(str(ROOT))  # mkdocs knows this file by its path alone

from bench import comparison, headline  # noqa: E402
from keras_xaic.units import format_milliseconds  # noqa: E402
from tools import error_catalogue  # noqa: E402

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)


def on_config(config: Any) -> Any:
    """Lists the decisions, which grow, at the end of the navigation."""
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    entries = [{_title(path): f"decisions/{path.name}"} for path in decisions]
    config.nav.append({"Decisions": entries})
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fills in what is generated: ``<!-- generated: NAME -->``."""
    makers = {
        "recipes": recipes,
        "own recipe": own_recipe,
        "recipe entries": recipe_entries,
        "report.json": report_fields,
        "rules": rules,
        "pruning": pruning,
        "filters": filters,
        "export": export,
        "compare": compare,
        "papers": lambda: comparison.papers_table(_measured("papers")),
        "control": lambda: comparison.control_table([*_measured("control"), *_measured("compare")]),
        "mixed": mixed,
        "entropy": entropy,
        "storages": storages,
        "errors": error_catalogue.tables,
        "commands": commands,
        "headline": lambda: headline.table(headline.read(), headline.read_times()),
    }
    return re.sub(r"<!-- generated: ([^>]+?) -->", lambda match: makers[match.group(1)](), markdown)


def on_post_page(output: str, **_: Any) -> str:
    """Names the dialog of the theme's search, which screen readers announce."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def on_page_content(content: str, **_: Any) -> str:
    """Turns formulas into MathML, which browsers draw without a script."""

    def formula(match: re.Match[str]) -> str:
        display = "block" if match.group(2) == "[" else "inline"
        return convert(html.unescape(match.group(3)).strip(), display=display)

    return _FORMULA.sub(formula, content)


def recipes() -> str:
    """One section for each recipe of the registry."""
    from keras_xaic.recipes import RECIPES

    sections = []
    for recipe in RECIPES.values():
        facts = {
            "source": recipe.source,
            "relevance": f"`{recipe.rule}`" if recipe.rule else "none",
            "weights are ranked by": f"`{recipe.score}`" if recipe.bits or recipe.sparsity else None,
            "zeros, at least": f"{recipe.sparsity:.0%}" if recipe.sparsity else None,
            "bit-widths": ", ".join(map(str, recipe.bits)) or "as the TFLite converter does it",
            "grid": f"`{recipe.grid}`" if recipe.bits else None,
            "mean bit-width, without a budget": f"{recipe.mean_bits:g}" if recipe.mean_bits else None,
            "filters removed, without a budget": f"{recipe.removal:.0%}" if recipe.removal else None,
            "may remove filters": "yes" if recipe.filters else "no",
            "usable as a baseline": "yes" if recipe.comparable else None,
        }
        rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items() if value is not None)
        sections.append(f"## `{recipe.name}`\n\n{recipe.summary}\n\n| | |\n|---|---|\n{rows}\n")
    return "\n".join(sections)


def own_recipe() -> str:
    """The example of a recipe that is not in the package."""
    return f"```json\n{(ROOT / 'examples' / 'own_recipe.json').read_text(encoding='utf-8')}```\n"


def storages() -> str:
    """What every version of every interpreter was measured to do with each storage."""
    table = json.loads((ROOT / "keras_xaic" / "edge" / "storages.json").read_text(encoding="utf-8"))
    measured = {(name, version): rows for name, versions in table["measured"].items() for version, rows in versions.items()}
    lines = ["| kernel | weights | activations | scales | " + " | ".join(f"{n} {v}" for n, v in measured) + " |"]
    lines.append("|---" * (4 + len(measured)) + "|")
    for number, row in enumerate(next(iter(measured.values()))):
        if row["storage"] == "float32":
            continue
        cells = [rows[number] for rows in measured.values()]
        said = [str(cell.get("time", "yes")) if cell["right"] else "no" for cell in cells]
        what = (row["kind"].replace("_", " "), f"`{row['storage']}`", f"`{row['activations']}`", f"per {row['granularity']}")
        lines.append(f"| {' | '.join((*what, *said))} |")
    return "\n".join(lines)


def recipe_entries() -> str:
    """Every entry of a recipe, from the class that reads it: its default and what it means."""
    from keras_xaic.recipes import Recipe

    meanings = dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(Recipe) or "", re.M))
    rows = []
    for name, field in Recipe.model_fields.items():
        default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
        meaning = re.sub(r"``(.*?)``", r"`\1`", " ".join(meanings[name].split())).replace("|", "\\|")
        rows.append(f"| `{name}` | {default} | {meaning} |")
    return "| entry | default | what |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def commands() -> str:
    """One section for each command: its example and a table of its arguments and options."""
    import typer

    from keras_xaic.cli.app import app

    group: Any = typer.main.get_command(app)
    sections = []
    for name, one in group.commands.items():
        text, _, example = re.sub(r"\[/?bold\]", "", one.help or "").partition("Example: ")
        rows = []
        for parameter in one.params:
            shown = ", ".join(
                f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts) if option.startswith("-")
            )
            default = parameter.default() if callable(parameter.default) else parameter.default
            plain = default not in (None, "", [], (), False) and getattr(parameter, "show_default", False)
            what = f"{parameter.help or ''}{' Required.' if parameter.required else ''}".replace("|", "\\|")
            rows.append(
                f"| {shown or f'`{parameter.metavar}`'} | {f'`{default}`' if plain else ''} | {what} |".replace(
                    "`MODEL|", "`MODEL\\|"
                )
            )
        table = "\n".join(["| option | default | what |", "|---|---|---|", *rows])
        sections.append(f"## `xaic {name}`\n\n{text.strip()}\n\n    {example.strip()}\n\n{table}\n")
    return "\n".join(sections)


def rules() -> str:
    """The names of all attribution rules."""
    from keras_xaic.relevance import RULE_NAMES

    return ", ".join(f"`{name}`" for name in RULE_NAMES)


def report_fields() -> str:
    """One table for each part of report.json, from the models that write it."""
    from keras_xaic.report import schema

    parts = [
        ("the file itself", schema.Report),
        ("metric", schema.MetricFacts),
        ("judge", schema.JudgeFacts),
        ("model", schema.ModelFacts),
        ("budget", schema.BudgetFacts),
        ("original", schema.OriginalFacts),
        ("baselines.NAME", schema.BaselineFacts),
        ("compressed", schema.CompressedFacts),
        ("similarity", schema.SimilarityFacts),
        ("outputs[]", schema.OutputFacts),
        ("latency_ms.INTERPRETER", schema.LatencyFacts),
        ("interpreters.NAME", schema.InterpreterFacts),
        ("layers[]", schema.LayerFacts),
        ("rounds[]", schema.RoundFacts),
        ("classes[]", schema.ClassFacts),
        ("classes[].confused_with[]", schema.ConfusionFacts),
        ("slim", schema.SlimFacts),
        ("slim.proof.INTERPRETER", schema.EqualityFacts),
        ("explanations", schema.ExplanationFacts),
        ("explanations.shown[]", schema.ShownFacts),
    ]
    sections = []
    for name, model in parts:
        rows = "\n".join(f"| `{field.alias or key}` | {_type(field)} |" for key, field in model.model_fields.items())
        sections.append(f"#### `{name}`\n\n{model.__doc__.splitlines()[0]}\n\n| key | holds |\n|---|---|\n{rows}\n")
    return "\n".join(sections)


def pruning() -> str:
    """Mean accuracy of every score, from the rows of bench/pruning.py."""
    found: dict[tuple[str, float], dict[str, list[float]]] = {}
    for row in _measured("pruning"):
        case = found.setdefault((row["model"], row["sparsity"]), {})
        case.setdefault(row["criterion"], []).append(row["edge_accuracy"])
    names = list(dict.fromkeys(name for case in found.values() for name in case))
    lines = []
    for (model, sparsity), case in sorted(found.items(), reverse=True):
        means = {name: statistics.mean(values) for name, values in case.items()}
        cells = [
            f"{'**' if means[name] == max(means.values()) else ''}{means[name]:.2%}"
            f"{'**' if means[name] == max(means.values()) else ''} ({len(case[name])})"
            if name in means
            else "-"
            for name in names
        ]
        lines.append(f"| {model}, {sparsity:.0%} zeros | {' | '.join(cells)} |")
    head = f"| accuracy (seeds) | {' | '.join(names)} |\n|---|{'---:|' * len(names)}\n"
    return head + "\n".join(lines) + "\n"


def filters() -> str:
    """The original and the narrow model, from the last row of bench/filters.py."""
    row = _measured("filters")[-1]
    units = {"accuracy": ".2%", "macs": ",", "weights": ",", "bytes": ","}
    lines = [f"| {name} | {row['original'][name]:{form}} | {row['small'][name]:{form}} |" for name, form in units.items()]
    lines.append(f"| median | {' | '.join(format_milliseconds(row[one]['median_ms']) for one in ('original', 'small'))} |")
    return "| | original | narrow |\n|---|---:|---:|\n" + "\n".join(lines) + "\n"


def export() -> str:
    """Bytes of every model and form, from the rows of bench/export.py."""
    columns = {"converted": "as converted", "flash_bytes": "flash", "micro_flash_bytes": "micro", "download_bytes": "download"}
    columns.update({name: name for name in ("gzip", "xz", "brotli", "zstd")})
    found = {(row["model"], row["form"]): row for row in _measured("export") if row.get("what") == "bytes"}
    lines = [
        f"| {model} | {form} | {' | '.join(f'{row[name]:,}' if row.get(name) else '-' for name in columns)} |"
        for (model, form), row in sorted(found.items())
    ]
    head = f"| model | form | {' | '.join(columns.values())} |\n|---|---|{'---:|' * len(columns)}\n"
    return head + "\n".join(lines) + "\n"


def mixed() -> str:
    """Accuracy at equal mean bits, from the rows of bench/mixed.py."""
    settings = {"mean_bits": "mean bits", "epochs": "epochs", "samples": "samples an epoch", "method": "bits by"}
    return _seeds_table(_measured("mixed"), settings, {"flash_bytes": "flash", "download_bytes": "download"})


def entropy() -> str:
    """Accuracy at equal zeros or equally many values, from the rows of bench/entropy.py."""
    settings = {"model": "model", "bits": "bits", "sparsity": "zeros", "epochs": "epochs", "method": "method"}
    return _seeds_table(_measured("entropy"), settings, {"entropy_bits": "bits a weight", "download_bytes": "download"})


def _seeds_table(rows: list[dict[str, Any]], settings: dict[str, str], means: dict[str, str]) -> str:
    """One line for each setting, with the mean over its seeds; settings and means: key of the rows -> title of the column."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in settings), []).append(row)
    lines = []
    for setting, group in found.items():
        accuracy = [row["edge_accuracy"] for row in group]
        spread = f"{statistics.mean(accuracy):.2%} | {min(accuracy):.2%} to {max(accuracy):.2%} | {len(group)}"
        values = [statistics.mean(row[key] for row in group) for key in means]
        cells = [f"{value:,.0f}" if value >= 100 else f"{value:.2f}" for value in values]
        lines.append(
            f"| {' | '.join('all' if one is None else str(one) for one in setting)} | {spread} | {' | '.join(cells)} |"
        )
    head = [*settings.values(), "accuracy", "range", "seeds", *means.values()]
    return f"| {' | '.join(head)} |\n|{'---|' * len(settings)}{'---:|' * (len(means) + 3)}\n" + "\n".join(lines) + "\n"


def compare() -> str:
    """Every method on every model, from the rows of bench/compare.py."""
    return comparison.table(comparison.summarize(_measured("compare")))


def _measured(name: str) -> list[dict[str, Any]]:
    lines = (ROOT / "bench" / "results" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _type(field: Any) -> str:
    text = str(field.annotation) if not isinstance(field.annotation, type) else field.annotation.__name__
    text = re.sub(r"keras_xaic\.report\.schema\.|typing\.", "", text)
    text = re.sub(r"Annotated\[(\w+), FieldInfo\(.*?\]\)\]", r"\1", text)
    text = re.sub(r"Optional\[(.*)\]", r"\1 or null", text)
    return text.replace("str", "text").replace("int", "integer").replace("|", "\\|")


def _title(path: pathlib.Path) -> str:
    return path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
