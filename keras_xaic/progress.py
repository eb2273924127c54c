"""How long work tells where it is: a callable, so that no room knows about terminals."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then with a stable short name of the stage, what is done of it, its size, and the latest metric value."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Shows, logs or ignores it."""


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """A `Progress` that says nothing."""
