"""A model trained on two devices lives on the same grids, under the same masks, as one trained on one."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import keras_xaic as xaic
from keras_xaic._keras import tf
from keras_xaic.cli.app import app
from tests.nets import linear, saved


@pytest.mark.slow
def test_two_devices_give_the_model_of_one(tmp_path):
    root = pathlib.Path(__file__).parents[2]
    words = [sys.executable, "-m", "tests.training.two_devices", str(tmp_path)]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    code, said = found.pop("command")
    assert code == 0, said
    assert (tmp_path / "bundle" / "model.tflite").is_file()
    for case, (one, two) in found.items():
        assert (one["replicas"], two["replicas"]) == ([1], [2]), case
        np.testing.assert_allclose(two["losses"], one["losses"], rtol=0.02, err_msg=case)
        np.testing.assert_allclose(two["validation"], one["validation"], rtol=0.02, err_msg=case)
        assert abs(two["accuracy"] - one["accuracy"]) <= 0.01, case
        assert {*two["integers"]} == {*one["integers"]} == {"body", "head"}
        for key in two["integers"]:
            ours, theirs = np.array(two["integers"][key]), np.array(one["integers"][key])
            assert ours.shape == theirs.shape, "filters"
            assert len(np.unique(ours)) <= 16, "4 bits"
            assert np.mean(ours == theirs) >= 0.97, (case, key)  # a weight on the border between two levels may fall to either
            if case == "masks":
                assert np.mean(ours == 0) >= 0.5


@pytest.mark.parametrize("wrong", ["all", 2, object(), tf.distribute.OneDeviceStrategy])
def test_what_shares_no_batches_is_refused(wrong):
    wrong = wrong("CPU:0") if callable(wrong) else wrong
    with pytest.raises(xaic.PlanError, match=r"strategy is .*Expected mirrored, or a tf\.distribute\.MirroredStrategy"):
        xaic.Training(strategy=wrong)


def test_a_strategy_of_ones_own_is_taken():
    mine = tf.distribute.MirroredStrategy(["CPU:0"])
    assert xaic.Training(strategy=mine).strategy is mine


def test_a_machine_without_gpus_says_so_before_any_work(tmp_path, monkeypatch):
    saved(tmp_path)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["one"] if kind == "CPU" else [])
    words = [tmp_path / "m.keras", "--data", tmp_path / "d.npz", "--out", tmp_path / "out", "--strategy", "mirrored"]
    result = CliRunner().invoke(app, ["compress", *map(str, words)])
    assert result.exit_code == 5
    assert "no GPU on this machine" in result.output
    assert "Leave out --strategy" in result.output
    assert not (tmp_path / "out").exists()


def test_a_call_inside_the_scope_of_a_strategy_is_refused():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope(), pytest.raises(xaic.PlanError, match="a call outside of it"):
        xaic.attribute(linear(np.eye(2)), np.eye(2, dtype=np.float32))
