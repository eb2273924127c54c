"""The tables of docs/errors.md: what errors say and what to do, from the code that raises them.

    python tools/error_catalogue.py        prints them; the documentation's site has them in its page

Messages of one kind with the same cure are one line: the first of them in the code stands for all.
"""

from __future__ import annotations

import ast
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from keras_xaic import errors  # noqa: E402

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.XaicError)]
"""Errors; the general one first."""


class Message(NamedTuple):
    """What one place in the code says; what is filled in is ``...``."""

    kind: str
    found: str
    expected: str
    fix: str


def messages() -> Iterator[Message]:
    """Yields every message of the package whose words stand in the code."""
    names = {kind.__name__ for kind in KINDS}
    for file in sorted((ROOT / "keras_xaic").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                parts = [_words(part) for part in [*node.args, *(one.value for one in node.keywords)]]
                yield Message(node.func.id, *[*parts, "", "", ""][:3])


def _words(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
        return re.sub(r"\.{4,}", "...", text)
    return "..."


def families() -> dict[tuple[str, str], list[Message]]:
    """Returns (kind, cure) -> messages; those whose own words stand elsewhere, or that need no cure, are left out."""
    found: dict[tuple[str, str], list[Message]] = {}
    for one in messages():
        if one.fix.strip(".") and re.search(r"[a-z]{2}", one.found):
            found.setdefault((one.kind, one.fix), []).append(one)
    return found


def tables() -> str:
    """Returns Markdown: one section for each kind of error."""
    sections = []
    for kind in KINDS:
        rows = sorted(_row(mine) for (name, _), mine in families().items() if name == kind.__name__)
        if rows:
            head = f"## {kind.__name__}: exit code {kind.exit_code}\n\n{(kind.__doc__ or '').splitlines()[0]}\n"
            sections.append("\n".join([head, "| it says | it expected | what to do |", "|---|---|---|", *rows, ""]))
    return "\n".join(sections)


def _row(mine: list[Message]) -> str:
    first = mine[0]
    more = f" (and {len(mine) - 1} like it)" if len(mine) > 1 else ""
    fix = errors.OPTION.sub(_option, first.fix)
    return f"| {_cell(first.found)}{more} | {_cell(first.expected)} | {_cell(errors.sentence(fix))} |"


def _option(match: re.Match[str]) -> str:
    flag = "--" + match[1].replace("_", "-")
    return flag if match[2] in (None, "True") else f"{flag} {match[2]}"


def _cell(text: str) -> str:
    plain = " ".join(text.split()).replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
    return "" if plain == "..." else plain


if __name__ == "__main__":
    sys.stdout.write(tables())
