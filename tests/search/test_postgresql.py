"""Searches on several machines share one study in a PostgreSQL database; here two processes and a server of the test's own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from keras_xaic.report import read_front
from tests.nets import saved
from tests.search.lost import check_that_a_lost_trial_begins_again

optuna = pytest.importorskip("optuna")
pytest.importorskip("psycopg2", reason="psycopg2 is not installed: pip install 'keras-xaic[cluster]'")
pytestmark = pytest.mark.slow


@pytest.mark.timeout(900)
def test_two_searches_share_a_study_and_say_so_when_the_server_is_gone(server, tmp_path):
    stop, url = server
    saved(tmp_path)

    def words(out, trials):
        given = [tmp_path / "m.keras", "--data", tmp_path / "d.npz", "--out", tmp_path / out, "--storage", url]
        given += ["--trials", trials, "--epochs", 0, "--target", "mobile", "--quiet"]
        return [sys.executable, "-m", "keras_xaic.cli", "search", *map(str, given)]

    outs, said = ("one", "two"), {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.run(words("one", 1), check=False, **said)  # makes the study
    assert first.returncode == 0, first.stderr
    processes = [subprocess.Popen(words(out, 4), **said) for out in outs]
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    found = [read_front(tmp_path / out / "front.json").points for out in outs]
    assert max(map(len, found)) >= 4
    values = [{one.trial: one.values for one in points} for points in found]
    assert all(values[0][trial] == values[1][trial] for trial in values[0].keys() & values[1].keys())
    ran = [{int(path.name) for path in (tmp_path / out / "trials").iterdir()} for out in outs]
    assert ran[0]
    assert ran[1]
    assert not ran[0] & ran[1]  # no trial ran twice
    assert set().union(*values) == ran[0] | ran[1]

    stop()
    lost = subprocess.run(words("one", 9), check=False, **said)
    assert lost.returncode == 5
    assert "Traceback" not in lost.stderr


def test_a_trial_of_a_machine_that_died_is_taken_for_lost(server, tmp_path, monkeypatch):
    _, url = server
    check_that_a_lost_trial_begins_again(optuna, url, tmp_path, monkeypatch)
