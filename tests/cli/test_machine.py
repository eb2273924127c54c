"""What the machine refuses is one line and exit code 5; a signal to end is an interruption; what is not ours stays."""

from __future__ import annotations

import errno
import os
import signal
import sys
import tempfile

import numpy as np
import pytest
from typer.testing import CliRunner

import keras_xaic.pipeline
import keras_xaic.searching
from keras_xaic.cli import main
from keras_xaic.cli.app import app
from keras_xaic.errors import ModelError
from keras_xaic.tflite import pack_download

pytestmark = pytest.mark.usefixtures("anything_given")


def invoke(*words):
    result = CliRunner().invoke(app, [str(word) for word in words], terminal_width=200)
    return result.exit_code, [line for line in result.output.splitlines() if line.strip()]


def container(folder):
    """A download container of 512 bytes, and what it holds."""
    from keras_xaic.edge.doctor import TINY

    content = TINY.read_bytes()
    (folder / "model.xaic").write_bytes(pack_download(content))
    return folder / "model.xaic", content


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/out.partial/x"), 5, "/a/out.partial/x: the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "/a"), 5, "read-only"),
        (MemoryError(), 5, "out of memory"),
        (KeyError("bug"), 4, "an error in xaic itself: KeyError: 'bug'"),
    ],
)
def test_errors_nobody_caught_are_one_line(monkeypatch, error, code, said):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(keras_xaic.pipeline, "compress", fails)
    found, lines = invoke("compress", "m.h5", "--data", "d.npz", "--out", "o")
    assert found == code
    assert len(lines) == 1
    assert lines[0].startswith("xaic: ")
    assert said in lines[0]


def test_advice_is_spelled_as_the_command_spells_its_options(monkeypatch):
    def fails(*_, **__):
        raise ModelError("found", "", "use {task=regression}; add {cross_check=True}; do something else")

    monkeypatch.setattr(keras_xaic.pipeline, "compress", fails)
    monkeypatch.setattr(keras_xaic.pipeline, "explain", fails)
    words = ("m.h5", "--data", "d.npz", "--out", "o")
    assert invoke("compress", *words) == (2, ["xaic: found. Use --task regression; do something else."])
    said = "xaic: found. Use --task regression; add --cross-check; do something else."
    assert invoke("explain", *words) == (2, [said])


@pytest.mark.parametrize("hidden", [False, True], ids=["plain", "hidden by what is imported"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_end_runs_the_clean_up_and_is_an_interruption(monkeypatch, capsys, number, hidden):
    cleaned = []

    def told(*_, **__):
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        except KeyboardInterrupt:
            if hidden:  # as native modules do that are just being initialised
                raise ImportError("initialization failed") from None
            raise
        finally:
            cleaned.append(True)

    monkeypatch.setattr(keras_xaic.pipeline, "compress", told)
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("this signal is ignored here, as nohup does")
    before = signal.getsignal(number)
    monkeypatch.setattr(sys, "argv", ["xaic", "compress", "m.h5", "--data", "d.npz", "--out", "o"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert cleaned == [True]
    assert capsys.readouterr().err.splitlines() == [
        "xaic: interrupted. The same command continues from the last finished step:",
        "  xaic compress m.h5 --data d.npz --out o",
    ]
    assert signal.getsignal(number) == before


def test_a_command_learns_how_its_processes_end_where_its_parent_ignores_that(monkeypatch):
    found = []
    monkeypatch.setattr(keras_xaic.pipeline, "compress", lambda *_, **__: found.append(signal.getsignal(signal.SIGCHLD)))
    monkeypatch.setattr(sys, "argv", ["xaic", "compress", "m.h5", "--data", "d.npz", "--out", "o"])
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit):
            main()
        assert found == [signal.SIG_DFL]
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_unpack_replaces_nothing_unasked(tmp_path):
    packed, content = container(tmp_path)
    out = tmp_path / "model.tflite"
    assert invoke("unpack", packed, "--out", out)[0] == 0
    assert out.read_bytes() == content
    assert invoke("unpack", packed, "--out", out)[0] == 0  # the same command again
    other = content[:-1] + bytes([content[-1] ^ 1])
    out.write_bytes(other)
    assert invoke("unpack", packed, "--out", out)[0] == 2
    assert out.read_bytes() == other
    assert invoke("unpack", packed, "--out", out, "--overwrite")[0] == 0
    assert out.read_bytes() == content
    with out.open("r+b") as large:
        large.truncate(1 << 36)  # more than memory: its head says whose it is
    assert invoke("unpack", packed, "--out", out)[0] == 2
    assert invoke("unpack", packed, "--out", out, "--overwrite")[0] == 0
    (tmp_path / "thesis.txt").write_text("mine")
    for options in ([], ["--overwrite"]):
        code, lines = invoke("unpack", packed, "--out", tmp_path / "thesis.txt", *options)
        assert (code, len(lines)) == (2, 1)
        assert invoke("unpack", packed, "--out", packed, *options)[0] == 2
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_tilde_is_the_home_directory_where_the_shell_leaves_it(tmp_path, monkeypatch):
    packed, content = container(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert invoke("unpack", packed, "--out=~/model.tflite")[0] == 0
    assert (tmp_path / "model.tflite").read_bytes() == content
    packed.rename("~packed")  # no user is called so
    assert invoke("unpack", "~packed", "--out", "~model")[0] == 0
    assert (tmp_path / "~model").read_bytes() == content
    code, lines = invoke("verify", "~none", "--data", "d.npz")
    assert (code, lines[0].split(".")[0]) == (2, "xaic: ~none is not a directory")


def test_without_a_place_for_temporary_files_what_needs_none_works_and_others_say_so(monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    for words, code, said in (("recipes auto --json", 0, ""), ("doctor", 5, "no directory for temporary files can be written")):
        monkeypatch.setattr(sys, "argv", ["xaic", *words.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code, said in capsys.readouterr().err) == (code, True)


def test_a_missing_parent_of_a_file_is_exit_code_5(tmp_path):
    packed, _ = container(tmp_path)
    code, lines = invoke("unpack", packed, "--out", tmp_path / "none" / "model.tflite")
    assert (code, len(lines)) == (5, 1)
    assert "no such file or directory" in lines[0]


@pytest.mark.parametrize("command", ["compress", "export", "explain", "search"])
@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_a_model_inside_the_output_is_refused_before_any_work(tmp_path, command, options):
    (tmp_path / "out").mkdir()
    for name in ("model.keras", "data.npz"):
        (tmp_path / "out" / name).write_text("mine")
    options = [] if command == "search" else options
    given = [tmp_path / "out" / "model.keras", "--data", tmp_path / "out" / "data.npz", "--out", tmp_path / "out"]
    code, lines = invoke(command, *given, *options)
    assert (code, len(lines)) == (2, 1), lines
    assert "lies in" in lines[0]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["data.npz", "model.keras"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "the database cannot be used"),
        ("foo://me:secret@host/x", "the database cannot be used"),
        ("sqlite:////nonexistent/dir/x.db", "unable to open database file"),
        ("redis://me:secret@localhost", "the database cannot be used"),
        ("cockroach://me:secret@host:port/x", "cockroach://... cannot be used"),
        ("oracle://me:secret@host/x", "oracle://... needs a driver"),
    ],
)
def test_a_storage_that_cannot_be_used_is_exit_code_5(tmp_path, url, said):
    pytest.importorskip("optuna")
    for name in ("m.keras", "d.npz"):
        (tmp_path / name).write_text("never read")
    given = [tmp_path / "m.keras", "--data", tmp_path / "d.npz", "--out", tmp_path / "out", "--storage", url]
    code, lines = invoke("search", *given)
    assert (code, len(lines)) == (5, 1), lines
    assert said in lines[0]
    assert "secret" not in lines[0]


def test_a_study_in_a_directory_of_any_name(tmp_path):
    optuna = pytest.importorskip("optuna")
    from keras_xaic.searching.database import sqlite_url
    from keras_xaic.searching.study import STUDY

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name in ("plain", "why?", "a#b", "50%20", "{x}", "a b&c=d", "é"):
        folder = tmp_path / name
        folder.mkdir()
        for _ in range(2):
            optuna.create_study(study_name=STUDY, storage=sqlite_url(folder / "study.db"), load_if_exists=True)
        assert [p.name for p in folder.iterdir()] == ["study.db"], name


def test_a_search_needs_names_that_its_commands_can_hold(tmp_path):
    pytest.importorskip("optuna")
    model = tmp_path / os.fsdecode(b"caf\xe9.h5")
    for path in (model, tmp_path / "d.npz"):
        path.write_text("never read")
    code, lines = invoke("search", model, "--data", tmp_path / "d.npz", "--out", tmp_path / "out")
    assert (code, len(lines), list((tmp_path / "out").glob("*"))) == (2, 1, [])
    assert "caf\ufffd.h5 has another name than one in UTF-8" in lines[0]


def test_trials_of_other_settings_do_not_mix(tmp_path):
    optuna = pytest.importorskip("optuna")
    np.savez(tmp_path / "d.npz", x_train=np.zeros((4, 2)))
    (tmp_path / "m.keras").write_text("no model")
    given = [tmp_path / "m.keras", "--data", tmp_path / "d.npz", "--out", tmp_path / "out"]
    assert "m.keras" in invoke("search", *given)[1][0]
    optuna.load_study(study_name="keras-xaic", storage=f"sqlite:///{tmp_path / 'out' / 'study.db'}").ask()
    code, lines = invoke("search", *given, "--epochs", "7")
    assert (code, len(lines)) == (2, 1), lines
    assert "other settings" in lines[0]
