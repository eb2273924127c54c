from __future__ import annotations

import errno
import os
import pathlib
import shutil

import pytest

from keras_xaic.bundle import Bundle, open_bundle
from keras_xaic.errors import DataError, EdgeError, ExportError, XaicWarning
from keras_xaic.files import write_atomic


def test_a_bundle_needs_its_model(tmp_path):
    with pytest.raises(DataError, match=r"holds no model\.tflite"):
        open_bundle(tmp_path)
    with pytest.raises(DataError, match="is not a directory"):
        open_bundle(tmp_path / "none")
    write_atomic(tmp_path / "model.tflite", b"x")
    assert open_bundle(tmp_path).model.read_bytes() == b"x"


def test_a_warning_that_is_not_ours_is_neither_replaced_nor_removed(tmp_path):
    import keras_xaic.edge.marking

    (tmp_path / "model.tflite").write_bytes(b"x")
    bundle = open_bundle(tmp_path)
    bundle.unverified.write_text("not tested on the bench yet, Ann")
    refusals = (
        lambda: bundle.mark("It crashed."),
        lambda: bundle.mark(None),
        lambda: keras_xaic.edge.marking.verify(tmp_path, "d.npz"),
    )
    for refused in refusals:
        with pytest.raises(ExportError, match=r"UNVERIFIED\.txt is there and xaic did not write it"):
            refused()
    assert bundle.unverified.read_text() == "not tested on the bench yet, Ann"
    bundle.unverified.unlink()
    bundle.mark("It crashed.")
    bundle.mark("It hung.")
    assert bundle.unverified.read_text().endswith("It hung.\n")
    bundle.mark(None)
    assert not bundle.unverified.exists()


def test_a_bundle_that_cannot_be_written_is_measured_all_the_same(tmp_path, monkeypatch):
    from keras_xaic.edge import Verification, marking
    from keras_xaic.metrics import Task

    def refused(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def crashing(*_, **__):
        raise EdgeError("it crashed")

    (tmp_path / "model.tflite").write_bytes(b"x")
    monkeypatch.setattr(pathlib.Path, "unlink", refused)  # it does so for names that are not there, too
    Bundle(tmp_path).mark(None)
    monkeypatch.setattr("keras_xaic.files.tempfile.mkstemp", refused)
    monkeypatch.setattr(marking, "measure", crashing)
    with pytest.raises(EdgeError, match="it crashed"), pytest.warns(XaicWarning, match=r"could not be marked: .*read-only"):
        marking.verify(tmp_path, "d.npz")
    Bundle(tmp_path).unverified.write_text("Do not use this bundle as it is. It hung.")
    sizes = {"flash_bytes": 1, "micro_flash_bytes": None, "download_bytes": None, "sha256": "", "changed": None}
    sound = Verification(path=tmp_path, task=Task("regression", 1), samples=1, part="test", runs={}, **sizes)
    monkeypatch.setattr(marking, "measure", lambda *_, **__: sound)
    monkeypatch.setattr(marking, "wrong_files", lambda *_: None)
    with pytest.warns(XaicWarning, match=r"mark could not be taken away: .*read-only"):
        assert marking.verify(tmp_path, "d.npz", interpreter="all") == sound


def test_a_bundle_that_takes_the_place_of_the_measured_one_is_not_marked(tmp_path, monkeypatch):
    from keras_xaic.edge import marking

    out = tmp_path / "out"

    def crashing(*_, **__):
        out.rename(tmp_path / "old")
        out.mkdir()
        raise EdgeError("it crashed")

    out.mkdir()
    (out / "model.tflite").write_bytes(b"x")
    monkeypatch.setattr(marking, "measure", crashing)
    with pytest.raises(DataError, match=r"was replaced while it was read\. Run the same command again"):
        marking.verify(out, "d.npz")
    assert list(out.iterdir()) == []


def test_a_bundle_that_is_replaced_while_it_is_read_is_no_result(tmp_path, monkeypatch):
    from keras_xaic.compression import CompressedModel
    from keras_xaic.edge import marking
    from keras_xaic.pipeline import board_projects
    from keras_xaic.report import html

    out = tmp_path / "out"
    (out / "micro").mkdir(parents=True)
    for name in ("model.tflite", "micro/model.tflite"):
        (out / name).write_bytes(b"x")

    def replaced(*_, **__):
        """As `--overwrite` of another command does, twice: a directory that is gone leaves its number to the next one."""
        for _ in range(2):
            old, new = tmp_path / "old", tmp_path / "new"
            shutil.copytree(out, new)
            out.rename(old)
            new.rename(out)
            shutil.rmtree(old)

    monkeypatch.setattr(marking, "measure", replaced)
    monkeypatch.setattr(html.Report, "load", replaced)
    monkeypatch.setattr(board_projects, "_check_proof", replaced)
    monkeypatch.setattr("keras_xaic.compression.load_model", replaced)
    calls = (
        lambda: marking.verify(out, "d.npz"),
        lambda: html.rebuild_html(out),
        lambda: board_projects.write_project(out, "cmake", tmp_path / "firmware"),
        lambda: CompressedModel.load(out),
    )
    for call in calls:
        with pytest.raises(DataError, match=r"was replaced while it was read\. Run the same command again"):
            call()
    assert {p.name for p in tmp_path.iterdir()} == {"out"}
    assert not (out / "report.html").exists()


def test_names_of_classes_may_be_edited(tmp_path):
    bundle = Bundle(tmp_path)
    assert bundle.class_names() == ()
    bundle.labels.write_bytes("chat\r\nécureuil\r\n".encode("utf-8-sig"))
    assert bundle.class_names() == ("chat", "écureuil")
    bundle.labels.write_bytes("écureuil\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"labels\.txt is not UTF-8.*Save it as UTF-8"):
        bundle.class_names()
