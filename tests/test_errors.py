from __future__ import annotations

import pickle

from keras_xaic.errors import MOST_CHARACTERS, DataError


def test_whatever_a_file_holds_the_message_is_one_short_line():
    error = DataError("a\nb\x1b[2J\u202ec\ud800" + "x" * 5000 + "end", "y\r\n", "do this")
    assert str(error).isprintable()
    assert str(error).startswith("a b [2J c xxx")
    assert len(error.found) <= MOST_CHARACTERS
    assert str(error).endswith("end. Expected y. do this.")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
