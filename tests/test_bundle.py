from __future__ import annotations

import pytest

from keras_xaic.bundle import open_bundle
from keras_xaic.errors import DataError
from keras_xaic.files import write_atomic


def test_a_bundle_needs_its_model(tmp_path):
    with pytest.raises(DataError, match=r"holds no model\.tflite"):
        open_bundle(tmp_path)
    with pytest.raises(DataError, match="is not a directory"):
        open_bundle(tmp_path / "none")
    write_atomic(tmp_path / "model.tflite", b"x")
    assert open_bundle(tmp_path).model.read_bytes() == b"x"
