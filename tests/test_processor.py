"""Which processors are taken to have fast int8 kernels."""

from __future__ import annotations

import pytest

from keras_xaic import processor


@pytest.mark.parametrize(
    ("told", "fast"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n", True),
        ("flags\t\t: fpu avx2 avx_vnni\n", True),
        ("flags\t\t: fpu avx2 fma\nvmx flags\t: avx_vnni\n", False),
        ("Features\t: fp asimd aes asimddp\n", True),
        ("Features\t: fp asimd crc32\n", False),
        ("processor\t: 0\nisa\t\t: rv64imafdc\n", True),
    ],
    ids=["AVX-512 VNNI", "AVX-VNNI", "AVX2", "ARM with dot products", "ARM without", "not told"],
)
def test_the_extensions_of_the_processor_tell(told, fast, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(told)
    found = processor.extensions(tmp_path / "cpuinfo")
    monkeypatch.setattr(processor, "extensions", lambda: found)
    assert processor.adds_int8_products.__wrapped__() is fast


def test_where_the_system_does_not_tell_they_are_taken_to_be_fast(tmp_path, monkeypatch):
    assert processor.extensions(tmp_path / "cpuinfo") == frozenset()
    monkeypatch.setattr(processor, "extensions", frozenset)
    assert processor.adds_int8_products.__wrapped__()
