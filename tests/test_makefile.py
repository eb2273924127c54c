"""The targets of the Makefile end and say what failed, whatever a test does to its process."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

MAKEFILE = pathlib.Path(__file__).parents[1] / "Makefile"


def test_a_test_that_crashes_its_process_ends_the_run_and_is_named(tmp_path):
    text = MAKEFILE.read_text(encoding="utf-8")
    (options,) = re.findall(r"^PYTEST := \$\(BIN\)/python -m pytest (.*)$", text, re.M)
    assert len(re.findall(r"^\t@\$\(PYTEST\)", text, re.M)) == 3
    assert text.count("pytest -n") == 1
    for name in ("a", "b"):
        (tmp_path / f"test_{name}.py").write_text(
            "import pytest\n\n\n@pytest.mark.parametrize('k', range(4))\ndef test_fine(k):\n    pass\n", encoding="utf-8"
        )
    (tmp_path / "test_c.py").write_text(
        "import os\n\n\ndef test_dies():\n    os.abort()\n\n\ndef test_after():\n    pass\n", encoding="utf-8"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", *shlex.split(options), "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout
    assert re.search(r"^FAILED test_c\.py::test_dies", done.stdout, re.M), done.stdout
    assert re.search(r"worker '\w+' crashed", done.stdout), done.stdout


def test_what_does_not_fit_the_time_is_skipped_by_name(tmp_path):
    shutil.copy(pathlib.Path(__file__).parent / "conftest.py", tmp_path)
    lines = ["import time", "", "", "def test_first():", "    time.sleep(0.9)", "", "", "def test_late():", "    pass"]
    (tmp_path / "pytest.ini").write_text("[pytest]\ntimeout = 1\n", encoding="utf-8")
    (tmp_path / "test_a.py").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    environment = {**os.environ, "XAIC_TEST_MINUTES": "0.02"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "1 passed, 1 skipped" in done.stdout, done.stdout
    assert "not run: it might not end within the 0.02 minutes of XAIC_TEST_MINUTES" in done.stdout
