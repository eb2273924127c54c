"""How long work tells where it is: a callable, so that no room knows about terminals."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then with a stable short name of the stage, what is done of it, its size, and the latest metric value."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Shows, logs or ignores it."""


class Counted:
    """Adds up what the parts of one stage have done, each of which knows only its own share.

    >>> count = Counted(lambda *facts: print(*facts), "compare", 30)
    compare 0 30
    >>> count(10)
    compare 10 30
    >>> count(15, "maps")
    compare 25 30 maps

    Args:
        progress: Told how far the stage is.
        stage: Its name.
        total: Its size, in any unit.
    """

    def __init__(self, progress: Progress, stage: str, total: int) -> None:
        self._progress, self._stage, self._total = progress, stage, total
        self._done = 0
        self(0)

    def __call__(self, more: int, note: str = "") -> None:
        """Says that `more` is done."""
        self._done += more
        self._progress(self._stage, min(self._done, self._total), self._total, *([note] if note else []))


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """A `Progress` that says nothing."""
