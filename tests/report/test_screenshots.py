"""The page in a real browser: no console message, no request, no overflow - and the script that says so can say no."""

from __future__ import annotations

import importlib.util
import pathlib
import shutil
import subprocess
import sys

import pytest

from keras_xaic.report import write_html

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "screenshots.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("selenium") is None, reason="selenium is not installed"),
]


def photograph(page: pathlib.Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOL), str(page), "--out", str(page.parent / "shots")]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_report_is_silent_and_fits_every_screen(report, evidence, tmp_path):
    done = photograph(write_html(report, tmp_path / "report.html", evidence))
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "shots").glob("report-*.png"))) == 4


def test_a_report_without_labels_is_silent_and_fits_every_screen(changed, tmp_path):
    compressed = {"flash_bytes": 61_200, "download_bytes": 33_400, "agreement": 0.951, "samples": 100, "part": "train"}
    report = changed(compressed=compressed, original={"tflite_fp32_bytes": 318_364}, baselines={}, classes=[])
    done = photograph(write_html(report, tmp_path / "report.html"))
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(importlib.util.find_spec("axe_core_python") is None, reason="axe-core-python is not installed")
def test_barriers_are_told(tmp_path):
    body = '<main><h1>x</h1><p style="color:#aaa;background:#fff">pale</p></main>'
    (tmp_path / "bad.html").write_text(f'<!doctype html><html lang="en"><title>bad</title><body>{body}</body></html>')
    done = photograph(tmp_path / "bad.html")
    assert done.returncode == 1
    assert "accessibility: color-contrast" in done.stderr


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("<script>console.error('broken')</script>", "console: "),
        ('<img src="http://127.0.0.1:9/x.png" alt="">', "request: http://127.0.0.1:9/x.png"),
        ('<div style="width:3000px">wide</div>', "layout: "),
    ],
)
def test_faults_are_told(fault, said, tmp_path):
    (tmp_path / "bad.html").write_text(f"<!doctype html><title>bad</title><body>{fault}</body>")
    done = photograph(tmp_path / "bad.html")
    assert done.returncode == 1
    assert said in done.stderr
