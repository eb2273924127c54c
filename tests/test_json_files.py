from __future__ import annotations

import pytest

from keras_xaic.errors import DataError
from keras_xaic.json_files import MOST_BYTES, read_json


def test_what_json_allows_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, -2.5, 9223372036854775807, "\\ud83d\\ude00", null, true], "b": {"a": 1}}', encoding="utf-8")
    assert read_json(path) == {"a": [1, -2.5, 2**63 - 1, "\N{GRINNING FACE}", None, True], "b": {"a": 1}}
    path.write_bytes(b"\xef\xbb\xbf[]")  # as some editors write it
    assert read_json(path) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "not readable JSON"),
        (b"", "not readable JSON"),
        (b'{"a": "\xff"}', "not readable JSON"),
        (b"[" * 100_000, "levels deep"),
        (b"[" * 70 + b"]" * 70, "levels deep"),
        (b'{"a":' * 100_000, "levels deep"),
        (b"9" * 5000, "beyond 64 bits"),
        (b"-9223372036854775809", "beyond 64 bits"),
        (b"1e999", "too large"),
        (b"-1e308", "too large"),
        (b"NaN", "NaN is not JSON"),
        (b'[-Infinity]', "-Infinity is not JSON"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' is there twice"),
        (b'["\\ud800"]', "not readable JSON"),
    ],
    ids=range(14),
)  # fmt: skip
def test_what_it_does_not_is_one_line(tmp_path, content, said):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_json(tmp_path / "a.json")
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_missing_large_and_special_files_are_not_opened(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_json(tmp_path / "a.json")
    with pytest.raises(DataError, match="is not a file"):
        read_json("/dev/zero")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(DataError, match="16,000,001 bytes"):
        read_json(tmp_path / "large.json")
