"""The last steps of a file for the programs that will run it: what it takes and gives, and metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from keras_xaic.bundle import Bundle
from keras_xaic.data import Samples, arrays_of
from keras_xaic.files import write_atomic
from keras_xaic.models.ports import ports_of
from keras_xaic.settings import FileOptions, InputOutput
from keras_xaic.tflite.container import pack_download
from keras_xaic.tflite.io_types import with_io
from keras_xaic.tflite.metadata import Normalization, is_image, pixels_of, with_metadata

if TYPE_CHECKING:
    from keras_xaic._keras import Model


@dataclass(frozen=True)
class Added:
    """Bytes of a finished file.

    Attributes:
        io: Of what converts inputs and outputs to another type.
        metadata: Of the metadata.
    """

    io: int = 0
    metadata: int = 0


NOTHING_ADDED = Added()


@dataclass(frozen=True)
class Finish:
    """What a file gets that has nothing to do with what it computes.

    Attributes:
        io: What it takes and gives; None: what it computes with.
        metadata: Whether it gets metadata, of these parts:
        names: Of inputs and outputs.
        normalization: As for `with_metadata`.
        classes: As for `with_metadata`.
    """

    io: Optional[InputOutput] = None
    metadata: bool = False
    names: tuple[Sequence[str], Sequence[str]] = ((), ())
    normalization: Sequence[Optional[Normalization]] = ()
    classes: Sequence[str] = ()

    @classmethod
    def of(cls, file: FileOptions, model: Model, samples: Samples, classes: Sequence[str]) -> Finish:
        """Returns what the options ask for.

        Args:
            file: The options.
            model: The Keras model.
            samples: Data, whose images say how pixels become what the model sees.
            classes: Names of the classes; empty where they are not known.

        Raises:
            DataError: If metadata cannot say that.
        """
        if not file.metadata:
            return cls(file.inputs)
        ports, normalization = ports_of(model), []
        for number, (tensor, x) in enumerate(zip(model.inputs, arrays_of(samples.x))):
            image = is_image((1, *tensor.shape[1:]))
            normalization.append(pixels_of(number, x, samples.scale, samples.offset) if image else None)
        return cls(file.inputs, True, (ports.inputs, ports.outputs), tuple(normalization), tuple(classes))

    def __call__(self, content: bytes) -> bytes:
        """Returns the finished file.

        Raises:
            ExportError: If the file cannot take or give that.
        """
        return self._described(self._converting(content))

    def write(self, bundle: Bundle) -> Added:
        """Finishes ``model.tflite`` of a bundle and writes its download again; returns the bytes that this adds."""
        if self == UNFINISHED:
            return NOTHING_ADDED
        plain = bundle.model.read_bytes()
        converting = self._converting(plain)
        content = self._described(converting)
        write_atomic(bundle.model, content)
        write_atomic(bundle.download, pack_download(content))
        return Added(len(converting) - len(plain), len(content) - len(converting))

    def _converting(self, content: bytes) -> bytes:
        return content if self.io is None else with_io(content, self.io)

    def _described(self, content: bytes) -> bytes:
        return with_metadata(content, self.names, self.normalization, self.classes) if self.metadata else content


UNFINISHED = Finish()
"""Files stay as they are."""
