"""What README, documentation and help texts show is run: every command parses, and those of the pages do what they say."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from typing import Any

import pytest
import typer

from keras_xaic.cli.app import app

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS: Any = typer.main.get_command(app)
SHOWN = re.compile(r"^(?: {4,}|\$ )xaic ([a-z]+\b.*)$", re.M)
INLINE = re.compile(r"`xaic ([a-z]+\b[^`]*)`")
MODELS, DATA = ("model.h5", "vibration.keras", "digits.keras"), ("data.npz", "vibration.npz", "digits.npz")


def words_of(line: str) -> list[str]:
    """The arguments of a shown command, without what explains it and without where its output goes."""
    return shlex.split(re.split(r" {2,}| > ", line)[0])


def shown(page: pathlib.Path) -> list[str]:
    """The commands of a page that stand on lines of their own."""
    text = re.sub(r"\n  xaic [^\n]*\n", "\n", page.read_text(encoding="utf-8"))  # what xaic says at an interruption
    return SHOWN.findall(text)


def helped() -> list[str]:
    """The examples in the help of the commands."""
    texts = [command.help or "" for command in COMMANDS.commands.values()] + [COMMANDS.help or ""]
    return [line for text in texts for line in re.findall(r"Example: (?:\[bold\])?xaic ([^\n\[]*)", text)]


def parse(words: list[str]) -> None:
    """Parses a command line, every option and argument of it, without running it."""
    assert words[0] in COMMANDS.commands, words
    COMMANDS.commands[words[0]].make_context(words[0], words[1:])


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_command_of_a_page_parses(page):
    for line in shown(page):
        parse(words_of(line))


def test_every_example_of_the_help_parses():
    assert len(helped()) >= len(COMMANDS.commands)
    for line in helped():
        parse(words_of(line))


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_commands_within_sentences_and_their_options_exist(page):
    text = page.read_text(encoding="utf-8")
    for line in INLINE.findall(text):
        words = words_of(line)
        assert words[0] in COMMANDS.commands, line
        known = {name for one in COMMANDS.commands[words[0]].params for name in (*one.opts, *one.secondary_opts)}
        assert [word for word in words if word.startswith("-") and word not in known] == [], line
    every = {name for one in COMMANDS.commands.values() for p in one.params for name in (*p.opts, *p.secondary_opts)}
    ours = [option for option in re.findall(r"`(--[a-z-]+)(?=[ `])", text) if option not in OTHERS]
    assert [option for option in ours if option not in every] == []


OTHERS = {"--keep", "--time"}
"""Options of other programs: bench/compare.py."""


def test_what_is_wrong_is_found():
    for words in (
        ["compress", "m.h5", "--data", "d", "--out", "o", "--flesh", "1kB"],
        ["verify", "--data", "d"],
        ["explain", "m"],
    ):
        with pytest.raises(Exception, match=r"No such option|Missing"):
            parse(words)
    with pytest.raises(AssertionError):
        parse(["crompress"])


# What is run, slowly: on the tutorial's own model, in a directory for each page.

RUN = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("index", "tutorial", "recipes")),
    *sorted((ROOT / "docs" / "targets").glob("*.md")),
]
PREPARED = {"ethos-u.md": 'import keras_xaic as xaic\nplan = xaic.Plan.load("small/plan.json")'}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "TF_CPP_MIN_LOG_LEVEL": "3"}


def python(code: str, place: pathlib.Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, code + done.stdout + done.stderr
    return done.stdout


def blocks(page: pathlib.Path) -> list[str]:
    """The Python blocks of a page, those in admonitions included."""
    found = re.findall(r"^( *)```python\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [re.sub(rf"^{indent}", "", code, flags=re.M) for indent, code in found]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The tutorial's model and data, made by the tutorial's code, under all names that pages use."""
    place = tmp_path_factory.mktemp("tutorial")
    (code,) = blocks(ROOT / "docs" / "tutorial.md")
    python(code.replace("epochs=8", "epochs=4") + '\nmodel.save("model.h5")\nmodel.save("digits.keras")\n', place)
    for name in DATA:
        if not (place / name).exists():
            shutil.copy(place / "vibration.npz", place / name)
    return place


def quick(words: list[str]) -> list[str]:
    """The same command with little effort."""
    if words[0] == "search":
        return [*words, "--trials", "2", "--epochs", "0"]
    if words[0] == "compress":
        baselines = [] if "--baselines" in words else ["--baselines", "int8"]
        return [*words, "--epochs", "1", *baselines]  # the last one counts
    return [word for word in words if word != "--open"]  # no browser


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", RUN, ids=[page.stem for page in RUN])
def test_a_page_does_what_it_says(page, made, tmp_path):
    for name in (*MODELS, *DATA):
        shutil.copy(made / name, tmp_path / name)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for line in shown(page):
        words = quick(words_of(line))
        command = [sys.executable, "-m", "keras_xaic.cli", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode in (0, 3), line + done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        if " > " in line:
            (tmp_path / re.split(r" {2,}", line)[0].rpartition(" > ")[2]).write_text(done.stdout, encoding="utf-8")
    if page.name != "tutorial.md" and blocks(page):
        python("\n".join([PREPARED.get(page.name, ""), *blocks(page)]), tmp_path)
    if page.name == "README.md":
        python(blocks(ROOT / "docs" / "files.md")[0], tmp_path)
        promised = re.findall(r"^    (small/[\w./]+) ", page.read_text(encoding="utf-8"), re.M)
        assert len(promised) == 6
        assert [name for name in promised if not (tmp_path / name).exists()] == []
