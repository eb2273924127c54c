"""TFLite metadata says what programs must know; a reader of its own follows the schema's numbers."""

from __future__ import annotations

import io
import zipfile

import flatbuffers
import numpy as np
import pytest
from flatbuffers.table import Table

from keras_xaic.download import unpack_download
from keras_xaic.errors import DataError, ExportError
from keras_xaic.tflite.container import pack_download
from keras_xaic.tflite.flatbuffer import load, with_outputs
from keras_xaic.tflite.io_types import with_io
from keras_xaic.tflite.metadata import Normalization, metadata_bytes, pixels_of, with_metadata
from tests.tflite.models import inputs_of, run

CLASSES = ("cat [old]", "dog", "Ära", "tree")
NUMBER = flatbuffers.number_types


class Entry:
    """A table of a flatbuffer, by the places of its entries."""

    def __init__(self, table):
        self.table = table

    def at(self, place):
        return self.table.Offset(4 + 2 * place)

    def table_at(self, place):
        return Entry(Table(self.table.Bytes, self.table.Indirect(self.table.Pos + self.at(place))))

    def union_at(self, place):
        found = Table(self.table.Bytes, 0)
        self.table.Union(found, self.at(place))
        return Entry(found)

    def tables_at(self, place):
        start, count = self.table.Vector(self.at(place)), self.table.VectorLen(self.at(place))
        return [Entry(Table(self.table.Bytes, self.table.Indirect(start + 4 * n))) for n in range(count)]

    def text(self, place):
        return self.table.String(self.table.Pos + self.at(place)).decode()

    def number(self, place, flags=NUMBER.Uint8Flags):
        return self.table.Get(flags, self.table.Pos + self.at(place)) if self.at(place) else 0

    def floats(self, place):
        start, count = self.table.Vector(self.at(place)), self.table.VectorLen(self.at(place))
        return [float(self.table.Get(NUMBER.Float32Flags, start + 4 * n)) for n in range(count)]


def metadata_of(content):
    model = load(content)
    (entry,) = [one for one in model.metadata if one.name == b"TFLITE_METADATA"]  # the converter writes others
    data = bytes(np.asarray(model.buffers[entry.buffer].data, np.uint8))
    assert data[4:8] == b"M001"
    return Entry(Table(bytearray(data), int.from_bytes(data[:4], "little")))


@pytest.fixture(scope="module")
def image(digits):
    return with_metadata(with_io(digits.int8, "float32"), (["image"], ["kind"]), [Normalization(1 / 255, -0.5)], CLASSES)


def test_a_reader_finds_size_normalization_and_classes(image):
    root = metadata_of(image)
    (graph,) = root.tables_at(3)
    (given,), (made,) = graph.tables_at(2), graph.tables_at(3)
    assert (given.text(0), made.text(0), root.text(7)) == ("image", "kind", "1.0.0")
    content = given.table_at(3)
    assert (content.number(0), made.table_at(3).number(0)) == (2, 1)  # image, feature
    size = content.union_at(1).table_at(1)
    assert [size.number(place, NUMBER.Uint32Flags) for place in (0, 1)] == [8, 8]
    assert content.union_at(1).number(0) == 2  # gray
    (unit,) = given.tables_at(4)
    assert unit.number(0) == 1
    assert unit.union_at(1).floats(0) == pytest.approx([127.5])
    assert unit.union_at(1).floats(1) == pytest.approx([255.0])
    (file,) = made.tables_at(6)
    assert (file.text(0), file.number(2)) == ("labels.txt", 2)
    with zipfile.ZipFile(io.BytesIO(image)) as archive:
        (one,) = archive.infolist()
        assert one.compress_type == zipfile.ZIP_STORED  # other readers take no other
        assert archive.read("labels.txt").decode().splitlines() == list(CLASSES)


def test_the_file_computes_the_same_and_travels_whole(digits, image):
    plain, samples = with_io(digits.int8, "float32"), inputs_of(digits.small.model, 3)
    np.testing.assert_array_equal(run(image, samples)[0], run(plain, samples)[0])
    assert metadata_bytes(image) == len(image) - len(plain) > 0
    assert metadata_bytes(plain) == 0
    assert unpack_download(pack_download(image)) == image


def test_inputs_that_are_no_images_and_outputs_without_names(odd):
    content = with_metadata(odd.int8, (["picture", "extra"], ["a", "b"]), [None, None], CLASSES)
    (graph,) = metadata_of(content).tables_at(3)
    assert [one.text(0) for one in graph.tables_at(2)] == ["picture", "extra"]
    assert [(one.text(0), one.at(6)) for one in graph.tables_at(3)] == [("a", 0), ("b", 0)]
    assert not zipfile.is_zipfile(io.BytesIO(content))


@pytest.mark.parametrize(("kind", "offset"), [("int8", 0.0), ("uint8", -0.5), ("uint8", 0.1)])
def test_codes_that_cannot_be_pixels_are_refused(digits, kind, offset):
    with pytest.raises(ExportError, match=r"codes that input 0 of model\.tflite takes cannot be pixels.*io='float32'"):
        with_metadata(with_io(digits.int8, kind), (["image"], ["kind"]), [Normalization(1 / 255, offset)])


def test_pixels_are_taken_as_uint8_codes(digits):
    one = Normalization(1 / 64, -2.0)
    content = with_metadata(with_io(digits.int8, "uint8"), (["image"], ["kind"]), [one])
    model = load(content)
    inner = int(model.subgraphs[0].operators[0].outputs[0])
    known = model.subgraphs[0].tensors[inner].quantization
    pixels = np.arange(256, dtype=np.uint8).repeat(64).reshape(-1, 8, 8, 1)
    (given,) = run(with_outputs(model, [inner]), [pixels])
    seen = pixels * np.float32(one.scale) + np.float32(one.offset)
    expected = np.clip(np.rint(seen / known.scale[0]) + known.zeroPoint[0], -128, 127)
    assert np.abs(given - expected).max() <= 1
    assert np.mean(given == expected) > 0.95
    assert np.ptp(expected) > 100


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (-128, 127), (0, 1000)])
def test_data_that_holds_no_pixels_is_refused(low, high):
    with pytest.raises(DataError, match=rf"images of input 1 have values from {low} to {high}.*pixels from 0 to 255"):
        pixels_of(1, np.array([low, high], np.float32), 1.0, 0.0)
    assert pixels_of(0, np.array([0, 255], np.uint8), 0.5, 1.0) == Normalization(0.5, 1.0)
