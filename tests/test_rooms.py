"""Rooms import from the left to the right of the picture in docs/architecture.md, never back; docstring examples are true."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess
import sys

import pytest

from keras_xaic.edge import REGISTRY

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "keras_xaic"
ORDER = (
    "data",
    "models",
    "relevance",
    "planning",
    "training",
    "pruning",
    "quantization",
    "compression",
    "tflite",
    "edge",
    "report",
    "recipes",
    "pipeline",
    "searching",
    "cli",
)
ALSO_NOT = {
    "edge": {"_keras", "models", "relevance", "planning", "tflite"},
    "report": {"_keras", "tflite"},
    "pruning": {"quantization"},
}
"""What a room must not import though it lies to its left."""


def imported(file: pathlib.Path) -> set[str]:
    """Names of the rooms that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [f"keras_xaic.{alias.name}" for alias in node.names] if node.module == "keras_xaic" else [node.module]
        else:
            continue
        found.update(module.split(".")[1] for module in modules if module.startswith("keras_xaic."))
    return found


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_nothing_to_its_right(room):
    files = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").exists() else sorted((PACKAGE / room).rglob("*.py"))
    assert files
    forbidden = set(ORDER[ORDER.index(room) + 1 :]) | ALSO_NOT.get(room, set())
    wrong = {file.name: sorted(imported(file) & forbidden) for file in files if imported(file) & forbidden}
    assert wrong == {}


def _strings_that_are_no_docstrings(tree):
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            yield node.value


def test_nothing_outside_edge_names_the_package_of_an_interpreter():
    packages = {name for one in REGISTRY.values() for name in (one.package, one.module)}
    assert len(packages) == 6
    for file in sorted(PACKAGE.rglob("*.py")):
        if PACKAGE / "edge" not in file.parents:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            modules = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
            modules += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            named = [
                text for text in (*modules, *_strings_that_are_no_docstrings(tree)) if any(one in text for one in packages)
            ]
            assert named == [], file


def test_no_files_import_each_other_in_a_circle():
    files = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in sorted(PACKAGE.rglob("*.py"))}
    reads = {}
    for name, file in files.items():
        nodes = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
        wanted = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names} | {node.module for node in nodes}
        reads[name] = wanted & files.keys()
    left = dict(reads)
    while ends := [name for name, wanted in left.items() if not wanted & left.keys()]:  # files that read none of the others
        left = {name: wanted for name, wanted in left.items() if name not in ends}
    assert len(reads) > 150
    assert {name: sorted(wanted & left.keys()) for name, wanted in left.items()} == {}


def test_the_page_shows_every_room_and_every_shared_file():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms <= set(ORDER)
    assert [room for room in sorted(rooms) if f"`{room}/`" not in text] == []
    files = [file.name for file in PACKAGE.glob("*.py") if not file.name.startswith("__") and file.name != "_version.py"]
    assert [name for name in files if f"`{name}`" not in text] == []
    for name in re.findall(r"`((?:\w+/)*\w+\.py)`", text):
        path = name.removeprefix("keras_xaic/").removeprefix("tests/")
        assert (PACKAGE / path).exists() or (ROOT / "tests" / path).exists(), name


def test_every_file_that_contributing_names_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = re.findall(r"`((?:keras_xaic|tests|docs|bench|export)/[\w/.-]*)`", text)
    assert len(names) > 20
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_every_name_that_contributing_names_is_in_the_files_of_its_step():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## How to add")[2]
    steps = [step for step in re.split(r"\n(?=\d\. |\n)", text) if re.search(r"`[\w/]+\.py`", step)]
    assert len(steps) > 15
    for step in steps:
        sources = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in re.findall(r"`([\w/]+\.py)`", step))
        names = [name for name in re.findall(r"`(_?[A-Za-z][A-Za-z_0-9]*)`", step) if name not in ELSEWHERE]
        assert [name for name in names if not re.search(rf"\b{name}\b", sources)] == [], step


ELSEWHERE = {"slow", "Taylor", "Engine", "attribute", "Rule", "RULE_NAMES"}


@pytest.mark.slow
def test_examples_in_docstrings_are_true():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--doctest-modules",
        "keras_xaic",
        "-q",
        "-o",
        "addopts=",
        "-p",
        "no:cacheprovider",
    ]
    ignored = ["engine_innvestigate.py", "__main__.py"]
    command += [f"--ignore-glob=*/{name}" for name in ignored]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\d\d passed", done.stdout)
