"""Trials per hour of a search with 1 and 2 worker processes, and how much of their work trials share.

    python bench/search.py [--trials 6] [--out FILE.json]

The model is the digits net of the examples; every trial trains 1 epoch. Rows are written when all is done.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time
from typing import Any

import numpy as np

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1] / "examples")]
OUT = pathlib.Path(__file__).parent / "results" / "search.json"


def measured(folder: pathlib.Path, workers: int, trials: int) -> dict[str, Any]:
    """Returns what a search took; the flash limits of the first trial are found before, and count, too."""
    import digits

    import keras_xaic as xaic
    from keras_xaic.report import read_front
    from keras_xaic.searching import search

    out = folder / f"workers-{workers}"
    effort = xaic.SearchOptions(trials=trials, workers=workers)
    run = {"training": xaic.Training(epochs=1), "device": xaic.Device("mobile")}
    start = time.perf_counter()
    found = search(digits.MODEL, digits.DATA, out, effort, **run)
    seconds = time.perf_counter() - start
    front = read_front(out / "front.json")
    return {
        "workers": workers,
        "trials": len(found),
        "seconds": round(seconds, 1),
        "trials_per_hour": round(3600 * len(found) / seconds, 1),
        "cache_hits": round(front.used / max(1, front.used + front.made), 3),
        "seconds_saved": front.seconds_saved,
        "load": [round(float(one), 1) for one in os.getloadavg()],
        "cores": os.cpu_count(),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--trials", type=int, default=6)
    options.add_argument("--out", type=pathlib.Path, default=OUT)
    given = options.parse_args()
    import digits

    import keras_xaic

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        digits.MODEL, digits.DATA = folder / "digits.keras", folder / "digits.npz"
        digits.make_data()
        digits.make_model(epochs=8)
        rows = []
        for workers in (1, 2):
            rows.append({**measured(folder, workers, given.trials), "xaic": keras_xaic.__version__, "numpy": np.__version__})
            print(json.dumps(rows[-1]), flush=True)
    given.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":  # workers import this file, too
    main()
