from __future__ import annotations

from collections import Counter

import pytest

from tests.fuzz.hunt import CORPUS, hunt, kept
from tests.fuzz.readers import READERS

FAST = {name: 12 for name, reader in READERS.items() if reader.share == 1}


def said(findings) -> str:
    return "\n".join(f"{one.reader}/{one.number}: {one.what}" for one in findings)


def test_damaged_files_are_one_clear_line_those_that_once_found_something_among_them():
    tried = Counter()
    assert {place.name for place in CORPUS.iterdir()} <= set(READERS)
    assert not said(hunt(FAST, tried=tried, corpus=True))
    assert sum(tried.values()) == sum(FAST.values()) + sum(len(kept(name)) for name in READERS)
    assert sum(len(kept(name)) for name in READERS) > 10


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_thousands_of_damaged_files_are_one_clear_line():
    """As many as two minutes have time for; every reader gets some."""
    tried = Counter()
    assert not said(hunt({name: round(400 * reader.share) for name, reader in READERS.items()}, 1, seconds=130, tried=tried))
    assert min(tried[name] for name in READERS) >= 2, tried


@pytest.mark.slow
def test_an_end_ahead_of_time_leaves_no_reader_out():
    tried = Counter()
    few = {"composite": 20_000, "recipe": 20_000, "device": 20_000}
    assert not said(hunt(few, seconds=5, tried=tried, turns=1000))
    assert 0 < min(tried[name] for name in few) <= max(tried[name] for name in few) < 20_000


def test_the_hunt_notices_what_it_is_there_for(tmp_path):
    """Readers that raise, take memory, never end, accept what is wrong, or die."""
    import dataclasses

    from tests.fuzz.hunt import judge

    def wrong(read, **changes):
        reader = dataclasses.replace(READERS["front"], read=read, **changes)
        return judge(reader, b"a", b"b", None, tmp_path / "x")

    assert wrong(lambda path: None) is None
    assert "ZeroDivisionError" in wrong(lambda path: 1 / 0)
    assert "accepted, but wrong: it is" in wrong(lambda path: 5, wrong=lambda *_: "it is")
    assert "exit code 7" in wrong(lambda path: fail())


def fail():
    from keras_xaic.errors import XaicError

    error = XaicError("no")
    error.exit_code = 7
    raise error
