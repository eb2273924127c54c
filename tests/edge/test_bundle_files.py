"""A bundle whose files were not written together: cut short, or mixed with those of another one."""

from __future__ import annotations

import pathlib
import zipfile

import numpy as np
import pytest

from keras_xaic.bundle import Bundle
from keras_xaic.edge.bundle_files import checksums, wrong_files
from keras_xaic.edge.doctor import TINY
from keras_xaic.tflite.container import pack_download
from keras_xaic.tflite.micro_kit import write_micro


def write(path: pathlib.Path, content: bytes) -> Bundle:
    made = Bundle(path)
    path.mkdir()
    made.model.write_bytes(content)
    made.download.write_bytes(pack_download(content))
    write_micro(made.micro, content)
    with zipfile.ZipFile(made.keras_model, "w") as archive:
        archive.writestr("model.weights.h5", content)
    np.savez(made.grids, kernel=np.frombuffer(content, np.uint8))
    return made


@pytest.fixture
def bundle(tmp_path):
    return write(tmp_path / "one", TINY.read_bytes())


@pytest.fixture
def other(tmp_path):
    """The bundle of another model: the same but for a weight."""
    content = bytearray(TINY.read_bytes())
    content[content.index(bytes([127])) if bytes([127]) in content else -1] ^= 1
    return write(tmp_path / "other", bytes(content))


FILES = ["model.tflite", "model.xaic", "model.keras", "grids.npz", "micro/model.tflite"]


def test_files_that_were_written_together_are_right_with_and_without_a_report(bundle):
    assert list(checksums(bundle)) == FILES
    for stored in (checksums(bundle), {}, None, {"model.tflite": checksums(bundle)["model.tflite"]}):
        assert wrong_files(bundle, stored) is None


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_bundle_is_named(bundle, other, name):
    stored = checksums(bundle)
    (bundle.path / name).write_bytes((other.path / name).read_bytes())
    assert f"report.json describes another {name} (the SHA-256 differs)" in wrong_files(bundle, stored).found


@pytest.mark.parametrize("name", ["model.xaic", "model.keras", "micro/model_data.cc"])
def test_a_file_that_is_cut_short_is_named_without_a_report(bundle, name):
    content = (bundle.path / name).read_bytes()
    for length in (0, 3, len(content) // 2, len(content) - 1):
        (bundle.path / name).write_bytes(content[:length])
        whole = name.endswith(".cc") and length == len(content) - 1  # but for the last end of line
        assert whole or wrong_files(bundle, None).found.startswith(f"{name} is ")
    (bundle.path / name).unlink()
    assert wrong_files(bundle, checksums(bundle)) is None, "parts of a bundle are copied, too"


def test_parts_that_do_not_belong_together_are_named_without_a_report(bundle, other):
    bundle.download.write_bytes(other.download.read_bytes())
    assert wrong_files(bundle, None).found == "model.xaic is not the download of model.tflite"
    bundle.download.write_bytes(pack_download(TINY.read_bytes()))
    (bundle.micro / "model.tflite").write_bytes((other.micro / "model.tflite").read_bytes())
    assert wrong_files(bundle, None).found == "micro/model_data.cc is not the source of micro/model.tflite"


def test_a_source_that_was_formatted_is_the_same(bundle):
    source, content = bundle.micro / "model_data.cc", TINY.read_bytes()
    numbers = ",".join(str(byte) if place % 2 else f"0X{byte:X}".replace("X", "x", 1) for place, byte in enumerate(content))
    section = '__attribute__((section(".rodata")))'
    source.write_text(f"alignas(64) {section} const unsigned char g_model_data[{len(content)}] = {{ {numbers} }};\n")
    assert wrong_files(bundle, None) is None
    source.write_text(source.read_text().replace(f",{content[1]},", f",{content[1] ^ 1},", 1))
    assert wrong_files(bundle, None) is not None
