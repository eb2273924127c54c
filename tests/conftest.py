"""Counts the CPU seconds of every test, holds fast tests to a limit and all of them to a time, where these are given."""

from __future__ import annotations

import gc
import os
import pathlib
import time
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

import pytest

LIMIT = "XAIC_FAST_TEST_SECONDS"
"""Environment variable: a fast test that takes more CPU seconds fails, and all are summed up at the end."""
MINUTES = "XAIC_TEST_MINUTES"
"""Environment variable: tests that may not end within these minutes are skipped, by name; each gets half of its timeout."""
_SHOWN = 15
_ROOMS = {"pipeline": 0, "docs": 1, "examples": 2, "search": 4}
"""Rooms that go first, as their files take longest, or last: of `search` the fast tests say most; the others are 3."""
_TICKS = os.sysconf("SC_CLK_TCK")
_SLOW = {"slow", "exhaustive"}
_spent: Counter[str] = Counter()
_started = time.monotonic()
gc.set_threshold(20_000, 20, 20)  # graphs are many small objects: looking for garbage so often took a tenth of the CPU seconds


def cpu_seconds() -> float:
    """CPU seconds of this process and of all that it started, whether they have ended or not."""
    own = os.times()
    ended = own.user + own.system + own.children_user + own.children_system
    return ended + sum(_process_seconds(child) for child in _descendants(os.getpid()))


def _descendants(process: int) -> Iterator[int]:
    for listed in pathlib.Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(word) for word in listed.read_text().split()]
        except OSError:
            continue
        for child in children:
            yield child
            yield from _descendants(child)


def _process_seconds(process: int) -> float:
    try:
        fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs go first: two workers that share the files would end with one of them alone at a long one."""
    items.sort(key=lambda item: next((place for room, place in _ROOMS.items() if room in item.path.parts), 3))


def pytest_collection_finish() -> None:
    gc.freeze()  # all modules are loaded: what is looked through is what tests make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    minutes = float(os.environ.get(MINUTES) or "inf")
    mark = item.get_closest_marker("timeout")
    longest = (mark.args[0] if mark is not None else 0) or float(item.config.getini("timeout") or 0)
    if time.monotonic() - _started + longest / 2 > 60 * minutes:
        pytest.skip(f"not run: it might not end within the {minutes:g} minutes of {MINUTES}")
    return (yield from _counted(item, "setup"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    return (yield from _counted(item, "call"))


def _counted(item: pytest.Item, phase: str) -> Generator[None, Any, Any]:
    before = cpu_seconds()
    try:
        return (yield)
    finally:
        item.user_properties.append((f"cpu {phase}", round(cpu_seconds() - before, 2)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    limit = float(os.environ.get(LIMIT) or "inf")
    taken = dict(item.user_properties).get("cpu call", 0.0)
    is_fast = not _SLOW & {mark.name for mark in item.iter_markers()}
    if report.when == "call" and report.passed and is_fast and taken > limit:
        report.outcome = "failed"
        report.longrepr = f"took {taken:.1f} CPU seconds; a fast test may take {limit:g}: share what it makes, or mark it slow"
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":  # in the process that prints: the reports of workers come here, too
        for name, seconds in report.user_properties:
            if name.startswith("cpu "):
                _spent[report.nodeid] += seconds


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if os.environ.get(LIMIT) and _spent:
        terminalreporter.section(f"{sum(_spent.values()):.0f} CPU seconds in {len(_spent)} tests; the dearest")
        for name, seconds in _spent.most_common(_SHOWN):
            terminalreporter.write_line(f"{seconds:7.2f} {name}")
