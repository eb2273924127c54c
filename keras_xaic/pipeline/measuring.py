"""What files give on test data, and how fast they are against each other."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_xaic import edge
from keras_xaic.data import Samples
from keras_xaic.errors import EdgeError
from keras_xaic.keras_metrics import value_if_any
from keras_xaic.output_tasks import AnyTask
from keras_xaic.pipeline.pacing import RUNS
from keras_xaic.pipeline.reporting import metric_facts
from keras_xaic.progress import Progress

ORIGINAL, COMPRESSED, PLAIN = "original", "compressed", "int8"
"""What the original, the written file and the baseline of plain int8 are called where files are timed against each other."""


@dataclass(frozen=True)
class Measuring:
    """Runs files on test data, on the interpreter that judges.

    Attributes:
        test: The samples.
        task: What the model does.
        progress: Told how far the work is.
    """

    test: Samples
    task: AnyTask
    progress: Progress

    def run(self, path: pathlib.Path, stage: str) -> edge.EdgeResult:
        """Runs a file; `stage` is its name for `progress`."""
        test, judge = self.test, edge.judge()
        return edge.run_file(
            path,
            test.x,
            interpreter=judge,
            scale=test.scale,
            offset=test.offset,
            latency_runs=50,
            progress=lambda done: self.progress(f"{stage} on {judge}", done, len(test)),
        )

    def facts(self, result: edge.EdgeResult) -> dict[str, Any]:
        """Returns the metric and the latency of a file that ran, for report.json."""
        latency = {} if result.latency is None else {result.interpreter: edge.latency_entry(result.latency)}
        value = value_if_any(self.task, result.together, self.test)
        return {**metric_facts(self.task, "edge", value), "latency_ms": latency}


def race_files(paths: Mapping[str, pathlib.Path]) -> dict[str, dict[str, Any]]:
    """Times files against each other where the interpreter for that is installed.

    Args:
        paths: `ORIGINAL`, `COMPRESSED`, the name of a baseline -> its file.

    Returns:
        Name -> ``latency_ms`` of report.json; empty if nothing was timed.
    """
    timing = edge.speed_judge()
    if timing is None:
        return {}
    try:
        raced = edge.race(paths, interpreter=timing, runs=RUNS)
    except EdgeError:  # the original's file may not run; the rest can
        rest = {name: path for name, path in paths.items() if name != ORIGINAL}
        try:
            raced = edge.race(rest, interpreter=timing, runs=RUNS)
        except EdgeError:
            return {}
    plain = raced.get(PLAIN)
    found = {}
    for name, (latency, delegation) in raced.items():
        ratio = None if plain is None else latency.least / plain[0].least  # what others do to the machine cancels out
        found[name] = {timing: {**edge.latency_entry(latency, delegation), "ratio_to_int8": ratio}}
    return found


def timed(facts: Mapping[str, Any], raced: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the facts of a file with what `race_files` found of it: first, and in place of what was timed alone."""
    return {**facts, "latency_ms": {**raced, **facts.get("latency_ms", {}), **raced}}
