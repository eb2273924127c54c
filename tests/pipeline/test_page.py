"""The page of a real run: its figures are those of its report.json, and its files alone make it again."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.bundle import Bundle
from keras_xaic.relevance import Explanations
from keras_xaic.report import rebuild_html


@pytest.mark.slow
def test_the_page_of_a_run_repeats_report_json_and_is_made_from_files_alone(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((10, 2)), layers.Conv1D(4, 3, activation="relu", name="conv"), layers.Flatten()])
    model.add(layers.Dense(3, activation="softmax", name="head"))
    x = np.random.default_rng(0).normal(size=(80, 10, 2)).astype(np.float32)
    y = x[:, :3, 0].argmax(1)
    data = {"x_train": x, "y_train": y, "x_test": x[:40], "y_test": y[:40]}
    seen = []
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["loss"]))
    report = xaic.compress(
        model,
        data,
        out=tmp_path / "out",
        training=xaic.Training(epochs=1, callbacks=[stop]),
        device=xaic.Device(baselines=["int8"], target="mobile"),
    )
    assert len(seen) == 1

    bundle = Bundle(tmp_path / "out")
    facts, page = json.loads(bundle.report.read_text()), bundle.html.read_text(encoding="utf-8")
    found = re.findall(r'<data value="([^"]*)" data-json="([^"]*)">', page)
    assert len(found) > 40
    for value, pointer in found:
        entry = facts
        for part in pointer.split("/")[1:]:
            entry = entry[int(part)] if isinstance(entry, list) else entry[part.replace("~1", "/").replace("~0", "~")]
        assert value == entry or json.loads(value) == entry, pointer

    assert -1 <= report.compressed.explanation_similarity <= 1
    assert [one.label for one in report.classes] == [0, 1, 2]
    assert sum(one.samples for one in report.classes) == 40
    right = sum(one.samples * one.accuracy for one in report.classes) / 40
    assert abs(right - report.compressed.edge_accuracy) < 1e-9
    kept = Explanations.load(bundle.explanations)
    assert kept.index.tolist() == [one.sample for one in report.explanations.shown]

    bundle.html.unlink()
    rebuild_html(bundle.path)
    assert bundle.html.read_text(encoding="utf-8") == page
