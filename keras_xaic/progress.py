"""How long work tells where it is: a callable, so that no room knows about terminals."""

from __future__ import annotations

from typing import Optional, Protocol


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


class Note(str):
    """A note that also says in numbers what training has come to.

    Attributes:
        epoch: Epochs of the stage that are over.
        validation: Metric value on validation data after the last of them, higher is better; None before the first.
    """

    epoch: int = 0
    validation: Optional[float] = None

    @classmethod
    def of(cls, text: str, epoch: int, validation: Optional[float]) -> Note:
        """Returns a note."""
        made = cls(text)
        made.epoch, made.validation = epoch, validation
        return made


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """A `Progress` that says nothing."""
