from __future__ import annotations

import hashlib
import json
import shutil
import warnings

import numpy as np
import pytest

from keras_xaic.data import Data, Samples
from keras_xaic.edge import available_interpreters, deployed_interpreters, judge, run_file, verify
from keras_xaic.errors import DataError, EdgeError, XaicWarning
from keras_xaic.metrics import Task
from keras_xaic.settings import DataOptions
from keras_xaic.tasks import Head

needs_tflm = pytest.mark.skipif("tflm" not in available_interpreters(), reason="tflite-micro is not installed")


@pytest.fixture
def data() -> Data:
    """Test labels that the model gets right about half of the time."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (60, 8, 8, 2), dtype=np.uint8)
    return Data(Samples(pixels[:10], np.zeros(10, int), 1 / 255), Samples(pixels, rng.integers(0, 5, 60), 1 / 255))


@pytest.fixture
def bundle(files, tmp_path):
    where = tmp_path / "bundle"
    where.mkdir()
    shutil.copy(files["int8"], where / "model.tflite")
    (where / "model.xaic").write_bytes(bytes(321))
    digest = hashlib.sha256(files["int8"].read_bytes()).hexdigest()
    (where / "report.json").write_text(json.dumps({"schema": 1, "metric": "accuracy", "sha256": {"model.tflite": digest}}))
    return where


def test_everything_is_measured_from_the_files(bundle, data):
    seen = []
    result = verify(bundle, data, latency_runs=5, progress=lambda *state: seen.append(state))
    answers = run_file(bundle / "model.tflite", data.test.inputs()).outputs[0].argmax(axis=1)
    assert result.edge_accuracy == float(np.mean(answers == data.test.y))
    assert 0 < result.edge_accuracy < 1
    assert (result.samples, result.part, result.metric.name) == (60, "test", "accuracy")
    assert result.flash_bytes == len((bundle / "model.tflite").read_bytes())
    assert result.download_bytes == 321
    assert result.micro_flash_bytes is None
    assert result.changed is False
    assert result.error is None
    assert result.latency_ms()[judge()]["threads"] == 1
    assert all(name == judge() and done <= total == 60 for name, done, total in seen)
    entry = result.as_dict()["interpreters"][judge()]
    assert entry["ran"] is True
    assert entry["accuracy"] == result.edge_accuracy
    json.dumps(result.as_dict())


def test_it_says_the_same_twice(bundle, data):
    first, second = (verify(bundle, data, latency_runs=0) for _ in range(2))
    assert first.edge_accuracy == second.edge_accuracy
    assert first.sha256 == second.sha256


def test_a_flipped_byte_is_seen(bundle, data, files):
    from keras_xaic.edge import read_file

    info = read_file(files["int8"])
    weights = next(info.main.tensors[op.inputs[1]] for op in info.main.operators if op.name == "CONV_2D")
    start, length = info.buffers[weights.buffer]
    content = bytearray((bundle / "model.tflite").read_bytes())
    before = run_file(bundle / "model.tflite", data.test.inputs()).raw[0]
    for position in range(start, start + length):
        content[position] ^= 0x80
    (bundle / "model.tflite").write_bytes(content)
    assert verify(bundle, data, latency_runs=0).changed is True
    assert not np.array_equal(before, run_file(bundle / "model.tflite", data.test.inputs()).raw[0])


def test_a_truncated_file_fails_as_a_whole(bundle, data):
    content = (bundle / "model.tflite").read_bytes()
    (bundle / "model.tflite").write_bytes(content[: len(content) // 2])
    with pytest.raises(EdgeError, match=r"model.tflite is damaged"):
        verify(bundle, data)


def test_agreement_with_a_reference(bundle, data, files):
    original = run_file(files["float"], data.test.inputs()).outputs[0]
    ours = run_file(files["int8"], data.test.inputs()).outputs[0]
    result = verify(bundle, data, reference=original, latency_runs=0)
    assert result.agreement == np.mean(ours.argmax(1) == original.argmax(1))
    assert verify(bundle, data, latency_runs=0).agreement is None


def test_without_labels_there_is_no_accuracy(bundle, data):
    unlabelled = Data(data.train, Samples(data.test.x, None, 1 / 255))
    result = verify(bundle, unlabelled, latency_runs=0, reference=np.eye(5)[np.zeros(60, int)])
    assert result.edge_accuracy is None
    assert result.edge_metric is None
    assert result.agreement is not None


def test_without_a_test_part_all_samples_are_used_and_named(bundle, data):
    result = verify(bundle, (data.test.inputs(), data.test.y), latency_runs=0)
    assert (result.part, result.samples) == ("train", 60)


def test_labels_of_other_classes_than_the_models_are_no_wrong_answers(bundle, data):
    (bundle / "check").mkdir()
    facts = {"head": Head((5,), "softmax", "", (8, 8, 2)).facts(), **Task("classification", 5, "softmax").facts()}
    (bundle / "check" / "task.json").write_text(json.dumps(facts))
    x, y = data.test.inputs(), data.test.y
    assert verify(bundle, (x, y), latency_runs=0).edge_accuracy > 0
    for wrong, said in [
        (np.where(y == 4, 7, y), r"\] is class 7. Expected classes 0 to 4"),
        (np.where(y == 4, -1, y), r"\] is class -1"),
        (y + 0.4, "values between whole numbers"),
        (np.array(["a", "b", "c", "d", "e"])[y % 4], "names 4 classes .* the model tells 5 apart"),
    ]:
        with pytest.raises(DataError, match=said):
            verify(bundle, (x, wrong), latency_runs=0)


def test_answers_that_are_no_better_than_chance_are_doubted(bundle, data):
    x = data.test.inputs()
    right = run_file(bundle / "model.tflite", x).outputs[0].argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", XaicWarning)
        verify(bundle, (x, right), latency_runs=0)
    kept = right < 4  # labels that begin at 1, of which the last class is missing
    with pytest.warns(XaicWarning, match=r"The file's accuracy is 0, no better than chance.*Do the targets .* fit the model"):
        verify(bundle, (x[kept], right[kept] + 1), latency_runs=0)


def test_the_report_names_the_metric(bundle, data):
    (bundle / "report.json").write_text(json.dumps({"schema": 1, "metric": "f1"}))
    result = verify(bundle, data, latency_runs=0)
    assert result.metric.name == "f1"
    assert result.edge_accuracy is None
    assert 0 < result.edge_metric < 1
    assert result.changed is None
    zeros = [Samples(one.x, np.zeros((len(one), 5), np.float32), 1 / 255) for one in (data.train, data.test)]
    by_name = verify(bundle, Data(*zeros), options=DataOptions(task="regression"), reference=np.zeros((60, 5)), latency_runs=0)
    outputs = run_file(bundle / "model.tflite", data.test.inputs()).outputs[0]
    assert by_name.edge_metric == pytest.approx(np.mean(outputs.astype(np.float64) ** 2), abs=1e-12)
    assert by_name.agreement is None


@needs_tflm
def test_tflm_gets_the_micro_file(bundle, data, files):
    (bundle / "micro").mkdir()
    shutil.copy(files["float"], bundle / "micro" / "model.tflite")
    result = verify(bundle, data, interpreters=(judge(), "tflm"), latency_runs=0)
    assert result.micro_flash_bytes == files["float"].stat().st_size
    exact = run_file(files["float"], data.test.inputs()).outputs[0].argmax(axis=1)
    assert result.runs["tflm"].value == np.mean(exact == data.test.y)
    assert result.arena_bytes == result.runs["tflm"].arena_bytes > 1000


def test_one_failure_among_several_is_kept_beside_the_others(bundle, data, litert_is):
    litert_is("echo 'no such kernel' >&2; kill -ABRT $$")
    result = verify(bundle, data, interpreters=("litert", "builtin-ref"), latency_runs=0)
    assert result.runs["builtin-ref"].value == result.edge_accuracy
    assert result.runs["litert"].as_dict()["ran"] is False
    assert "no such kernel" in str(result.error)
    with pytest.raises(EdgeError, match="no such kernel"):
        verify(bundle, data, interpreters=("litert",))


def test_all_means_what_a_user_would_deploy_on(bundle, data, monkeypatch, files):
    monkeypatch.delenv("XAIC_LITERT_PYTHON", raising=False)
    result = verify(bundle, data.test, interpreters="all", latency_runs=0)
    assert set(result.runs) == set(deployed_interpreters()) - {"tflm"}  # there is no file for it
    (bundle / "micro").mkdir()
    shutil.copy(files["int8"], bundle / "micro" / "model.tflite")
    result = verify(bundle, data.test, interpreters="all", latency_runs=0)
    assert set(result.runs) == set(deployed_interpreters())
    assert "builtin-ref" not in result.runs


def test_auto_means_the_judge(bundle, data):
    assert list(verify(bundle, data.test, interpreters="auto", latency_runs=0).runs) == [judge()]


def test_wrong_use(bundle, data, tmp_path):
    with pytest.raises(DataError, match="is not a directory"):
        verify(tmp_path / "gone", data)
    with pytest.raises(EdgeError, match="'tflight' is not known"):
        verify(bundle, data, interpreters="tflight")
    with pytest.raises(EdgeError, match="no interpreter"):
        verify(bundle, data, interpreters=())
    with pytest.raises(DataError, match="one sample of the data"):
        verify(bundle, np.zeros((5, 8, 9, 2)))
