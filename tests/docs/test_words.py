"""Documentation, docstrings and messages use the words of docs/architecture.md for what these mean, and no others."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PRIVATE = {
    r"held[- ]back": "validation data",
    r"(?<!save_)(?<!<)\bfigures?\b": "value, metric value, picture",
    r"\banew\b": "again",
    r"\banswer(s|ed)?\b": "outputs, result",
    r"\b(come|comes|coming|came) down to\b": "falls back to, meets",
    r"accuracy is gone": "accuracy is lost",
    r"\bsteps? (per|a|for each) channel|\bnor steps\b|float32 steps?\b|positive (finite )?steps?\b|grid with step": "scale",
    r"(?<!no )(?<!make )\brooms?\b|\bhouse\b|\bwalks?\b": "package, part, order",
    r"\btroubles?\b": "error",
    r"\bone seed in\b": "random seed; the same seed gives the same bytes",
    r"\bliv(e|ing) within\b": "fine-tune under",
    r"whole or not at all": "atomically",
    r"explainable AI (says|what)|asking explainable": "attribution (LRP, DeepLIFT)",
    r"\bphysically\b": "structured pruning",
    r"\bzeros (that|which) go together": "structured sparsity",
    r"\bsteers? gates?|\bsteer a gate": "compute gating factors",
    r"\banything goes\b|\brid(e|es|ing) along\b|\bnearly blind\b|\bleft away\b|\bdies on\b|\bwidens once\b": "what it does",
    r"judges and never chooses|\bearned its place\b|\bsignals of equal standing\b|\bzeros are dear\b": "what it does",
}
"""Words -> what is said instead."""
OF_THE_PACKAGE = ("architecture.md", "CONTRIBUTING.md", "decisions")
"""Pages for who works on the package speak of its rooms."""


def pages():
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "export").rglob("*.py")]
    yield from ((file, file.read_text(encoding="utf-8")) for file in files)


def spoken(file):
    """Yields (line, text) of the docstrings and the literal texts of a file that are words."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value


def wrong(text):
    plain = re.sub(r"``.*?``|`[^`]*`|<[^>]*>|https?://\S+", " ", text, flags=re.S)
    plain = re.sub(r"^ +\**\w+: ", " ", plain, flags=re.M)  # names of arguments
    return [(word.group(), said) for pattern, said in PRIVATE.items() for word in re.finditer(pattern, plain, re.I)]


def test_pages_use_no_private_words():
    found = []
    for file, text in pages():
        rooms = any(part in file.as_posix() for part in OF_THE_PACKAGE)
        for number, line in enumerate(text.splitlines(), 1):
            found += [
                (f"{file.relative_to(ROOT)}:{number}", *one) for one in wrong(line) if not (rooms and "room" in one[0].lower())
            ]
    assert found == []


def test_docstrings_and_messages_use_no_private_words():
    found = []
    for file in sorted([*(ROOT / "keras_xaic").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]):
        draws = "matplotlib" in file.read_text(encoding="utf-8")  # which calls its pictures so
        for number, text in spoken(file):
            found += [
                (f"{file.relative_to(ROOT)}:{number}", *one)
                for one in wrong(text)
                if not (draws and one[0].startswith("figure"))
            ]
    assert found == []


def test_the_page_of_a_report_uses_no_private_words():
    for file in sorted((ROOT / "keras_xaic" / "report" / "templates").glob("*.j2")):
        text = re.sub(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", " ", file.read_text(encoding="utf-8"), flags=re.S)
        assert wrong(re.sub(r"<style>.*?</style>", " ", text, flags=re.S)) == [], file.name


@pytest.mark.parametrize(
    "text", ["0.93 on held-back data", "the same figures", "planned anew", "its answers", "a step per channel", "one seed in"]
)
def test_a_private_word_is_seen(text):
    assert wrong(text)
    assert not wrong(f"`{text}` in code")
