"""What README, documentation and help texts show is run: every command parses, and those of the pages do what they say."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import typer

from keras_xaic.cli.app import app
from tests.programs import run_python

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS: Any = typer.main.get_command(app)
SHOWN = re.compile(r"^(?: {4,}|\$ )xaic ([a-z]+\b.*)$", re.M)
IN_SCRIPTS = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"`xaic ([a-z]+\b[^`]*)`")
MODELS, DATA = ("model.h5", "vibration.keras", "digits.keras"), ("data.npz", "vibration.npz", "digits.npz")


def words_of(line: str) -> list[str]:
    """The arguments of a shown command, without what explains it and without where its output goes."""
    return shlex.split(re.split(r" {2,}| > ", line)[0])


def shown(page: pathlib.Path) -> list[str]:
    """The commands of a page that stand on lines of their own."""
    text = re.sub(r"\n  xaic [^\n]*\n", "\n", page.read_text(encoding="utf-8"))  # what xaic says at an interruption
    scripts = "\n".join(IN_SCRIPTS.findall(text))
    return [*SHOWN.findall(text), *re.findall(r"^xaic ([a-z]+\b.*)$", scripts, re.M)]


def inline(text: str) -> list[str]:
    """The commands within sentences, those that a line's end divides included."""
    return [" ".join(line.split()) for line in INLINE.findall(text)]


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
    for line in inline(text):
        words = words_of(line)
        assert words[0] in COMMANDS.commands, line
        known = {name for one in COMMANDS.commands[words[0]].params for name in (*one.opts, *one.secondary_opts)}
        assert [word for word in words if word.startswith("-") and word not in known] == [], line
    every = {name for one in COMMANDS.commands.values() for p in one.params for name in (*p.opts, *p.secondary_opts)}
    ours = [option for option in re.findall(r"`(--[a-z-]+)(?=[ `])", text) if option not in OTHERS]
    assert [option for option in ours if option not in every] == []


OTHERS = {"--keep", "--time"}
"""Options of other programs: bench/compare.py."""


# What messages, templates and the files for devices say.


def spoken() -> list[tuple[str, str]]:
    """(where, text) of all that the package and the files for devices can say; what is filled in is an X."""
    found = []
    for file in sorted([*(ROOT / "keras_xaic").rglob("*.py"), *(ROOT / "export").rglob("*.py")]):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                text = "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            found.append((f"{file.relative_to(ROOT)}:{node.lineno}", text))
    for file in sorted([*(ROOT / "keras_xaic").rglob("*.j2"), *(ROOT / "export").rglob("*.*")]):
        if file.is_file() and file.suffix != ".py" and file.suffix != ".pyc":
            found.append((str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")))
    return found


def advised(text: str) -> list[list[str]]:
    """The command lines within a text: the command, and behind it options, their values, and what looks like a file."""
    found = []
    for name, rest in re.findall(r"(?<![\w/.-])xaic ([a-z]+)(?![\w-])([^\n`;()\"]*)", re.sub(r"\[/?bold\]", "", text)):
        if name not in COMMANDS.commands:
            continue  # a sentence: "xaic wrote there"
        takes = {opt: not p.is_flag for p in COMMANDS.commands[name].params if hasattr(p, "is_flag") for opt in p.opts}
        line, words, value = [name], [word.rstrip(".,:[") for word in rest.split()], False
        for word in words:
            if not (value or word.startswith("-") or re.fullmatch(r"[A-Z]+|\S*[./]\S*", word)):
                break
            line.append(word)
            value = word.startswith("-") and takes.get(word, False)
        found.append(line)
    return found


def test_commands_of_messages_can_be_typed():
    seen = 0
    for where, text in spoken():
        for words in advised(text):
            seen += 1
            known = {name for one in COMMANDS.commands[words[0]].params for name in (*one.opts, *one.secondary_opts)}
            assert [word for word in words if word.startswith("-") and word not in known] == [], where
            if len(words) > 1 and not words[1].startswith("-"):
                parse(words)  # all of it, not only an option
    assert seen > 40


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("make it smaller: xaic slim X", [["slim", "X"]]),
        ("xaic did not write it", []),
        ("`xaic verify --interpreter all` says more", [["verify", "--interpreter", "all"]]),
        ("xaic plan MODEL --relevance DIR uses it.", [["plan", "MODEL", "--relevance", "DIR"]]),
        ("see xaic doctor.", [["doctor"]]),
    ],
)  # fmt: skip
def test_commands_within_messages_are_seen(text, lines):
    assert advised(text) == lines


# Other programs that pages name: make, scripts of this repository, modules, extras.

EVERY_PAGE = [*PAGES, *sorted((ROOT / "bench").rglob("*.md")), *sorted((ROOT / "export").rglob("*.md"))]
SCRIPTS = {"check/edge_check.py": "export/edge_check.py", "edge_check.py": "export/edge_check.py"}
"""Where scripts lie that bundles hold."""
OF_OTHERS = "tflite-micro/"


def others() -> list[tuple[str, str]]:
    """(where, text) of pages, and of the docstrings of programs that are started by hand."""
    found = [(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")) for page in EVERY_PAGE]
    for file in sorted([*(ROOT / "bench").rglob("*.py"), *(ROOT / "tools").glob("*.py"), *(ROOT / "export").rglob("*.py")]):
        found.append((str(file.relative_to(ROOT)), ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""))
    return [*found, *spoken()]


def test_scripts_that_are_named_exist_and_have_these_options():
    seen = 0
    for where, text in others():
        for script, rest in re.findall(r"\bpython3? (?!-)(\S+\.py)\b([^\n`#;]*)", text):
            if script.startswith(OF_OTHERS):
                continue
            here = (ROOT / where.partition(":")[0]).parent / script
            file = here if here.exists() else ROOT / SCRIPTS.get(script, script)
            if script == "unpack_xaic.py":
                file = ROOT / "keras_xaic" / "unpacking.py"
            assert file.exists(), (where, script)
            seen += 1
            code = file.read_text(encoding="utf-8") + (ROOT / "bench" / "common.py").read_text(encoding="utf-8")
            options = re.findall(r"(?<![\w-])--[a-z][\w-]*", re.split(r" {2,}", rest)[0])
            assert [option for option in options if f'"{option}"' not in code] == [], (where, script)
    assert seen > 15


def test_modules_that_are_named_exist():
    found = [(where, name) for where, text in others() for name in re.findall(r"\bpython3? -m ([\w.]+)", text)]
    assert len(found) > 3
    assert [(where, name) for where, name in found if importlib.util.find_spec(name) is None] == []


def test_targets_and_settings_of_make_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (targets,) = re.findall(r"^\.PHONY: (env .*)$", makefile, re.M)
    settings = re.findall(r"^(\w+) \?=", makefile, re.M)
    seen = 0
    for page in EVERY_PAGE:
        text = page.read_text(encoding="utf-8")
        for line in [
            *re.findall(r"^ {4,}(?:\w+=\S+ )*make ([^\n]+)$", text, re.M),
            *re.findall(r"`(?:\w+=\S+ )*make ([^`]+)`", text),
        ]:
            for word in re.split(r" {2,}", line)[0].split():
                seen += 1
                assert word.split("=")[0] in (settings if "=" in word else targets.split()), (page.name, line)
    assert seen > 10
    for target in targets.split():
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_extras_that_are_named_exist():
    (extras,) = re.findall(
        r"^\[project\.optional-dependencies\]\n(.*?)^\[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M | re.S
    )
    known = set(re.findall(r"^(\w+) = ", extras, re.M))
    found = [
        (where, name)
        for where, text in others()
        for names in re.findall(r"['\"](?:\.|keras-xaic)\[([\w,]+)\]['\"]", text)
        for name in names.split(",")
    ]
    assert len(found) > 5
    assert [(where, name) for where, name in found if name not in known] == []


def test_environment_variables_that_are_named_are_read():
    code = [file.read_text(encoding="utf-8") for room in ("keras_xaic", "tests") for file in (ROOT / room).rglob("*.py")]
    named = {name for page in EVERY_PAGE for name in re.findall(r"\bXAIC_[A-Z_]+", page.read_text(encoding="utf-8"))}
    named -= {name for name in named if name.startswith(("XAIC_OK", "XAIC_PREDICT"))}  # of C sources
    assert named
    assert [name for name in named if not any(f'"{name}"' in text for text in code)] == []


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
    *(
        ROOT / "docs" / f"{name}.md"
        for name in ("index", "install", "tutorial", "recipes", "slim", "explainability", "problems")
    ),
    *sorted((ROOT / "docs" / "targets").glob("*.md")),
]
BEFORE = {
    "slim.md": ["compress model.h5 --data data.npz --epochs 0 --target mobile --out small/"],
    "problems.md": ["compress model.h5 --data data.npz --epochs 0 --out small/"],
}
"""What a page takes as done."""
ALSO = {"tutorial.md": "terminal.md", "slim.md": "migrate.md"}
"""Page -> another page, whose commands that no page has run are run behind its own, in the same directory."""
WRONG = re.compile(r"^\$ xaic ([^\n]+)\n(?=[^`]*\[exit code 2\]$)", re.M)
"""A command that is shown with what is wrong with it."""
PREPARED = {"ethos-u.md": 'import keras_xaic as xaic\nplan = xaic.Plan.load("small/plan.json")'}


def python(code: str, place: pathlib.Path) -> str:
    done = run_python(["-c", code], place)
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
    more = (
        '\nmodel.save("model.h5")\nmodel.save("digits.keras")\nfrom keras_xaic._keras import tf\n'
        'open("small.tflite", "wb").write(tf.lite.TFLiteConverter.from_keras_model(model).convert())\n'
    )
    python(code.replace("epochs=8", "epochs=4") + more, place)
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


def whole(page: pathlib.Path) -> list[str]:
    """The commands within sentences that need nothing but what the page has made."""
    found = []
    for line in inline(page.read_text(encoding="utf-8")):
        with contextlib.suppress(Exception):  # only an option, or a command without what it takes
            parse(words_of(line))
            found.append(line)
    return [line for line in found if not re.search(r"\b[A-Z]{3,}\b", line)]


def ran_by_pages() -> set[tuple[str, ...]]:
    """The commands that are run for the pages that show them."""
    return {tuple(words_of(line)) for page in RUN for line in [*shown(page), *whole(page)]}


def left(page: pathlib.Path) -> list[str]:
    """The commands of a page that are not run for others."""
    ran = ran_by_pages()
    wrong = WRONG.findall(page.read_text(encoding="utf-8"))
    return [line for line in [*shown(page), *whole(page)] if tuple(words_of(line)) not in ran and line not in wrong]


def run(line: str, place: pathlib.Path, overwrite: bool = False) -> None:
    """Runs a shown command, with little effort; `overwrite` what an earlier one wrote."""
    words = quick(words_of(line))
    takes = [name for one in COMMANDS.commands[words[0]].params for name in one.opts]
    if overwrite and "--overwrite" in takes and "--out" in words and (place / words[words.index("--out") + 1]).exists():
        words.append("--overwrite")
    done = run_python(["-m", "keras_xaic.cli", *words], place)
    assert done.returncode in (0, 3), line + done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    if " > " in line:
        (place / re.split(r" {2,}", line)[0].rpartition(" > ")[2]).write_text(done.stdout, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_examples_of_the_help_run(made, tmp_path):
    for name in (*MODELS, *DATA):
        shutil.copy(made / name, tmp_path / name)
    for line in helped():
        if "small" in line and not (tmp_path / "model.xaic").exists() and (tmp_path / "small").exists():
            for name in ("model.tflite", "model.xaic"):
                shutil.copy(tmp_path / "small" / name, tmp_path / name)
        run(line.replace("resnet8.h5", "model.h5").replace("cifar10.npz", "data.npz"), tmp_path, overwrite=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", RUN, ids=[page.stem for page in RUN])
def test_a_page_does_what_it_says(page, made, tmp_path):
    for name in (*MODELS, *DATA, "small.tflite"):
        shutil.copy(made / name, tmp_path / name)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for line in [*BEFORE.get(page.name, []), *shown(page), *whole(page)]:
        run(line, tmp_path)
    for line in left(ROOT / "docs" / ALSO[page.name]) if page.name in ALSO else ():
        run(line, tmp_path, overwrite=True)
    for line in re.findall(r"^ {4}python3 (check/\S+)$", page.read_text(encoding="utf-8"), re.M):
        done = subprocess.run([sys.executable, line], cwd=tmp_path / "small", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1] == "PASS"
    if page.name != "tutorial.md" and blocks(page):
        python("\n".join([PREPARED.get(page.name, ""), *blocks(page)]), tmp_path)
    if page.name == "README.md":
        python(blocks(ROOT / "docs" / "files.md")[0], tmp_path)
        promised = re.findall(r"^    (small/[\w./]+) ", page.read_text(encoding="utf-8"), re.M)
        assert len(promised) == 7
        assert [name for name in promised if not (tmp_path / name).exists()] == []


def test_every_command_of_a_page_is_run_by_a_test():
    elsewhere = {*ALSO.values(), "several-machines.md"}  # the latter in tests/search/test_cluster.py
    assert {page.name: left(page) for page in PAGES if page.name not in elsewhere and left(page)} == {}


@pytest.mark.slow
def test_wrong_inputs_get_the_lines_that_the_page_shows(made, tmp_path):
    shutil.copy(made / "vibration.keras", tmp_path)
    shutil.copy(made / "vibration.npz", tmp_path)
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "mine").touch()
    arrays = np.load(made / "vibration.npz")
    np.savez(tmp_path / "images.npz", images=arrays["x_train"], labels=arrays["y_train"])
    np.savez(tmp_path / "short.npz", x_train=arrays["x_train"][:, :32], y_train=arrays["y_train"])
    page = (ROOT / "docs" / "terminal.md").read_text(encoding="utf-8")
    wrong = re.findall(WRONG.pattern + r"(?:\W load [^\n]*\n)?(xaic: [^`]+)\n\[exit code 2\]$", page, re.M)
    assert len(wrong) == 5
    for line, said in wrong:
        done = run_python(["-m", "keras_xaic.cli", *words_of(line)], tmp_path)
        assert done.returncode == 2, line + done.stdout + done.stderr
        assert "".join(done.stderr.split()) == "".join(said.split()), line  # a terminal breaks lines within words
    assert not (tmp_path / "other").exists()
