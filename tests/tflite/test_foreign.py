"""Files that other people made get smaller and lose nothing; run by an interpreter that this test drives itself."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from keras_xaic.errors import ExportError
from keras_xaic.tflite.flatbuffer import load
from keras_xaic.tflite.foreign import container_foreign, slim_foreign
from keras_xaic.tflite.same_graph import difference
from keras_xaic.unpacking import unpack
from tests.tflite import foreign_files as files
from tests.tflite.models import open_file

KINDS = {
    "float": lambda folder: files.convert(files.image_model()),
    "int8": lambda folder: files.convert(files.image_model(), "int8"),
    "int16": lambda folder: files.convert(files.image_model(), "int16"),
    "two signatures": files.two_signatures,
    "while": lambda folder: files.loop(),
    "if": lambda folder: files.branch(),
    "strings": lambda folder: files.words(),
    "free dimensions": lambda folder: files.free_shapes(),
    "recurrent": lambda folder: files.recurrent(),
    "sparse": lambda folder: files.sparse(),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    kept: dict[str, bytes] = {}

    def make(kind: str) -> bytes:
        if kind not in kept:
            kept[kind] = KINDS[kind](tmp_path_factory.mktemp("saved"))
        return kept[kind]

    return make


def values_of(details: list, number: int) -> list[np.ndarray]:
    rng = np.random.default_rng(number)
    given = []
    for one in details:
        shape, dtype = tuple(one["shape"]), np.dtype(one["dtype"])
        if dtype.kind in "SO":
            given.append(np.array([b"a", b"bc", b"", b"d"], object).reshape(shape))
        elif dtype.kind in "iu":
            limits = np.iinfo(dtype) if dtype.itemsize < 4 else None
            given.append(rng.integers(limits.min if limits else 0, limits.max if limits else 3, shape).astype(dtype))
        else:
            given.append(rng.standard_normal(shape).astype(dtype))
    return given


def outputs_of(content: bytes) -> list[bytes]:
    interpreter = open_file(content)
    interpreter.allocate_tensors()
    found = []
    for number in range(4):
        for one, value in zip(interpreter.get_input_details(), values_of(interpreter.get_input_details(), number)):
            interpreter.set_tensor(one["index"], value)
        interpreter.invoke()
        found += [interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()]
    return [repr(one.tolist()).encode() if one.dtype.kind == "O" else one.tobytes() for one in found]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gets_smaller_and_gives_the_same(kind, made):
    content = made(kind)
    small = slim_foreign(content)
    assert len(small["content"]) < 0.9 * len(content)
    assert sum(small["saved"].values()) == len(content) - len(small["content"])
    assert outputs_of(small["content"]) == outputs_of(content)
    assert len(set(outputs_of(content))) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_container_gives_the_file_back(kind, made):
    packed = container_foreign(made(kind))["content"]
    assert unpack(packed) == made(kind)
    assert len(packed) < len(made(kind))


def test_what_programs_address_a_file_by_stays(made):
    for kind in ("two signatures", "float"):
        before, after = open_file(made(kind)), open_file(slim_foreign(made(kind))["content"])
        assert after.get_signature_list() == before.get_signature_list()
        for name in ("get_input_details", "get_output_details"):
            assert [one["name"] for one in getattr(after, name)()] == [one["name"] for one in getattr(before, name)()]
    bare = open_file(slim_foreign(made("float"), bare=True)["content"])
    assert bare.get_signature_list() == {}


def test_metadata_and_appended_files_stay(made):
    content = files.with_metadata(made("int8"))
    small = slim_foreign(content)["content"]
    assert zipfile.ZipFile(io.BytesIO(small)).read("labels.txt") == b"cat\ndog\n"
    model = load(small)
    (entry,) = model.metadata
    assert entry.name == b"TFLITE_METADATA"
    assert bytes(model.buffers[entry.buffer].data) == b"what programs want to know"
    assert outputs_of(small) == outputs_of(content)
    assert b"cat" not in slim_foreign(content, bare=True)["content"]


def test_metadata_that_may_number_tensors_keeps_their_numbers(made):
    kept = slim_foreign(files.with_metadata(made("float"), "OfflineMemoryAllocation"))
    assert not {"drop unused tensors", "drop reshapes before dense"} & set(kept["saved"])
    assert "drop unused tensors" in slim_foreign(files.with_metadata(made("float")))["saved"]


def test_a_field_that_this_version_does_not_know_is_never_lost(made, monkeypatch):
    content = files.of_a_later_version(made("float"), monkeypatch)
    assert outputs_of(content) == outputs_of(made("float"))
    with pytest.raises(ExportError, match="a field of a later version of the format"):
        slim_foreign(content)


def test_an_operator_that_this_version_does_not_know_is_never_lost(made):
    model = load(made("float"))
    model.subgraphs[0].operators[0].builtinOptionsType = 119
    model.subgraphs[0].operators[0].builtinOptions = None
    with pytest.raises(ExportError, match="an operator with options of a later version"):
        slim_foreign(files.plainly(model))


@pytest.mark.parametrize("bare", [False, True])
def test_options_of_an_operator_behind_the_tables_are_never_lost(made, bare):
    """They may be larger than a table; ``bare`` leaves out all that lies there."""
    model = load(made("float"))
    record = model.subgraphs[0].operators[0]
    record.largeCustomOptionsOffset, record.largeCustomOptionsSize = len(files.plainly(model)) + 64, 16
    with pytest.raises(ExportError, match="options of operators behind its tables"):
        slim_foreign(files.plainly(model) + bytes(200), bare)


def test_appended_files_that_would_fill_the_memory_are_refused(made):
    whole = io.BytesIO(made("float"))
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", bytes(100_000_000))
    with pytest.raises(ExportError, match="far larger than the file"):
        slim_foreign(whole.getvalue())


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_appended_files_that_are_damaged_are_one_line(method, made):
    whole = io.BytesIO(made("float"))
    with zipfile.ZipFile(whole, "a", method) as archive:
        archive.writestr("labels.txt", b"cat\ndog\n" * 100)
        start = archive.getinfo("labels.txt").header_offset + 30 + len("labels.txt")
    content = bytearray(whole.getvalue())
    content[start + (4 if method == zipfile.ZIP_LZMA else 0)] = 0xFF  # properties, or a kind of block, that there are not
    with pytest.raises(ExportError, match="appended files that cannot be read"):
        slim_foreign(bytes(content))


@pytest.mark.parametrize("where", ["alone", "before the archive", "behind the archive"])
def test_bytes_behind_the_tables_that_are_no_archive_are_never_lost(where, made):
    plain, theirs = made("int8"), b"signed by somebody"
    labels = files.with_metadata(plain)
    start = labels.index(b"PK\3\4")
    content = {
        "alone": plain + theirs,
        "before the archive": labels[:start] + theirs + labels[start:],
        "behind the archive": labels + theirs,
    }[where]
    with pytest.raises(ExportError, match="18 bytes behind its tables that are no archive"):
        slim_foreign(content)
    assert theirs not in slim_foreign(content, bare=True)["content"]


def test_padding_behind_the_tables_and_the_comment_of_an_archive(made):
    assert slim_foreign(made("int8") + bytes(64))["content"] == slim_foreign(made("int8"))["content"]
    whole = io.BytesIO(files.with_metadata(made("int8")))
    with zipfile.ZipFile(whole, "a") as archive:
        archive.comment = b"what a program looks for"
    small = zipfile.ZipFile(io.BytesIO(slim_foreign(whole.getvalue())["content"]))
    assert small.comment == b"what a program looks for"
    assert small.read("labels.txt") == b"cat\ndog\n"


def test_constants_that_lie_inside_each_other_are_packed(made):
    content = bytearray(made("float"))
    assert unpack(container_foreign(bytes(content))["content"]) == bytes(content)


CHANGES = {
    "a weight": lambda model: _buffer(model).__setitem__(3, 1),
    "an option": lambda model: setattr(model.subgraphs[0].operators[0].builtinOptions, "strideH", 2),
    "a scale": lambda model: model.subgraphs[0].tensors[model.subgraphs[0].outputs[0]].quantization.scale.__setitem__(0, 0.5),
    "a shape": lambda model: model.subgraphs[0].tensors[model.subgraphs[0].outputs[0]].shape.__setitem__(0, 2),
    "an operator": lambda model: model.subgraphs[0].operators.pop(1),
    "the order": lambda model: model.subgraphs[0].operators.reverse(),
    "an output": lambda model: model.subgraphs[0].outputs.__setitem__(0, model.subgraphs[0].operators[0].outputs[0]),
    "a signature": lambda model: setattr(model.signatureDefs[0].inputs[0], "name", b"another"),
}


def _buffer(model):
    largest = max((buffer for buffer in model.buffers if buffer.data is not None), key=lambda buffer: len(buffer.data))
    largest.data = largest.data.copy()
    return largest.data


@pytest.mark.parametrize("change", CHANGES)
def test_another_graph_is_told_whatever_it_computes(made, change):
    before, after = load(made("int8")), load(made("int8"))
    assert difference(before, after) is None
    for graph in after.subgraphs:  # so that arrays can be written to
        for tensor in graph.tensors:
            tensor.shape = tensor.shape.copy()
            if tensor.quantization is not None and tensor.quantization.scale is not None:
                tensor.quantization.scale = tensor.quantization.scale.copy()
        graph.outputs = graph.outputs.copy()
    CHANGES[change](after)
    assert difference(before, after) is not None
