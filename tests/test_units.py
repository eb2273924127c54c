from __future__ import annotations

import numpy as np
import pytest

from keras_xaic.errors import PlanError
from keras_xaic.units import format_milliseconds, format_size, parse_count, parse_milliseconds, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("48kB", 48_000),
        ("48KiB", 49_152),
        ("1.5MB", 1_500_000),
        ("1MiB", 1_048_576),
        ("1200", 1200),
        (7, 7),
        (" 20 kb ", 20_000),
        ("48K", 48_000),
        ("48Ki", 49_152),
        ("1e3", 1000),
        ("1.5e3 kB", 1_500_000),
        (np.int64(48_000), 48_000),
        (np.float32(48_000), 48_000),
        (4.8e4, 48_000),
        ("48,000", 48_000),
        ("1_048_576 B", 1_048_576),
        ("1GB", 10**9),
        ("1GiB", 2**30),
    ],
)
def test_sizes_that_people_write(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "big", "48 elephants", "-5kB", "0", 0, -3, "1e", "1e-3", None, True, 1.5, "1,5", "48,00"])
def test_what_is_not_a_size_is_named(text):
    with pytest.raises(PlanError, match="the flash budget is"):
        parse_size(text, "the flash budget")


def test_sizes_that_people_read():
    assert [format_size(n) for n in (9_999, 48_000, 12_345_678)] == ["9,999 B", "48.0 kB", "12.3 MB"]


@pytest.mark.parametrize(("text", "count"), [("1.5M", 1_500_000), ("20k", 20_000), ("7", 7), (12, 12), ("2G", 2_000_000_000)])
def test_counts(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["20kB", "", "0", "-3", True, 1.5])
def test_what_is_no_count_is_named(text):
    with pytest.raises(PlanError, match="macs is"):
        parse_count(text, "macs")


def test_times_have_three_digits_and_a_unit_that_is_read_back():
    shown = [format_milliseconds(time) for time in (0.000621, 0.00262, 0.12, 0.9996, 1.0, 340.0, 999.5, 5e6)]
    assert shown == ["0.621 us", "2.62 us", "120 us", "1.00 ms", "1.00 ms", "340 ms", "1.00 s", "5,000 s"]
    for time in 10 ** np.random.default_rng(0).uniform(-5, 5.9, 300):
        assert parse_milliseconds(format_milliseconds(time)) == pytest.approx(time, rel=0.0051)
