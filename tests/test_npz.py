from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from keras_xaic.errors import DataError
from keras_xaic.npz import LARGE, Npz


def header(text: str, version: int = 1) -> bytes:
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode("latin1")


def described(descr: object = "<f4", shape: object = (2,)) -> bytes:
    return header(str({"descr": descr, "fortran_order": False, "shape": shape}))


def archive(path, compression=zipfile.ZIP_DEFLATED, **members: bytes):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


ARRAYS = {
    "float": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "fortran": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
    "number": np.asarray(3.5),
    "empty": np.zeros((0, 5), np.uint8),
    "text": np.asarray('{"a": 1}'),
    "yes": np.asarray([True, False]),
    "half": np.ones((3, 1), np.float16),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_plain_array_comes_back(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    read = Npz(tmp_path / "a.npz")
    assert list(read) == list(ARRAYS)
    for key, array in ARRAYS.items():
        assert read[key].dtype == array.dtype
        np.testing.assert_array_equal(read[key], array, strict=True)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_are_mapped_and_equal(tmp_path, save, order):
    array = np.asarray(np.random.default_rng(0).integers(0, 9, (LARGE // 20, 3, 7)), np.uint8, order)
    save(tmp_path / "a.npz", a=array)
    read = Npz(tmp_path / "a.npz")["a"]
    np.testing.assert_array_equal(read, array, strict=True)
    read[0] = 77  # as with any array; the file stays as it is
    np.testing.assert_array_equal(Npz(tmp_path / "a.npz")["a"], array)
    assert os.listdir(tmp_path) == ["a.npz"]


def test_nothing_of_a_large_array_is_left_after_a_kill(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(LARGE + 8, np.uint8))
    (tmp_path / "scratch").mkdir()
    code = f"""
import os, signal
from keras_xaic.npz import Npz
array = Npz({str(tmp_path / "a.npz")!r})["a"]
assert array.base is not None
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path / "scratch")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -9
    assert os.listdir(tmp_path / "scratch") == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (described(shape=(10**9, 1000)) + bytes(8), r"claims that x has the shape \(1000000000, 1000\)"),
        (described(shape=(2**40, 2**40, 2**40)) + bytes(8), "claims that x has the shape"),
        (described(shape=(10**18,)) + bytes(8), "of the shape"),
        (described(shape=(0, 10**18)), "of the shape"),
        (described(shape=(1,) * 40) + bytes(4), "of the shape"),
        (described(shape=(3,)) + bytes(8), "12 bytes; it has 8"),
        (described(shape=(1,)) + bytes(8), "4 bytes; it has 8"),
        (described(shape=(-2,)) + bytes(8), "damaged header"),
        (described(descr="|O") + bytes(16), "objects, records or times.*Save x.astype"),
        (described(descr=[("a", "<f4")]) + bytes(8), "objects, records or times.*Save x.astype"),
        (described(descr="<f3") + bytes(6), "cannot be read"),
        (header("(" * 9000), "objects, records or times.*Save x.astype"),
        (header("x" * 100_000, version=2), "objects, records or times.*Save x.astype"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "objects, records or times.*Save x.astype"),
        (b"\x93NUMPY\x09\x00", "not an array"),
        (b"hello", "not an array"),
        (b"", "not an array"),
    ],
    ids=range(17),
)
def test_what_a_member_claims_is_checked_against_what_it_holds(tmp_path, content, said):
    path = archive(tmp_path / "a.npz", x=content)
    with pytest.raises(DataError, match=said) as caught:
        Npz(path)["x"]
    assert "\n" not in str(caught.value)


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_bombs_are_refused_before_they_are_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file, file.open("x.npy", "w") as member:
        member.write(described("|u1", (300_000_000,)))
        for _ in range(300):
            member.write(bytes(1_000_000))
    with pytest.raises(DataError, match="claims to unpack to 300,0"):
        Npz(tmp_path / "a.npz")


def test_a_claimed_member_size_is_no_reason_to_take_memory(tmp_path):
    path = archive(tmp_path / "a.npz", zipfile.ZIP_STORED, x=npy(np.zeros(9)))
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match="claims to unpack to 4,294,967,280"):
        Npz(path)


def test_members_that_are_encrypted_or_packed_in_other_ways_are_named(tmp_path):
    path = archive(tmp_path / "a.npz", x=npy(np.zeros(9)))
    content = bytearray(path.read_bytes())
    for place in (6, content.rindex(b"PK\x01\x02") + 8):
        content[place] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="an encrypted member 'x'"):
        Npz(path)["x"]
    with pytest.raises(DataError, match="method 14"):
        Npz(archive(tmp_path / "b.npz", zipfile.ZIP_LZMA, x=npy(np.zeros(9))))["x"]


@pytest.mark.parametrize("size", [64, LARGE + 64])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_changed_value_is_noticed(tmp_path, save, size):
    save(tmp_path / "a.npz", x=np.random.default_rng(0).integers(0, 255, size).astype(np.uint8))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        Npz(tmp_path / "a.npz")["x"]


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("x.npy", npy(np.zeros(9)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("x.npy", npy(np.ones(9)))
    with pytest.raises(DataError, match="2 members, of 1 names"):
        Npz(tmp_path / "a.npz")


def test_other_files_are_named(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "b.npz").write_bytes(b"not an archive")
    for path, said in [
        (tmp_path / "a.npy", "holds a single array"),
        (tmp_path / "b.npz", "cannot be read as .npz"),
        (tmp_path / "none.npz", "does not exist"),
        (tmp_path, "is not a file"),
        ("/dev/zero", "is not a file"),
    ]:
        with pytest.raises(DataError, match=said):
            Npz(path)
