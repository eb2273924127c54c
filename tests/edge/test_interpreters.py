"""Interpreters that are not here, do not work, or are not what a user deploys on: one line, and whose fault it is."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from keras_xaic import edge
from keras_xaic.edge import installed, starting
from keras_xaic.edge.interpreters import REGISTRY, MissingInterpreter, UnusableInterpreter
from keras_xaic.edge.running import run_file
from keras_xaic.edge.starting import CHILD
from keras_xaic.errors import EdgeError, MachineError

LAUNCHER = """
import importlib.machinery, runpy, sys

class Only:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "ai_edge_litert":
            found = importlib.machinery.PathFinder.find_spec(name, [{place!r}])
            if found is None:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
            return found

sys.meta_path.insert(0, Only)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs what it is given, with the LiteRT that lies in one directory or none."""


def test_the_first_that_is_installed_judges(monkeypatch):
    present = {"tflite-runtime": "2.14", "litert": "2.3", "tflm": "1", "builtin-ref": "2.14"}
    monkeypatch.setattr(installed, "interpreter_version", present.get)
    assert installed.judge() == "tflite-runtime"
    del present["tflite-runtime"], present["builtin-ref"]
    assert installed.judge() == "litert"
    assert installed.deployed_interpreters() == ("litert", "tflm")
    del present["litert"]
    with pytest.raises(EdgeError, match=r"can judge.*tflite-runtime or litert.*pip install"):
        installed.judge()


def test_the_reference_kernels_are_for_comparison_only():
    assert [name for name, one in REGISTRY.items() if not one.deployed] == ["builtin-ref"]
    assert "builtin-ref" not in edge.deployed_interpreters()


def test_a_name_that_nobody_has_is_wrong_use(files, images):
    with pytest.raises(MissingInterpreter, match="'onnx' is not known") as caught:
        run_file(files["int8"], images, interpreter="onnx")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 0", "ended with code 0"),  # /bin/true, say
        ("echo 'no module named numpy' >&2; exit 1", "no module named numpy"),
        ("echo 5; kill -SEGV $$", "SIGSEGV"),
    ],
)
def test_a_python_that_cannot_run_litert_is_named_with_its_variable(files, images, python_is, script, said):
    python_is(script)
    for action in (lambda: run_file(files["int8"], images, interpreter="litert"), edge.available_interpreters):
        with pytest.raises(UnusableInterpreter, match=rf"XAIC_LITERT_PYTHON names .*python.*{said}.*ai-edge-litert") as caught:
            action()
        assert "\n" not in str(caught.value)


def test_a_python_of_our_own_that_cannot_be_started_is_the_machines_fault(files, images, monkeypatch):
    def full(*_args, **_options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    starting._close()  # there is none yet that could be forked
    monkeypatch.setattr("subprocess.Popen", full)
    with pytest.raises(MachineError, match="Resource temporarily unavailable"):
        run_file(files["int8"], images)


@pytest.mark.parametrize("script", ["while true; do echo garbage; done", "printf half; sleep 60"])
def test_a_child_that_prints_without_end_or_hangs_in_a_line_counts_as_hung(files, images, litert_is, script):
    litert_is(script)
    start = time.monotonic()
    with pytest.raises(EdgeError, match=r"did not finish within 1 s"):
        run_file(files["int8"], images, interpreter="litert", timeout=1)
    assert time.monotonic() - start < 10


def test_an_answer_that_was_given_counts_whatever_happens_at_exit(files, images, litert_is):
    child, name, expected = CHILD, edge.judge(), run_file(files["int8"], images).raw[0]
    for end in ("kill -SEGV $$", "sleep 60"):
        litert_is(f'sed -i "s/\\"litert\\"/\\"{name}\\"/" "$2"; {sys.executable} {child} "$2" > /dev/null; {end}')
        given = run_file(files["int8"], images, interpreter="litert", timeout=10 if end.startswith("kill") else 3)
        np.testing.assert_array_equal(given.raw[0], expected)


@pytest.mark.parametrize(
    ("content", "said", "kind"),
    [
        (None, "is not installed", MissingInterpreter),
        ("raise ImportError('undefined symbol: TfLiteThing')", "cannot be loaded.*undefined symbol", UnusableInterpreter),
        ("raise AttributeError('_ARRAY_API not found')", "cannot be loaded.*_ARRAY_API", UnusableInterpreter),
        ("import no_such_thing", "cannot be loaded.*no_such_thing", UnusableInterpreter),
    ],
)
def test_missing_and_broken_installations_are_told_apart(files, images, tmp_path, python_is, content, said, kind):
    package = tmp_path / "site" / "ai_edge_litert"
    if content is not None:
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "interpreter.py").write_text(content)
    launcher = tmp_path / "launcher.py"
    launcher.write_text(LAUNCHER.format(place=str(tmp_path / "site")))
    python_is(f'exec {sys.executable} {launcher} "$@"')
    with pytest.raises(UnusableInterpreter, match=said) as caught:
        run_file(files["int8"], images, interpreter="litert")
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
