"""Only what carries our own mark is replaced or deleted, and one process at a time writes a directory."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import warnings

import pytest

from keras_xaic import locks, ownership, temporary
from keras_xaic.errors import ExportError, MachineError
from keras_xaic.ownership import Mark, check_continued, check_file, output
from keras_xaic.temporary import sweep, temporary_directory


def tree(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write_bundle(out, content="new", job="", **options):
    with output(out, "bundle", **options) as place:
        if place.start(job):
            return False
        with place.fresh() as scratch:
            (scratch / "model.tflite").write_text(content)
    return True


def in_another_process(code: str, *arguments: object, wait: bool = True):
    head = "import os, signal, sys, time, pathlib\nfrom keras_xaic import ownership\nfrom keras_xaic.ownership import *\n"
    process = subprocess.Popen([sys.executable, "-c", head + code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    if wait:
        process.wait()
        process.stdout.close()
    return process


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(IsADirectoryError), output(tmp_path / "out", "bundle") as place, place.fresh() as scratch:
        scratch.write_text("half")
    assert list(tmp_path.iterdir()) == []
    write_bundle(tmp_path / "out")
    assert tree(tmp_path).keys() == {"out/.xaic", "out/model.tflite"}


def test_overwriting_leaves_nothing_of_the_old(tmp_path):
    for content in ("old", "new"):
        write_bundle(tmp_path / "out", content, overwrite=True)
    assert (tmp_path / "out" / "model.tflite").read_text() == "new"
    assert tree(tmp_path).keys() == {"out/.xaic", "out/model.tflite"}


@pytest.mark.parametrize("mode", [0o700, 0o2770, 0o777])
def test_who_may_enter_a_directory_stays_as_it_was(tmp_path, mode):
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(mode)
    for content in ("old", "new"):
        write_bundle(tmp_path / "out", content, overwrite=True)
        assert (tmp_path / "out").stat().st_mode & 0o7777 == mode


def ours_with_a_strange_file(folder):
    write_bundle(folder)
    (folder / "notes.txt").write_text("mine")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda out: out.mkdir() or (out / "thesis.txt").write_text("mine"), "not empty"),
        (lambda out: out.mkdir() or (out / ".hidden").write_text("mine"), "not empty"),
        (lambda out: out.mkdir() or (out / ".xaic").write_text("{}"), "not empty"),
        (lambda out: out.mkdir() or (out / ".xaic").symlink_to("/nowhere"), "not empty"),
        (lambda out: out.mkdir() or (out / "photos").mkdir(), "not empty"),
        (ours_with_a_strange_file, "not empty|holds notes.txt, which xaic did not write"),
        (lambda out: out.write_text("mine"), "is a file"),
        (lambda out: out.symlink_to(out.parent / "nowhere"), "is a link to .*nowhere, which does not exist"),
        (lambda out: out.with_name("out.partial").mkdir(), r"out\.partial is there and xaic did not write it"),
        (lambda out: out.with_name("out.partial").write_text("mine"), r"out\.partial is there and xaic did not write it"),
        (lambda out: out.with_name("out.partial").symlink_to("/nowhere"), r"out\.partial is there and xaic did not write it"),
        (lambda out: out.with_name(".out.xaic-lock").write_text("mine"), "is not a lock of ours"),
    ],
)
def test_what_is_not_ours_is_refused_and_untouched(tmp_path, make, said, overwrite):
    make(tmp_path / "out")
    before, names = tree(tmp_path), sorted(str(p) for p in tmp_path.rglob("*"))
    with pytest.raises(ExportError, match=said) as caught:
        write_bundle(tmp_path / "out", overwrite=overwrite)
    assert caught.value.exit_code == 2
    assert tree(tmp_path) == before
    assert sorted(str(p) for p in tmp_path.rglob("*")) == names


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_a_user_puts_there_while_a_command_runs_stays(tmp_path, overwrite):
    out = tmp_path / "out"
    with output(out, "bundle", overwrite=overwrite) as place:
        place.start("job")
        (place.work / "bundle").mkdir()
        (place.work / "bundle" / "model.tflite").write_text("new")
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
        with pytest.raises(ExportError, match=r"not empty.*since this command began.*Move it away"):
            place.publish(place.work / "bundle")
    assert tree(out) == {"thesis.txt": b"mine"}
    (out / "thesis.txt").rename(tmp_path / "thesis.txt")
    with output(out, "bundle") as place:
        assert not place.start("job")
        place.publish(place.work / "bundle")
    assert (out / "model.tflite").read_text() == "new"


@pytest.mark.parametrize("inside", [".", "check"])
def test_the_directory_that_one_is_in_is_never_replaced(tmp_path, monkeypatch, inside):
    write_bundle(tmp_path / "out")
    (tmp_path / "out" / "check").mkdir()
    (tmp_path / "empty" / "check").mkdir(parents=True)
    for name in ("out", "empty"):
        monkeypatch.chdir(tmp_path / name / inside)
        with pytest.raises(ExportError, match="is or holds the directory that this runs in"):
            write_bundle(os.path.relpath(tmp_path / name), overwrite=True)
    write_bundle(tmp_path / "empty" / "check" / "out")
    assert check_continued(tmp_path / "empty" / "check" / "search", "search").name == "search"


@pytest.mark.parametrize(
    "entries",
    [
        {"kind": 5},
        {"kind": ""},
        {"kind": "bundle", "files": [["a"]]},
        {"kind": "project", "digests": [3]},
        {"kind": "bundle", "finished": 3},
    ],
)
def test_a_mark_that_somebody_edited_is_none(tmp_path, entries):
    write_bundle(tmp_path / "out")
    (tmp_path / "out" / ".xaic").write_text(json.dumps({"by": "keras-xaic", **entries}))
    with pytest.raises(ExportError, match="never replaced"):
        write_bundle(tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("entries", [{}, {"pid": "x", "host": "h", "since": ""}, {"pid": 1}])
def test_signatures_that_somebody_edited_are_none(tmp_path, entries):
    signed = json.dumps({"by": "keras-xaic", **entries})
    (tmp_path / ".out.xaic-lock").write_text(signed)
    with pytest.raises(ExportError, match="is not a lock of ours"):
        write_bundle(tmp_path / "out")
    (tmp_path / "xaic-tmp-abcdefgh").mkdir()
    (tmp_path / "xaic-tmp-abcdefgh" / ".owner").write_text(signed)
    sweep(tmp_path)
    assert (tmp_path / "xaic-tmp-abcdefgh").exists()


def test_overwrite_replaces_only_the_same_kind(tmp_path):
    write_bundle(tmp_path / "out")
    with (
        pytest.raises(ExportError, match="holds a bundle, not an explanation"),
        output(tmp_path / "out", "explanation", overwrite=True),
    ):
        pass


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("inside", ["out/data.npz", "out.partial/data.npz", "out", "out/deep/model.keras", "link/data.npz"])
def test_an_input_inside_the_output_is_refused(tmp_path, inside, overwrite):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    given = tmp_path / inside
    if not inside.startswith("link"):
        given.parent.mkdir(parents=True, exist_ok=True)
        given.touch() if given.suffix else given.mkdir()
    with pytest.raises(ExportError, match=r"the input .* lies in .*out"):
        write_bundle(tmp_path / "out", overwrite=overwrite, inputs=[object(), given])


@pytest.mark.parametrize(("name", "ours"), [("report.html", '<meta name="generator" content="keras-xaic">'),
                                             ("UNVERIFIED.txt", "Do not use this bundle as it is. It hung.")])  # fmt: skip
def test_what_commands_add_later_is_replaced_only_if_they_wrote_it(tmp_path, name, ours):
    out = tmp_path / "out"
    write_bundle(out)
    (out / f".{name}.abcdefgh.part").write_text("half")
    (out / name).write_text("<h1>mine</h1>")
    with pytest.raises(ExportError, match=f"holds {name}, which xaic did not write"):
        write_bundle(out, overwrite=True)
    assert (out / name).read_text() == "<h1>mine</h1>"
    (out / name).unlink()
    os.mkfifo(out / name)
    with pytest.raises(ExportError, match=f"holds {name}, which xaic did not write"):
        write_bundle(out, overwrite=True)
    (out / name).unlink()
    (out / name).write_text(ours)
    write_bundle(out, overwrite=True)
    assert tree(out).keys() == {".xaic", "model.tflite"}


def test_a_name_that_leaves_no_room_for_those_beside_it_is_refused_before_any_work(tmp_path):
    for name in ("b" * ownership.MOST_NAME, "é" * (ownership.MOST_NAME // 2)):
        for content in ("old", "new"):
            write_bundle(tmp_path / name, content, "job", overwrite=True)
    for name in ("a" * (ownership.MOST_NAME + 1), "a" * 5000, "é" * 120):
        with pytest.raises(ExportError, match=rf"has {len(name.encode())} bytes. Expected at most {ownership.MOST_NAME}"):
            write_bundle(tmp_path / name)


def test_an_output_among_the_images_of_a_data_directory_is_refused(tmp_path):
    with pytest.raises(ExportError, match="lies in the input"):
        write_bundle(tmp_path / "out", inputs=[tmp_path])


def test_a_link_to_a_directory_stays_one(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    for content in ("old", "new"):
        write_bundle(tmp_path / "out", content, overwrite=True)
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "real" / "model.tflite").read_text() == "new"


def test_parents_are_made_and_taken_away_if_nothing_was_written(tmp_path):
    with pytest.raises(ZeroDivisionError), output(tmp_path / "a" / "b" / "out", "bundle"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    write_bundle(tmp_path / "a" / "b" / "out")
    assert (tmp_path / "a" / "b" / "out" / "model.tflite").is_file()


def test_a_parent_that_is_a_file_and_a_place_without_write_permission(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match="file is not a directory"):
        write_bundle(tmp_path / "file" / "out")
    with pytest.raises(MachineError) as caught:
        write_bundle("/proc/nothing/out")
    assert caught.value.exit_code == 5


def test_the_second_process_says_who_is_at_work(tmp_path):
    code = "with output(sys.argv[1], 'bundle'):\n    print('ready', flush=True)\n    time.sleep(60)"
    first = in_another_process(code, tmp_path / "out", wait=False)
    try:
        assert first.stdout.readline() == "ready\n"
        started = time.monotonic()
        with pytest.raises(ExportError, match=rf"written by another process: {first.pid} on \S+ since \d{{4}}-") as caught:
            write_bundle(tmp_path / "out", overwrite=True)
        assert time.monotonic() - started < 1
        assert caught.value.exit_code == 2
        assert write_bundle(tmp_path / "other")
    finally:
        first.kill()
        first.wait()
        first.stdout.close()
    assert write_bundle(tmp_path / "out")  # the lock of a dead process is taken over
    assert {p.name for p in tmp_path.iterdir()} == {"out", "other"}


def test_the_same_process_is_kept_out_too(tmp_path):
    with output(tmp_path / "out", "bundle"), pytest.raises(ExportError, match=f"another process: {os.getpid()} on"):
        write_bundle(tmp_path / "out")


def test_where_there_are_no_locks_the_process_is_asked(tmp_path, monkeypatch):
    for module in (locks, temporary):
        monkeypatch.setattr(module, "hold", lambda handle, wait=False: None)
    with output(tmp_path / "out", "bundle"), pytest.raises(ExportError, match=f"another process: {os.getpid()} on"):
        write_bundle(tmp_path / "out")
    facts = {"by": "keras-xaic", "pid": os.getpid(), "start": 1, "host": os.uname().nodename, "since": "2020-01-01 00:00:00"}
    (tmp_path / ".out.xaic-lock").write_text(json.dumps(facts))  # of a process that had our id before us
    assert write_bundle(tmp_path / "out")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("moment", ["_finish", "_remove_work", "Mark.write"])
def test_killed_between_publishing_and_cleaning_up_the_same_command_finishes(tmp_path, moment, overwrite):
    """The process dies at the second call where the first one comes before publishing."""
    if overwrite:
        write_bundle(tmp_path / "out", "old", job="old")
    code = f"""
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
with output(sys.argv[1], 'bundle', overwrite={overwrite}) as place:
    place.start('job')
    (place.work / 'bundle').mkdir()
    (place.work / 'bundle' / 'model.tflite').write_text('new')
    write = Mark.write
    def late(self, directory): return die() if self.finished else write(self, directory)
    if {moment!r} == 'Mark.write': Mark.write = late
    else: setattr(ownership.Output, {moment!r}, die)
    place.publish(place.work / 'bundle')
"""
    assert in_another_process(code, tmp_path / "out").returncode == -signal.SIGKILL
    assert (tmp_path / "out" / "model.tflite").read_text() == "new"
    with pytest.raises(ExportError, match="not empty"):
        write_bundle(tmp_path / "out", job="another")
    assert write_bundle(tmp_path / "out", job="job", overwrite=overwrite) is False
    assert {p.name for p in tmp_path.iterdir()} == {"out"}
    assert Mark.read(tmp_path / "out") == Mark("bundle", "job", True, ("model.tflite",))


def overwrite_in_a_fork(out: pathlib.Path, swaps: bool, calls: float) -> int:
    """Replaces a bundle in a process that dies, without any clean-up, before its system call number `calls`."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = calls

    def counted(function):
        def call(*arguments, **options):
            nonlocal left
            left -= 1
            return function(*arguments, **options) if left >= 0 else os._exit(9)

        return call

    code = 1
    try:
        for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
            setattr(os, name, counted(getattr(os, name)))
        for name in ("rename", "unlink", "rmdir", "mkdir"):
            setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
        ownership._exchange = counted(ownership._exchange if swaps else lambda *_: False)
        with output(out, "bundle", overwrite=True) as place:
            if not place.start("new"):
                (place.work / "bundle").mkdir(exist_ok=True)
                (place.work / "bundle" / "model.tflite").write_text("new")
                place.publish(place.work / "bundle")
        code = 0
    finally:
        os._exit(code)


@pytest.mark.parametrize("swaps", [True, False])
def test_killed_before_any_system_call_of_an_overwrite_the_old_or_the_new_is_there(tmp_path, swaps):
    """Where the system cannot swap two names the next command puts it right."""
    code = f"import pathlib, sys, tests.test_ownership as here; here.kill_before_any(pathlib.Path(sys.argv[1]), {swaps})"
    # In a small process: copies of one that has loaded TensorFlow take a tenth of a second each.
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 8


def kill_before_any(folder: pathlib.Path, swaps: bool) -> None:
    died, out = 0, folder / "out"
    for moment in range(200):
        write_bundle(out, "old", job="old", overwrite=True)
        code = overwrite_in_a_fork(out, swaps, moment)
        assert code in (0, 9)
        if swaps:
            assert (out / "model.tflite").read_text() in ("old", "new")
        if code == 0:
            break
        died += 1
        assert overwrite_in_a_fork(out, swaps, float("inf")) == 0, moment
        assert (out / "model.tflite").read_text() == "new"
        assert tree(folder).keys() == {"out/.xaic", "out/model.tflite"}, moment
        assert {p.name for p in folder.iterdir()} == {"out"}, moment
    assert code == 0
    print(died)


def test_finished_steps_are_kept_for_the_same_job_only(tmp_path):
    for job, expected, told in (("one", None, 0), ("one", "step", 0), ("two", None, 1)):
        with output(tmp_path / "out", "bundle") as place:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                place.start(job)
            assert ["out.partial held steps of an interrupted command" in str(one.message) for one in said] == [True] * told
            kept = place.work / "step.json"
            assert (kept.read_text() if kept.exists() else None) == expected
            kept.write_text("step")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_dead_process_left_in_the_temporary_directory_goes_with_the_next_command(tmp_path, monkeypatch, number):
    code = (
        "with temporary_directory(sys.argv[1]) as place:\n    (place / 'x_test.npy').write_text('data')\n"
        "    (place / 'sub').mkdir()\n    print(place, flush=True)\n    time.sleep(60)"
    )
    with temporary_directory(tmp_path) as mine:
        (mine / "data").write_text("x")
        process = in_another_process(code, tmp_path, wait=False)
        left = pathlib.Path(process.stdout.readline().strip())
        sweep(tmp_path)
        assert (left / "x_test.npy").exists()  # it is alive
        process.send_signal(number)
        process.wait()
        process.stdout.close()
        assert left.exists()
        foreign = tmp_path / "xaic-tmp-abcdefgh"
        foreign.mkdir()
        (foreign / "thesis.txt").write_text("mine")
        sweep(tmp_path)
        assert not left.exists()
        assert (mine / "data").exists()
        assert (foreign / "thesis.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["xaic-tmp-abcdefgh"]


def test_a_temporary_directory_is_this_users_under_any_mask_and_none_is_left_where_it_has_no_owner(tmp_path, monkeypatch):
    before = os.umask(0o777)
    try:
        with temporary_directory(tmp_path) as made:
            assert made.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(temporary.os, "open", full)
    with pytest.raises(MachineError, match="the disk is full"), temporary_directory(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_files_are_replaced_only_if_they_are_ours_and_on_request(tmp_path):
    out = tmp_path / "plan.json"
    assert check_file(out, "a plan", False, False) == out
    out.write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ExportError, match="exists and is not a plan"):
            check_file(out, "a plan", False, overwrite)
    with pytest.raises(ExportError, match=r"exists\. .*overwrite"):
        check_file(out, "a plan", True, False)
    assert check_file(out, "a plan", True, True) == out
    with pytest.raises(ExportError, match="is the input"):
        check_file(out, "a plan", True, True, inputs=[str(out)])
    with pytest.raises(ExportError, match="is a directory"):
        check_file(tmp_path, "a plan", True, True)
    assert check_file(tmp_path / "new.json", "a plan", False, False, inputs=[tmp_path]), "beside what it is made of"
    (tmp_path / "output").symlink_to("/proc/self/fd/1")
    for device in ("/dev/null", "/dev/stdout", tmp_path / "output"):
        reading, writing = os.pipe()
        before = os.dup(1)
        os.dup2(writing, 1)
        try:
            with pytest.raises(ExportError, match="exists and is not a plan"):
                check_file(device, "a plan", False, True)
        finally:
            for one in (reading, writing):
                os.close(one)
            os.dup2(before, 1)
            os.close(before)
