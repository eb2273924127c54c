from __future__ import annotations

import ast
import bz2
import gzip
import lzma
import pathlib
import resource
import shlex
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from keras_xaic import unpacking
from keras_xaic._keras import keras, layers
from keras_xaic.download import unpack_download
from keras_xaic.errors import ExportError
from keras_xaic.tflite.build import build_tflite
from keras_xaic.tflite.container import find_regions, pack_download
from keras_xaic.tflite.slim import slim
from tests.tflite.models import Small, inputs_of, on_grids


def _grown(bits: int, storage: str) -> tuple[Small, bytes]:
    """A model whose levels are spread like those of trained weights, large enough for the coder to matter."""
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(24, 3, activation="relu", name="one")(x)
    x = layers.DepthwiseConv2D(3, name="two")(x)
    x = layers.Conv2D(32, 3, activation="relu", name="three")(x)
    model = keras.Model(inputs, layers.Dense(10, name="four")(layers.Flatten()(x)))
    small = on_grids(model, bits=bits, storage=storage)
    random, limit = np.random.default_rng(5), 2 ** (bits - 1) - 1
    kernels = {}
    for key, kernel in small.kernels.items():
        integers = np.clip(np.rint(random.normal(0, limit / 3, kernel.integers.shape)), -limit, limit).astype(np.int8)
        kernels[key] = type(kernel)(integers, kernel.scale, bits)
        layer = model.get_layer(key)
        layer.set_weights([kernels[key].values, *layer.get_weights()[1:]])
    return Small(model, kernels, small.storages), build_tflite(Small(model, kernels, small.storages), inputs_of(model, 8))


@pytest.fixture(scope="module", params=[(2, "int4"), (4, "int4"), (3, "int8"), (8, "int8")], ids=str)
def grown(request) -> bytes:
    return _grown(*request.param)[1]


def test_the_file_comes_back_byte_for_byte(grown):
    assert unpack_download(pack_download(grown)) == grown


def test_other_files_come_back_too(twins):
    for content in (twins.int8, twins.float32, slim(twins.int8)):
        assert unpack_download(pack_download(content)) == content


def test_it_is_smaller_than_general_compression(grown):
    others = [gzip.compress(grown, 9), bz2.compress(grown, 9), lzma.compress(grown, preset=9 | lzma.PRESET_EXTREME)]
    assert len(pack_download(grown)) < min(map(len, others))


def test_it_is_never_larger_than_xz(twins):
    for content in (twins.int8, twins.float32, slim(twins.int8), slim(twins.float32)):
        assert len(pack_download(content)) <= len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))


def test_weights_are_regions(grown):
    regions = [region for region in find_regions(grown) if region.coding]
    assert sorted(len(region.values) for region in regions) == sorted([24 * 27, 24 * 9, 32 * 24 * 9, 10 * 16 * 32 // 4 * 1])


def test_packing_is_deterministic(grown):
    assert pack_download(grown) == pack_download(grown)


def test_every_corruption_is_one_clear_error():
    blob = pack_download(_grown(4, "int4")[1])
    random = np.random.default_rng(0)
    for trial in range(200):
        damaged = bytearray(blob)
        kind, place = trial % 4, int(random.integers(len(blob)))
        if kind == 0:
            damaged[place] ^= int(random.integers(1, 256))
        elif kind == 1:
            del damaged[place:]
        elif kind == 2:
            damaged[place:place] = random.bytes(int(random.integers(1, 40)))
        else:
            damaged[place : place + 16] = random.bytes(16)
            if damaged == blob:
                continue
        with pytest.raises(ExportError, match="cannot be unpacked"):
            unpack_download(bytes(damaged))


def test_corruption_behind_a_valid_checksum_is_an_error_too():
    """A container that was tampered with and signed again: decoders must not hang, or give a file of other content."""
    blob = pack_download(_grown(4, "int4")[1])
    random = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(blob[:-4])
        place = int(random.integers(len(unpacking.MAGIC) + 3, len(damaged)))
        damaged[place] ^= int(random.integers(1, 256))
        damaged += unpacking.zlib.crc32(damaged).to_bytes(4, "little")
        with pytest.raises(ExportError, match="cannot be unpacked"):
            unpack_download(bytes(damaged))


@pytest.mark.parametrize("content", [b"", b"XAIC", b"TFL3" * 30, bytes(100)])
def test_other_files_are_refused(content):
    with pytest.raises(ExportError, match=r"not a model\.xaic container"):
        unpack_download(content)


def test_a_newer_version_says_so():
    blob = bytearray(pack_download(_grown(2, "int4")[1]))
    blob[4] = 9
    with pytest.raises(ExportError, match="container version 9"):
        unpack_download(bytes(blob))


def test_the_decoder_is_short():
    """At most 200 lines of code: blank lines, comments and documentation do not count, and the program around it neither."""
    source = pathlib.Path(unpacking.__file__).read_text()
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not isinstance(node, ast.If) and getattr(node, "name", "") != "write"]
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    assert len(ast.unparse(tree).splitlines()) <= 200


def test_the_decoder_runs_on_its_own(tmp_path, grown):
    (tmp_path / "model.xaic").write_bytes(pack_download(grown))
    script = tmp_path / "unpack.py"
    shutil.copyfile(unpacking.__file__, script)
    command = [sys.executable, "-I", "-S", str(script), str(tmp_path / "model.xaic"), str(tmp_path / "model.tflite")]
    subprocess.run(command, check=True, cwd=tmp_path)  # -S: without any installed package
    assert (tmp_path / "model.tflite").read_bytes() == grown
    (tmp_path / "model.xaic").write_bytes(b"garbage")
    failed = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "not a model.xaic container" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_program_leaves_whole_files_and_those_of_others(tmp_path, grown):
    """On a full disk, without permission, and where OUT is another file or a pipe."""
    container, out, program = tmp_path / "model.xaic", tmp_path / "model.tflite", unpacking.__file__
    container.write_bytes(pack_download(grown))

    def run(name: pathlib.Path, first: str = "") -> subprocess.CompletedProcess:
        command = f"{first}exec {shlex.quote(sys.executable)} -I -S {program} {container} {shlex.quote(str(name))}"
        return subprocess.run(["sh", "-c", command], capture_output=True, check=False)

    before = b"\0\0\0\0TFL3 of an earlier version"
    out.write_bytes(before)
    full = run(out, "ulimit -f 2; trap '' XFSZ; ")
    assert (full.returncode, full.stderr.count(b"\n"), out.read_bytes()) == (1, 1, before)
    assert b"File too large" in full.stderr
    for name in (container, tmp_path / "notes.txt"):
        (tmp_path / "notes.txt").write_text("of the user's")
        kept = name.read_bytes()
        refused = run(name)
        assert (refused.returncode, name.read_bytes()) == (1, kept)
        assert refused.stderr.decode() == f"{name}: is there and is no .tflite file\n"
    assert run(out).returncode == 0
    assert out.read_bytes() == grown
    assert run(pathlib.Path("/dev/stdout")).stdout == grown
    assert sorted(one.name for one in tmp_path.iterdir()) == ["model.tflite", "model.xaic", "notes.txt"]


def crafted(size: int, *regions: tuple[int, ...], rest: bytes = b"", coded: bytes = b"") -> bytes:
    """A container whose checksums are right and whose claims are free."""

    def varint(number: int) -> bytes:
        return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])

    table = b"".join(map(varint, [len(regions), *(number for region in regions for number in region)]))
    body = lzma.compress(table + rest, lzma.FORMAT_RAW, filters=unpacking.lzma_filters(93))
    whole = unpacking.HEADERS[3].pack(unpacking.MAGIC, 3, 93, size, 0, len(body)) + body + coded
    return whole + unpacking.zlib.crc32(whole).to_bytes(4, "little")


LARGE = 2**32 - 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "blob",
    [
        crafted(LARGE, (0, unpacking.PLANES, 1, 2**34, 1, 0, 0, 0)),
        crafted(LARGE, (0, unpacking.INT8, 1, 2**30, 4, 0, 1, 8)),
        crafted(LARGE, (0, unpacking.INT8, 0, 2**30, 4, 0, 1, 8)),
        crafted(1000, (0, unpacking.PLANES, 1, 5000, 2**30, 0, 0, 0)),
        crafted(1000, (0, unpacking.INT8, 0, 2**30, 2**30, 0, 1, 8)),
        crafted(1000, (0, unpacking.INT8, 1, 1000, 1, 2**34, 1, 8)),
        crafted(1000, (0, unpacking.INT8, 1, 1000, 1, 0, 2**34, 8)),
        crafted(1000, (0, unpacking.INT8, 1, 1000, 1, 0, 127, 2**34)),
        crafted(1000, (2**34, unpacking.INT8, 1, 1000, 1, 0, 1, 8)),
        crafted(1000, (0, unpacking.LOOKUP * 2**30 + 15, 1, 1000, 1, 0, 1, 8)),
        crafted(1000, (0, unpacking.LOOKUP, 1, 1000, 1, 0, 1, 8)),
        crafted(1000, *[(0, unpacking.INT8, 1, 70_000, 1, 0, 1, 8)] * 3000),
        crafted(1000, rest=bytes(30_000_000)),
        crafted(1000, (0, 0), rest=b"\xff" * 60_000),
    ],
    ids=range(14),
)
def test_claims_take_neither_memory_nor_time(blob):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ExportError, match="cannot be unpacked") as caught:
        unpack_download(blob)
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert "\n" not in str(caught.value)


def test_what_packs_better_than_a_reader_believes_still_comes_back():
    model = keras.Sequential([keras.Input((500,)), layers.Dense(600, name="one")])
    small = on_grids(model, bits=8, storage="int8")
    kernel = small.kernels["one"]
    zeros = {"one": type(kernel)(np.zeros_like(kernel.integers), kernel.scale, 8)}
    model.layers[-1].set_weights([np.zeros((500, 600)), np.ones(600)])
    content = build_tflite(Small(model, zeros, small.storages), inputs_of(model, 4))
    blob = pack_download(content)
    assert len(content) > 300_000
    assert len(blob) < len(content) // 200
    assert unpack_download(blob) == content
