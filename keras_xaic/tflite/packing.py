"""Writing a flatbuffer in which nothing is stored twice."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np

BUFFER_ALIGNMENT = 16
"""The TFLite schema promises that constants start at a multiple of 16 bytes (``force_align: 16``)."""


class SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]  # which has no types
    """A flatbuffers builder that writes equal vectors, strings and tables once and points to them from everywhere.

    Offsets in a flatbuffer may meet, so every reader accepts the result: the zero points of all tensors with equally many
    channels, say, become one vector.
    """

    def __init__(self, size: int = 1024) -> None:
        super().__init__(size)
        self._vectors: dict[tuple[str, bytes], int] = {}
        self._strings: dict[bytes, int] = {}
        self._tables: dict[tuple[tuple[int, ...], bytes, tuple[int, ...]], int] = {}
        self._links: list[tuple[int, int]] = []

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        """Writes a vector; bytes, which are constants, on the schema's alignment."""
        payload = np.ascontiguousarray(x, x.dtype.newbyteorder("<")).tobytes()
        key = (x.dtype.str, payload)
        if key not in self._vectors:
            self.StartVector(x.itemsize, x.size, BUFFER_ALIGNMENT if x.dtype == np.uint8 else x.itemsize)
            self.head -= len(payload)
            self.Bytes[self.head : self.head + len(payload)] = payload
            self._vectors[key] = self.EndVector()
        return self._vectors[key]

    def CreateString(self, s: Any, encoding: str = "utf-8", errors: str = "strict") -> int:
        """Writes a string."""
        content = s.encode(encoding, errors) if isinstance(s, str) else bytes(s)
        if content not in self._strings:
            self._strings[content] = super().CreateString(content)
        return self._strings[content]

    def StartObject(self, numfields: int) -> None:
        """Begins a table."""
        self._links = []
        super().StartObject(numfields)

    def PrependUOffsetTRelative(self, off: int) -> None:
        """Writes an offset and remembers where it leads: equal tables hold different relative offsets."""
        super().PrependUOffsetTRelative(off)
        self._links.append((self.Offset(), off))

    def EndObject(self) -> int:
        """Ends a table, and takes it back if an equal one was written before."""
        below, slots = self.objectEnd, list(self.current_vtable)
        table = super().EndObject()
        content = bytearray(self.Bytes[len(self.Bytes) - table : len(self.Bytes) - below])
        content[:4] = bytes(4)  # the way to the vtable, which `fields` stands for
        for position, _ in self._links:
            content[table - position : table - position + 4] = bytes(4)
        fields = tuple(table - slot if slot else 0 for slot in slots)
        key = (fields, bytes(content), tuple(target for _, target in self._links))
        if key in self._tables:
            self.head = len(self.Bytes) - below
        return self._tables.setdefault(key, table)
