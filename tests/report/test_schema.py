from __future__ import annotations

import json

import numpy as np
import pytest

from keras_xaic.bundle import Bundle
from keras_xaic.errors import DataError
from keras_xaic.report import CompressedFacts, Evidence, LayerFacts, Report


def test_the_keys_are_those_of_the_contract():
    written = json.loads(Report().to_json())
    assert written["schema"] == 2
    assert {
        "schema", "xaic", "recipe", "seed", "versions", "seconds", "model", "budget", "original", "baselines", "compressed",
        "interpreters", "layers",
    } <= set(written)  # fmt: skip
    assert set(written["budget"]) == {
        "flash_bytes", "download_bytes", "ram_bytes", "max_drop_pp", "macs", "latency_ms", "max_slowdown",
        "min_similarity", "timed_on", "met",
    }  # fmt: skip
    assert set(written["original"]) == {
        "keras_accuracy", "keras_metric", "tflite_fp32_bytes", "tflite_fp32_gzip_bytes", "edge_accuracy",
        "edge_metric", "latency_ms",
    }  # fmt: skip
    assert set(written["compressed"]) == {
        "keras_accuracy", "keras_metric", "edge_accuracy", "edge_metric", "drop_pp",
        "flash_bytes", "io_bytes", "metadata_bytes", "micro_flash_bytes", "download_bytes", "arena_bytes",
        "sparsity", "mean_bits", "macs", "latency_ms", "agreement", "explanation_similarity", "similarity",
        "samples", "part",
    }  # fmt: skip
    layer = json.loads(Report(layers=[LayerFacts(name="a")]).to_json())["layers"][0]
    assert set(layer) == {
        "name", "kind", "relevance", "weights", "bits", "sparsity", "filters", "filters_kept", "flash_bytes", "storage",
        "slowdown",
    }  # fmt: skip


def test_it_comes_back_as_it_went(report, tmp_path):
    file = report.save(tmp_path)
    assert file == tmp_path / "report.json"
    assert Report.load(tmp_path) == report == Report.load(file)
    assert list(tmp_path.iterdir()) == [file]


def test_numpy_values_become_plain_and_nan_becomes_null():
    facts = CompressedFacts(edge_accuracy=np.float32(0.5), flash_bytes=np.int64(7), agreement=float("nan"), drop_pp=np.inf)
    assert facts.edge_accuracy == 0.5
    assert type(facts.flash_bytes) is int
    assert facts.agreement is None
    assert facts.drop_pp is None
    assert "NaN" not in Report(compressed=facts).to_json()


def test_more_fields_may_be_added(tmp_path):
    Report(compressed={"edge_f1": 0.5}, note="hello").save(tmp_path)
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["note"] == "hello"
    assert written["compressed"]["edge_f1"] == 0.5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not readable JSON"),
        ("[1]", "not a report"),
        ('{"schema": 3}', "schema: .*version 3 is not known"),
        ('{"schema": 2, "metric": {"name": "mse", "better": "smaller"}}', r"metric\.better"),
        ('{"schema": 1, "compressed": {"flash_bytes": "many"}}', r"compressed\.flash_bytes"),
        ('{"schema": 1, "layers": [{"kind": "conv"}]}', r"layers\.0\.name"),
    ],
)
def test_what_is_no_report_is_one_clear_line(tmp_path, content, said):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(DataError, match=said) as caught:
        Report.load(tmp_path)
    assert "report.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_report_of_version_1_is_read(tmp_path):
    facts = {"schema": 1, "metric": "mse", "original": {"keras_accuracy": 0.2}, "compressed": {"edge_accuracy": 0.25}}
    facts["interpreters"] = {"tflm": {"accuracy": 0.25, "ran": True}}
    (tmp_path / "report.json").write_text(json.dumps(facts))
    report = Report.load(tmp_path)
    assert (report.metric.name, report.metric.better) == ("mse", "lower")
    assert (report.original.keras_metric, report.compressed.edge_metric) == (0.2, 0.25)
    assert report.interpreters["tflm"].metric == 0.25
    assert json.loads(report.to_json())["schema"] == 2


def test_a_missing_report(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        Report.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["[-1]", "{}", '{"objectives": ["flash"], "points": [{"trial": -1, "values": {"flash": 9}}]}', "[null]",
     '{"objectives": ["flash"], "points": [{"trial": 1, "values": {"metric": 0.5}}]}', '{"objectives": ["size"], "points": []}',
     '{"objectives": ["flash"], "points": [{"trial": 1, "values": {"flash": "1"}}]}',
     '{"objectives": ["flash"], "points": [{"trial": 1, "values": {"flash": NaN}}]}'],
    ids=range(8),
)  # fmt: skip
def test_a_front_that_is_none_is_one_line(tmp_path, content):
    (tmp_path / "front.json").write_text(content)
    with pytest.raises(DataError, match=r"front\.json(: | is not readable)") as caught:
        Evidence.read(Bundle(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_front_above_the_bundle_is_not_the_bundles(tmp_path):
    point = {"trial": 1, "values": {"flash": 9, "metric": 1}, "best": True}
    (tmp_path / "front.json").write_text(json.dumps({"objectives": ["flash", "metric"], "points": [point]}))
    (tmp_path / "in" / "bundle").mkdir(parents=True)
    assert len(Evidence.read(Bundle(tmp_path)).front) == 1
    for place in (tmp_path / "in", tmp_path / "in" / "bundle"):
        assert Evidence.read(Bundle(place)).front == ()
