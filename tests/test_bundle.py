from __future__ import annotations

import pytest

from keras_xaic.bundle import atomic_directory, check_target, open_bundle
from keras_xaic.errors import DataError, ExportError
from keras_xaic.files import write_atomic


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(IsADirectoryError), atomic_directory(tmp_path / "out") as scratch:
        scratch.write_text("half")
    assert list(tmp_path.iterdir()) == []
    with atomic_directory(tmp_path / "out") as scratch:
        (scratch / "whole").write_text("x")
    assert (tmp_path / "out" / "whole").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_replacing_leaves_nothing_of_the_old(tmp_path):
    for name in ("first", "second"):
        with atomic_directory(tmp_path / "out") as scratch:
            (scratch / name).write_text("x")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["second"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_full_directory_is_only_replaced_on_request(tmp_path):
    assert check_target(tmp_path / "new", overwrite=False) == tmp_path / "new"
    (tmp_path / "something").write_text("x")
    with pytest.raises(ExportError, match=r"not empty.*--overwrite"):
        check_target(tmp_path, overwrite=False)
    assert check_target(tmp_path, overwrite=True) == tmp_path
    with pytest.raises(ExportError, match="is a file"):
        check_target(tmp_path / "something", overwrite=True)


def test_a_bundle_needs_its_model(tmp_path):
    with pytest.raises(DataError, match=r"holds no model\.tflite"):
        open_bundle(tmp_path)
    with pytest.raises(DataError, match="is not a directory"):
        open_bundle(tmp_path / "none")
    write_atomic(tmp_path / "model.tflite", b"x")
    assert open_bundle(tmp_path).model.read_bytes() == b"x"
