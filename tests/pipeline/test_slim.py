"""`xaic slim`: any .tflite file; smaller where that can be proved, the same where it cannot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import keras_xaic as xaic
from keras_xaic.cli.app import app
from keras_xaic.data import Data, Parts, Samples
from keras_xaic.edge import deployed_interpreters, judge, read_file
from keras_xaic.edge.equality import Original, Proof
from keras_xaic.errors import DataError, EdgeError, ExportError
from keras_xaic.pipeline import slim_work, slimming
from keras_xaic.report import rebuild_html
from keras_xaic.unpacking import unpack
from tests.tflite import foreign_files as files


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    path = tmp_path_factory.mktemp("theirs") / "theirs.tflite"
    path.write_bytes(files.convert(files.image_model(), "int8"))
    return path


@pytest.fixture
def one_interpreter(monkeypatch):
    monkeypatch.setattr(slim_work, "deployed_interpreters", lambda: (judge(),))


@pytest.fixture(scope="module")
def bundle(int8, tmp_path_factory):
    out = tmp_path_factory.mktemp("slim") / "out"
    given = CliRunner().invoke(app, ["slim", str(int8), "--out", str(out)])
    assert given.exit_code == 0, given.output
    return out


def test_all_of_it_is_there_and_smaller(int8, bundle):
    size = int8.stat().st_size
    model = (bundle / "model.tflite").read_bytes()
    assert len(model) < 0.9 * size
    assert unpack((bundle / "model.xaic").read_bytes()) == model
    report = json.loads((bundle / "report.json").read_text())
    assert report["schema"] == 2
    assert report["slim"]["original_bytes"] == size
    assert report["compressed"]["flash_bytes"] == len(model)
    assert {"model.tflite", "model.xaic"} <= set(report["sha256"])
    assert sum(report["slim"]["saved_bytes"].values()) == size - len(model)
    assert set(report["slim"]["proof"]) == set(deployed_interpreters())
    assert all(one["equal"] and one["samples"] >= 16 for one in report["slim"]["proof"].values())
    assert not list(bundle.glob("*input*"))
    if "tflm" in deployed_interpreters():
        assert (bundle / "micro" / "model.tflite").stat().st_size <= len(model)
        assert report["compressed"]["arena_bytes"] > 0


def test_the_page_is_made_again_from_the_report(bundle):
    page = (bundle / "report.html").read_text()
    (bundle / "report.html").unlink()
    rebuild_html(bundle)
    assert (bundle / "report.html").read_text() == page
    assert "computes the same bits" in page


def test_the_check_kit_passes_on_the_slim_file(bundle):
    given = subprocess.run([sys.executable, bundle / "check" / "edge_check.py", "--runs", "2"], capture_output=True, text=True)
    assert given.returncode == 0, given.stdout + given.stderr
    assert "identical" in given.stdout


def test_a_file_that_no_interpreter_runs_is_left_as_it_was(int8, tmp_path, one_interpreter):
    theirs = tmp_path / "theirs.tflite"
    theirs.write_bytes(files.with_custom_operator(int8.read_bytes()))
    report = xaic.slim(theirs, tmp_path / "out")
    assert (tmp_path / "out" / "model.tflite").read_bytes() == theirs.read_bytes()
    assert unpack((tmp_path / "out" / "model.xaic").read_bytes()) == theirs.read_bytes()
    assert "nothing could be proved" in report.slim.left_out["slimming"]
    assert "TheirOwn" in report.slim.proof[judge()].refused
    assert report.verdict == "model.tflite is the file that was given."


def test_a_name_that_is_no_utf8_is_shown_without_what_texts_cannot_hold(int8, tmp_path, one_interpreter):
    theirs = tmp_path / os.fsdecode(b"caf\xe9.tflite")
    shutil.copy(int8, theirs)
    assert xaic.slim(theirs, tmp_path / "out", target="mobile").model.name == "caf\ufffd"


def test_a_field_of_a_later_version_is_kept_by_leaving_the_file_alone(int8, tmp_path, one_interpreter, monkeypatch):
    theirs = tmp_path / "theirs.tflite"
    theirs.write_bytes(files.of_a_later_version(int8.read_bytes(), monkeypatch))
    report = xaic.slim(theirs, tmp_path / "out", target="mobile")
    assert (tmp_path / "out" / "model.tflite").read_bytes() == theirs.read_bytes()
    assert "later version" in report.slim.left_out["slimming"]


def test_a_step_that_changes_what_is_computed_is_left_out(int8, tmp_path, one_interpreter, monkeypatch):
    compare = Original.compare
    names = b"depthwise"  # of a kernel: as if the interpreter needed the names of inner tensors

    def needs_names(self, path):
        proof = compare(self, path)
        same = names in path.read_bytes()
        return proof if same else Proof(proof.interpreter, proof.version, proof.samples, 2, ("random inputs",))

    monkeypatch.setattr(Original, "compare", needs_names)
    report = xaic.slim(int8, tmp_path / "out", target="mobile")
    assert "drop inner names" in report.slim.left_out
    assert "drop inner names" not in report.slim.saved_bytes
    small = (tmp_path / "out" / "model.tflite").read_bytes()
    assert names in small
    assert len(small) < int8.stat().st_size


@pytest.mark.skipif("tflm" not in deployed_interpreters(), reason="tflite-micro is not installed")
def test_where_the_arena_cannot_be_measured_nothing_of_micro_is_left(int8, tmp_path, monkeypatch):
    def fails(path, **_):
        raise EdgeError(f"tflm gave no allocation report for {path.name}")

    monkeypatch.setattr(slim_work, "measure_arena", fails)
    monkeypatch.setattr(slim_work, "deployed_interpreters", lambda: (judge(), "tflm"))
    report = xaic.slim(int8, tmp_path / "out")
    assert "no allocation report" in report.slim.left_out["micro/"]
    assert [path.name for path in (tmp_path / "out").glob("*.tflite")] == ["model.tflite"]


def test_data_of_several_inputs_is_one_array_for_each():
    both = Parts([np.zeros((90, 2)), np.ones((90, 4))], ["a", "b"])
    given = slimming._arrays(Data(Samples(both)), xaic.DataOptions())
    assert [(one.shape, float(one.max())) for one in given] == [((64, 2), 0.0), ((64, 4), 1.0)]


@pytest.mark.slow
def test_data_is_run_too_and_the_same_command_gives_the_same_bytes(int8, tmp_path, one_interpreter):
    x = np.random.default_rng(0).random((5, 8, 8, 2)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x_test=x, x_train=x)
    bare = xaic.slim(int8, tmp_path / "a", data=tmp_path / "d.npz", target="mobile", bare=True)
    plain = xaic.slim(int8, tmp_path / "b", target="mobile", bare=True)
    assert bare.slim.proof[judge()].samples == plain.slim.proof[judge()].samples + len(x)
    assert (tmp_path / "a" / "model.tflite").read_bytes() == (tmp_path / "b" / "model.tflite").read_bytes()
    assert b"serving_default" not in (tmp_path / "a" / "model.tflite").read_bytes()


def test_the_data_is_no_place_for_the_bundle(int8, tmp_path):
    with pytest.raises(ExportError, match="lies in the input"):
        xaic.slim(int8, tmp_path / "out", data=tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "does not exist"), (b"not a model", "is not a TFLite file"), (b"\x1c\0\0\0TFL3" + bytes(40), "is damaged")],
)
def test_what_is_no_tflite_file_is_one_line(tmp_path, content, said):
    theirs = tmp_path / "theirs.tflite"
    if content is not None:
        theirs.write_bytes(content)
    given = CliRunner().invoke(app, ["slim", str(theirs), "--out", str(tmp_path / "out")])
    assert given.exit_code == 2
    assert said in " ".join(given.output.split())
    assert not (tmp_path / "out").exists()


def test_a_file_cut_short_is_refused(int8, tmp_path):
    theirs = tmp_path / "theirs.tflite"
    theirs.write_bytes(int8.read_bytes()[:-200])
    with pytest.raises(DataError, match="damaged or cut short"):
        xaic.slim(theirs, tmp_path / "out")


def test_a_saved_model_runs_its_code_only_if_that_is_allowed(tmp_path, one_interpreter):
    from keras_xaic._keras import tf

    module = tf.Module()
    module.call = tf.function(lambda x: tf.nn.relu(x) + 1.0, input_signature=[tf.TensorSpec((1, 4), tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.call)
    with pytest.raises(DataError, match="runs its own code"):
        xaic.slim(tmp_path / "saved", tmp_path / "out")
    report = xaic.slim(tmp_path / "saved", tmp_path / "out", target="mobile", options=xaic.DataOptions(allow_unsafe=True))
    assert report.slim.proof[judge()].equal


def test_a_signature_without_inputs_is_no_damage(tmp_path, one_interpreter):
    (tmp_path / "theirs.tflite").write_bytes(files.state_that_is_set(tmp_path / "saved"))
    assert not read_file(tmp_path / "theirs.tflite").inputs
    report = xaic.slim(tmp_path / "theirs.tflite", tmp_path / "out", target="mobile")
    assert report.slim.proof[judge()].equal
    assert report.slim.proof[judge()].outcomes > 1
    assert report.slim.left_out == {"check/": "inputs that are not one sample of numbers"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["two_signatures", "loop", "recurrent", "free_shapes", "words", "sparse"])
def test_files_of_every_kind_on_every_interpreter(kind, tmp_path):
    theirs = tmp_path / "theirs.tflite"
    theirs.write_bytes(files.two_signatures(tmp_path / "saved") if kind == "two_signatures" else getattr(files, kind)())
    report = xaic.slim(theirs, tmp_path / "out")
    assert report.compressed.flash_bytes < theirs.stat().st_size
    assert report.slim.proof[judge()].equal
    assert all(not one.differing for one in report.slim.proof.values())


def test_both_files_are_timed_in_turn_and_the_delegate_takes_no_less(bundle):
    report = json.loads((bundle / "report.json").read_text())
    assert set(report["compressed"]["latency_ms"]) == {name for name in deployed_interpreters() if name != "tflm"}
    for name, after in report["compressed"]["latency_ms"].items():
        before = report["original"]["latency_ms"][name]
        assert after["median"] > 0
        assert before["median"] > 0
        assert after["delegated_macs"] == before["delegated_macs"]
    assert report["warnings"] == [] or "tflm" not in deployed_interpreters()
    assert "Latency on" in (bundle / "report.html").read_text()


@pytest.mark.slow
def test_a_file_that_is_damaged_inside_is_one_line(int8, tmp_path, one_interpreter):
    for place in (8, 60, 200, 900):
        damaged = bytearray(int8.read_bytes())
        damaged[place : place + 4] = b"\xff\xff\xff\x7f"
        theirs = tmp_path / f"{place}.tflite"
        theirs.write_bytes(bytes(damaged))
        given = CliRunner().invoke(app, ["slim", str(theirs), "--out", str(tmp_path / f"out{place}"), "--target", "mobile"])
        assert given.exit_code in (0, 2), given.output
        assert "Traceback" not in given.output
        assert given.exit_code == 2 or (tmp_path / f"out{place}" / "model.tflite").is_file()


def test_a_damaged_file_is_refused_before_tensorflow_is_loaded(tmp_path):
    (tmp_path / "theirs.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(40))
    code = "import sys\nfrom keras_xaic.cli import main\ntry:\n    main()\nfinally:\n    print('tensorflow' in sys.modules)"
    words = ["slim", str(tmp_path / "theirs.tflite"), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.stdout.strip() == "False"
    assert done.returncode == 2
    assert "is damaged or cut short" in done.stderr
