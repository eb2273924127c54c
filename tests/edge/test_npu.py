from __future__ import annotations

import importlib.util

import pytest

from keras_xaic.edge import estimate_npu
from keras_xaic.edge.interpreters import MissingInterpreter
from keras_xaic.errors import EdgeError

has_vela = pytest.mark.skipif(importlib.util.find_spec("ethosu") is None, reason="ethos-u-vela is not installed")


@has_vela
def test_the_summary_is_read(files):
    estimate = estimate_npu(files["int8"])
    held = 6 * 9 * 2 + 9 * 6 + 5 * 4 * 4 * 6
    assert held <= estimate.weight_bytes < 1.05 * held  # a few constants come with them
    assert estimate.encoded_weight_bytes > 0
    assert estimate.cycles > 0
    assert estimate.sram_bytes >= 6 * 6 * 6
    assert estimate.inference_ms > 0
    assert estimate.as_dict()["accelerator"] == "ethos-u55-128"


@has_vela
def test_what_vela_refuses_is_quoted(tmp_path):
    (tmp_path / "broken.tflite").write_bytes(b"nonsense" * 20)
    with pytest.raises(EdgeError, match=r"vela refused broken\.tflite"):
        estimate_npu(tmp_path / "broken.tflite")


def test_without_vela_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingInterpreter, match=r"keras-xaic\[npu\]"):
        estimate_npu(tmp_path / "model.tflite")
