"""Kills, full disks and races against `xaic compress` on digits: the same command finishes, and every file is as without them.

``XAIC_FAULTS`` sets how many kills there are (a third as many full disks, a tenth as many races), ``XAIC_FAULTS_TABLE`` names a
file to which one line per try is added.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator

import pytest

KILLS = int(os.environ.get("XAIC_FAULTS", "9"))
DISKS, RACES = -(-KILLS // 3), -(-KILLS // 10)
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MAKE = """
import sys, numpy as np
from sklearn.datasets import load_digits
from keras_xaic._keras import keras, layers
x, y = load_digits(return_X_y=True)
x = (x.reshape(-1, 8, 8, 1) / 16).astype("float32")
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(8, 3, activation="relu"), layers.Flatten(),
                          layers.Dense(10, activation="softmax")])
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(x[:600], y[:600], epochs=3, verbose=0)
model.save(sys.argv[1] + "/digits.keras")
np.savez(sys.argv[1] + "/digits.npz", x_train=x[:600], y_train=y[:600], x_test=x[600:800], y_test=y[600:800])
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]


def command(folder: pathlib.Path, out: pathlib.Path, *options: str) -> list[str]:
    start = [sys.executable, "-m", "keras_xaic.cli", "compress", str(folder / "digits.keras")]
    budget = ["--flash", "5kB", "--max-drop", "20", "--epochs", "2", "--baselines", "", "--target", "mobile", "--quiet"]
    return [*start, "--data", str(folder / "digits.npz"), "--out", str(out), *budget, *options]


def environment(temporary: pathlib.Path) -> dict[str, str]:
    temporary.mkdir(exist_ok=True)
    return {**os.environ, "TMPDIR": str(temporary), "TF_CPP_MIN_LOG_LEVEL": "3"}


def begin(words: list[str], temporary: pathlib.Path) -> subprocess.Popen[str]:
    """Starts a command that the keyboard can interrupt, also where these tests run in the background of a shell."""
    return subprocess.Popen(
        words,
        env=environment(temporary),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def living(temporary: pathlib.Path) -> list[str]:
    """Returns the processes that a command with this directory for temporary files, or a child of it, left behind."""
    found, end = [""], time.monotonic() + 10
    while found and time.monotonic() < end:
        found = []
        for place in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"TMPDIR={temporary}".encode() in (place / "environ").read_bytes():
                    found.append((place / "cmdline").read_text().replace("\0", " "))
        time.sleep(0.1)
    return found


def finish(words: list[str], temporary: pathlib.Path, codes: tuple[int, ...] = (0, 3)) -> str:
    done = subprocess.run(words, env=environment(temporary), capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert done.returncode in codes, said
    return said


def contents(bundle: pathlib.Path) -> dict[str, object]:
    """Returns what every file holds; of an archive its members, of the report what no clock decides."""
    found: dict[str, object] = {}
    for path in sorted(p for p in bundle.rglob("*") if p.is_file()):
        name = path.relative_to(bundle).as_posix()
        if path.suffix in (".npz", ".keras"):
            with zipfile.ZipFile(path) as archive:
                found[name] = {member: archive.read(member) for member in archive.namelist()}
            if "metadata.json" in found[name]:
                found[name]["metadata.json"] = {**json.loads(found[name]["metadata.json"]), "date_saved": ""}
        elif name == "report.json":
            found[name] = timeless(json.loads(path.read_text()))
        elif name == "report.html":
            found[name] = "Traceback" in path.read_text()
        elif name == ".xaic":
            found[name] = {**json.loads(path.read_text()), "job": ""}
        else:
            found[name] = path.read_bytes()
    return found


def timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in ("seconds", "latency_ms", "peak_memory_bytes")}
    if isinstance(value, list):
        return [timeless(part) for part in value if not (isinstance(part, str) and re.search(r"\d [um]?s\b", part))]
    return value


@contextlib.contextmanager
def noted(*columns: object) -> Iterator[list[object]]:
    """Adds a line to the table, whether or not the block ends well; it may add columns."""
    told = "failed"
    row = list(columns)
    try:
        yield row
        told = "completed"
    except AssertionError as error:
        row.append(" ".join(str(error).split())[:400])
        raise
    finally:
        if table := os.environ.get("XAIC_FAULTS_TABLE"):
            with open(table, "a", encoding="utf-8") as file:
                file.write(" | ".join(str(column) for column in (told, *row)) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("faults")
    subprocess.run([sys.executable, "-c", MAKE, str(place)], check=True)
    return place


@pytest.fixture(scope="module")
def reference(folder):
    """What a run gives that nothing disturbs, and how long it takes."""
    start = time.monotonic()
    finish(command(folder, folder / "reference"), folder / "tmp-reference")
    taken = time.monotonic() - start
    assert list((folder / "tmp-reference").iterdir()) == []
    return contents(folder / "reference"), taken


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_a_random_moment_the_same_command_completes(folder, reference, tmp_path, number):
    expected, taken = reference
    kind = SIGNALS[number % len(SIGNALS)]
    options = ["--overwrite"] if number % 2 else []
    if options:
        shutil.copytree(folder / "reference", tmp_path / "out")
    (tmp_path / "thesis.txt").write_text("mine")
    words = command(folder, tmp_path / "out", *options)
    moment = random.Random(number).uniform(0.02, 1.0) * taken
    with noted(kind.name, "--overwrite" if options else "", f"at {moment / taken:.2f}") as row:
        process = begin(words, tmp_path / "tmp")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        process.send_signal(kind)
        said, _ = process.communicate()
        row.append(f"ended with {process.returncode}")
        assert not living(tmp_path / "tmp")
        # Before its first line our code has no say in how Python ends.
        # Python ends itself by SIGINT, which shells show as 130, where an interruption met code that a native module runs.
        assert process.returncode in (-kind, -signal.SIGINT, 0, 3, 130), said
        assert "Traceback" not in said or (process.returncode == -signal.SIGINT and "keras_xaic" not in said), said
        if process.returncode == 130:
            assert said.startswith("xaic: interrupted."), said
            assert list((tmp_path / "tmp").iterdir()) == []
        if options:
            assert (tmp_path / "out" / "model.tflite").is_file()
        finished = process.returncode == 0 or (not options and (tmp_path / "out" / "report.json").is_file())
        mark = tmp_path / "out" / ".xaic"
        over = finished and not (tmp_path / "out.partial").exists() and '"finished": true' in mark.read_text()
        if not over or options:
            finish(words, tmp_path / "tmp")
        assert contents(tmp_path / "out") == expected
        assert (tmp_path / "thesis.txt").read_text() == "mine"
        assert {p.name for p in tmp_path.iterdir()} == {"out", "thesis.txt", "tmp"}
        assert list((tmp_path / "tmp").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own whose size can be set."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("mounting a small file system needs root")
    yield place, lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("number", range(DISKS))
def test_a_full_disk_is_exit_code_5_and_the_same_command_completes(folder, reference, small_disk, tmp_path, number):
    expected, _ = reference
    place, resize = small_disk
    size = round(4 * 170 ** (number / max(1, DISKS - 1)))  # kB; a run needs more than 300
    temporary = place / "tmp" if number % 2 else tmp_path / "tmp"
    resize(f"{size}k")
    (place / "out.txt").write_text("mine")
    words = command(folder, place / "out")
    with noted("disk", f"{size} kB", "temporary files too" if number % 2 else "") as row:
        said = finish(words, temporary, (0, 3, 5))
        failed = "disk is full" in said
        row.append("full" if failed else "large enough")
        assert failed or (place / "out").is_dir(), said
        if failed:
            assert len([line for line in said.splitlines() if line.startswith("xaic: ")]) == 1
            resize("64m")
            finish(words, temporary)
        assert contents(place / "out") == expected
        assert (place / "out.txt").read_text() == "mine"
        assert list(temporary.iterdir()) == []


def test_of_two_runs_at_once_one_is_refused_and_the_other_is_whole(folder, reference, tmp_path):
    expected, _ = reference
    for number in range(RACES):
        out = tmp_path / f"out{number}"
        with noted("race", number) as row:
            wishes = [command(folder, out), command(folder, out, "--seed", "7")]
            processes = []
            for words in wishes[:: 1 if number % 2 else -1]:
                processes.append(begin(words, tmp_path / "tmp"))
            said = [process.communicate()[0] for process in processes]
            codes = [process.returncode for process in processes]
            row.append(f"ended with {codes}")
            assert sorted(code == 2 for code in codes) == [False, True], said
            assert "is being written by another process" in said[codes.index(2)]
            seed = json.loads((out / "report.json").read_text())["seed"]
            if seed == 0:
                assert contents(out) == expected
            assert {p.name for p in tmp_path.iterdir()} >= {out.name, "tmp"}
            assert not [p.name for p in tmp_path.iterdir() if "partial" in p.name or p.name.startswith(".")]
