"""Files appear whole or not at all, and what the machine refuses is one clear error."""

from __future__ import annotations

import errno
import gc
import os
import pathlib
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from keras_xaic.data import load_data
from keras_xaic.edge.inspect_file import read_file
from keras_xaic.errors import DataError, MachineError
from keras_xaic.files import machine_error, not_there, save_array, save_arrays, tells_machine_errors, write_atomic, writing
from keras_xaic.hdf5 import check_model_path
from keras_xaic.json_files import read_json
from keras_xaic.npz import Npz


def test_a_block_that_fails_leaves_the_old_content(tmp_path):
    target = tmp_path / "values.npy"
    save_array(target, np.arange(3))
    with pytest.raises(TypeError), writing(target) as file:
        file.write(b"half" + None)
    assert np.load(target).tolist() == [0, 1, 2]
    assert os.listdir(tmp_path) == ["values.npy"]


def test_a_process_killed_while_writing_leaves_the_old_content_and_the_next_write_cleans_up(tmp_path):
    target = tmp_path / "values.bin"
    write_atomic(target, b"old")
    script = (
        "import os, signal, sys\nfrom keras_xaic.files import writing\n"
        "with writing(sys.argv[1]) as file:\n    file.write(b'half')\n    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(target)], check=False).returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2
    write_atomic(target, b"new")
    assert os.listdir(tmp_path) == ["values.bin"]
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("name", ["b" * 255, "é" * 127, "b" * 241])
def test_a_name_may_be_as_long_as_the_system_allows(tmp_path, name):
    (tmp_path / f".{'b' * 200}.abcdefgh.part").touch()
    (tmp_path / f".{name[:50]}.letter.to.ann.part").write_text("mine")
    for content in ("old", "new"):
        write_atomic(tmp_path / name, content)
    assert (tmp_path / name).read_text() == "new"
    assert sum(".part" in path.name for path in tmp_path.iterdir()) == (1 if name[0] == "b" else 2)
    with pytest.raises(MachineError, match="the name is too long"):
        write_atomic(tmp_path / f"{name}{'b' * 15}", "new")


def test_what_a_living_process_is_writing_is_left_alone(tmp_path):
    target = tmp_path / "values.bin"
    with writing(target) as slow:
        slow.write(b"slow")
        write_atomic(target, b"fast")
        assert target.read_bytes() == b"fast"
    assert target.read_bytes() == b"slow"
    assert os.listdir(tmp_path) == ["values.bin"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "there.json")
    write_atomic(tmp_path / "link.json", "{}")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real" / "there.json").read_text() == "{}"


def test_devices_and_directories_are_not_replaced(tmp_path):
    before = os.stat("/dev/null")
    for path in ("/dev/null", tmp_path):
        with pytest.raises(MachineError, match="not a plain file"):
            write_atomic(path, "x")
    assert os.stat("/dev/null").st_rdev == before.st_rdev


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_atomic(path, bytes(1 << 20)),
        lambda path: save_array(path, np.zeros(1 << 17)),
        lambda path: save_arrays(path, {"a": np.arange(4), "b": np.zeros(1 << 17)}, compressed=False),
        lambda path: save_arrays(path, {"a": np.random.default_rng(0).random(1 << 17)}),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch, write):
    """A limit on the size of files stands for the disk: both refuse in the middle of writing."""
    target, later = tmp_path / "big", []
    monkeypatch.setattr(sys, "unraisablehook", later.append)
    write_atomic(target, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(MachineError, match=r"big: (the file is larger|the disk is full)") as caught:
            write(target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.exit_code == 5
    del caught
    gc.collect()
    assert not later
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["big"]


def test_a_missing_parent_is_one_line(tmp_path):
    with pytest.raises(MachineError, match=r"no such file or directory.*Make the directory first"):
        save_arrays(tmp_path / "none" / "a.npz", {"a": np.zeros(1)})


def test_a_working_directory_that_was_removed_is_named(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        os.path.realpath("data.npz")
    assert str(machine_error(caught.value)).startswith("the directory that this runs in does not exist any more. Change")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "/a/b: the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "/a/b"), "/a/b: the file system is read-only"),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found"),
            "no directory for temporary files",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "/a/b: no permission"),
        (OSError("40 requested and 0 written"), "the disk is full"),
        (RuntimeError("Can't decrement id ref count (file write failed: errno = 28, error message = ...)"), "the disk is full"),
        (MemoryError("Unable to allocate 7 TiB"), "out of memory (Unable to allocate 7 TiB)"),
        (type("ResourceExhaustedError", (Exception,), {})("/x/epoch-1; No space left on device"), "the disk is full"),
        (type("ResourceExhaustedError", (Exception,), {})("OOM when allocating"), "out of memory (OOM when allocating)"),
    ],
)
def test_errors_of_the_machine_are_known_by_what_they_are(error, said):
    assert str(machine_error(error)).startswith(said)

    @tells_machine_errors
    def function():
        raise error

    with pytest.raises(MachineError):
        function()


@pytest.mark.parametrize("read", [Npz, read_json, read_file, check_model_path, load_data])
def test_what_may_not_be_read_is_no_damage(tmp_path, monkeypatch, read):
    def refused(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setattr(pathlib.Path, "open", refused)
    with pytest.raises(MachineError, match=r"file: no permission\. Change its permissions"):
        read(tmp_path / "file")
    with pytest.raises(MachineError, match="the name is too long"):
        not_there("b" * 300)


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), KeyboardInterrupt(), DataError("x"), TimeoutError("x")])
def test_other_errors_stay_what_they_are(error):
    assert machine_error(error) is None


def test_passwords_of_databases_are_not_repeated():
    error = type("SQLAlchemyError", (Exception,), {})("cannot reach postgresql://me:secret@host/db")
    assert "secret" not in str(machine_error(error))


def test_what_a_library_says_at_the_end_of_a_long_text_is_heard():
    ResourceExhaustedError = type("ResourceExhaustedError", (Exception,), {})
    said = ResourceExhaustedError(f"{{{{function_node {'x' * 300}}}}} /out.partial/train/part-0; No space left on device")
    assert "the disk is full" in str(machine_error(said))
    assert "out of memory" in str(machine_error(ResourceExhaustedError("tensor of 9 GB")))


@pytest.mark.parametrize("mask", ["0077", "0002", "0022"])
def test_who_may_read_a_file_is_as_before_and_for_a_new_one_as_the_mask_says(tmp_path, mask):
    kept = tmp_path / "kept"
    kept.write_bytes(b"old")
    kept.chmod(0o640)
    script = (
        "import os, sys\nfrom keras_xaic.files import write_atomic\n"
        f"os.umask(0o{mask})\nfor name in sys.argv[1:]:\n    write_atomic(name, b'new')"
    )
    subprocess.run([sys.executable, "-c", script, str(kept), str(tmp_path / "fresh")], check=True)
    assert kept.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o666 & ~int(mask, 8)
