"""Progress for files and logs: a line now and then, where a terminal would have a moving bar."""

from __future__ import annotations

import time
from collections.abc import Callable

SILENT = 5.0
"""Seconds at the start of a command without a line: what is quickly done, or quickly refused, needs none."""
PAUSE = 10.0
"""Seconds between two lines of the same stage."""


class ProgressLines:
    """A `keras_xaic.progress.Progress` that prints lines.

    >>> clock = iter([0.0, 1.0, 20.0, 22.0, 60.0]).__next__
    >>> progress = ProgressLines(print, clock)
    >>> progress("load", 0, 1)
    >>> progress("attribute", 0, 300)
    attribute
    >>> progress("attribute", 10, 300)
    >>> progress("attribute", 100, 300, "batch 4")
    attribute: 100 of 300, about 1 min 20 s left, batch 4

    Args:
        write: Takes a line.
        clock: Seconds that have passed since some moment.
    """

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._start = clock()
        self._stage, self._last = "", self._start
        self._since, self._from, self._done = self._start, 0, 0

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Prints that a stage begins, and how far it is at most every `PAUSE` seconds.

        What is left is predicted from what was done since the first call: the first batches take longer than others. A stage
        may begin again.
        """
        now = self._clock()
        began = stage != self._stage
        if began or done < self._done:
            self._stage, self._since, self._from = stage, now, done
        self._done = done
        if now - self._start < SILENT or done >= total or not (began or now - self._last >= PAUSE):
            return
        self._last = now
        left = (now - self._since) * (total - done) / (done - self._from) if done > self._from else 0.0
        facts = [f"{done:,} of {total:,}" if done else "", f"about {_duration(left)} left" if left >= 1 else "", note]
        self._write(": ".join(part for part in (stage, ", ".join(fact for fact in facts if fact)) if part))


def _duration(seconds: float) -> str:
    """Returns a time as people say it.

    >>> [_duration(one) for one in (7.4, 80, 7300)]
    ['7 s', '1 min 20 s', '2 h 1 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
