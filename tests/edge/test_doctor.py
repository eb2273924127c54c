from __future__ import annotations

import pathlib
import re
import sys

import numpy as np
import pytest

from keras_xaic._version import __version__
from keras_xaic.edge import REGISTRY, doctor, installed, judge, read_file


def state(checks, name):
    return next(check for check in checks if check.name == name)


def test_the_tiny_model_holds_the_kernel_that_the_answer_is_compared_with():
    info = read_file(doctor.TINY)
    kernel = next(t for t in info.main.tensors if t.shape == (3, 4))
    stored = info.data(kernel).view(np.int8).reshape(3, 4) * kernel.scales
    np.testing.assert_allclose(stored.T, doctor.KERNEL, atol=0.005)
    assert doctor.TINY.stat().st_size < 2000


def test_what_is_installed_works():
    checks = doctor.examine()
    assert state(checks, "numpy").detail == np.__version__
    assert state(checks, "keras-xaic").detail == __version__  # what a report of an error names first
    for name in (judge(), "builtin-ref"):
        assert state(checks, name).state == doctor.WORKS
    assert len({check.name for check in checks}) == len(checks)


@pytest.mark.parametrize("script", ["kill -ILL $$", "exec sleep 60"])
def test_an_interpreter_that_crashes_or_hangs_is_broken(litert_is, monkeypatch, script):
    monkeypatch.setattr(doctor, "INTERPRETERS", ("litert",))
    for module in (doctor, installed):
        monkeypatch.setattr(module, "TIMEOUT", 1.0)
    litert_is(script)
    check = state(doctor.examine(), "litert")
    assert check.state == doctor.BROKEN
    assert "ai-edge-litert" in check.fix


def test_every_package_that_the_base_installation_has_is_looked_at():
    text = (pathlib.Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    (needed,) = re.findall(r"^dependencies = \[\n(.*?)^\]", text, re.M | re.S)
    old = "< '3.12'" if sys.version_info >= (3, 12) else ">= '3.12'"
    names = {re.split(r"[>=<]", line.strip('", '))[0] for line in re.findall(r"^ +(\".*)$", needed, re.M) if old not in line}
    known = {*doctor.PACKAGES, *doctor.EXTRAS, *(one.package for one in REGISTRY.values())}
    assert len(names) > 10
    assert names - known == set()


def test_a_package_that_is_missing(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", {"no-such-package": "nothing"})
    checks = doctor.examine()
    assert state(checks, "no-such-package").state == doctor.MISSING
    assert state(checks, "no-such-package").fix


def test_an_interpreter_that_answers_wrongly_is_broken(monkeypatch):
    monkeypatch.setattr(doctor, "INTERPRETERS", (judge(),))
    monkeypatch.setattr(doctor, "KERNEL", doctor.KERNEL + 1)
    check = state(doctor.examine(), judge())
    assert check.state == doctor.BROKEN
    assert "off by" in check.detail
