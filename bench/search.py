"""What a search finds and costs: fronts of two models, trials per hour, the cache, and what Ray adds to a trial.

    python bench/search.py costs   # the digits net of the examples, 1 epoch: 1 process, 2, and Ray on this machine
    python bench/search.py ray     # what a call costs that does nothing
    python bench/search.py front --minutes 10 --work build/front # the digits net again; the same command continues
    python bench/search.py front --minutes 10 --work build/front --data-root MODELS --data DATA --samples 20000   # mlp

Every call adds rows to the result file. `MODELS` holds ``mlp_fashion_mnist.h5``, `DATA` ``fashion_mnist.npz``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
from typing import Any

import numpy as np

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1] / "examples")]
OUT = pathlib.Path(__file__).parent / "results" / "search.jsonl"
AUTO = 5
"""The first trials of a search are the recipe `auto` at as many budgets."""


def digits_in(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns model and data of the examples, made in `folder` if they are not there."""
    import digits

    digits.WORK, digits.MODEL, digits.DATA = folder, folder / "digits.keras", folder / "digits.npz"
    return digits.ready()


def mlp_in(folder: pathlib.Path, options: argparse.Namespace) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns the Fashion-MNIST network, and data with a fixed random choice of the training samples."""
    from common import load

    model, data = folder / "mlp_fashion_mnist.h5", folder / "fashion_mnist.npz"
    folder.mkdir(parents=True, exist_ok=True)
    if not data.exists():
        shutil.copy(options.data_root / model.name, model)
        _, samples = load(options, "mlp", options.samples)
        parts = {"x_train": samples.train.x, "y_train": samples.train.y, "x_test": samples.test.x, "y_test": samples.test.y}
        np.savez(data, **parts)
    return model, data


def costs(found: Any, model: pathlib.Path, **more: Any) -> dict[str, Any]:
    """Returns what every row says."""
    from common import versions

    searching = ("optuna", "ray") if "cluster" in more else ("optuna",)
    return {
        "model": model.stem,
        "trials": len(found.points),
        "cache_hits": round(found.used / max(1, found.used + found.made), 3),
        "seconds_saved": found.seconds_saved,
        "load": [round(float(one), 1) for one in os.getloadavg()],
        "cores": len(os.sched_getaffinity(0)),
        **more,
        "versions": {**versions(), **{name: importlib.metadata.version(name) for name in searching}},
    }


def timed(folder: pathlib.Path, options: argparse.Namespace, **effort: Any) -> dict[str, Any]:
    """Returns what a search of one epoch took, the range of sizes that is found before the first trial included."""
    import keras_xaic as xaic
    from keras_xaic.report import read_front
    from keras_xaic.searching import search

    model, data = digits_in(folder)
    out = folder / "-".join(map(str, effort.values()))
    training, device = xaic.Training(epochs=1), xaic.Device("mobile")
    start = time.perf_counter()
    search(model, data, out, xaic.SearchOptions(trials=options.trials, **effort), training=training, device=device)
    seconds = time.perf_counter() - start
    front = read_front(out / "front.json")
    hourly = round(3600 * len(front.points) / seconds, 1)
    return costs(front, model, **effort, seconds=round(seconds, 1), trials_per_hour=hourly)


def overhead(folder: pathlib.Path) -> dict[str, Any]:
    """Returns what Ray adds: its start, the first call in a process (it loads TensorFlow), and each further one."""
    from common import versions

    from keras_xaic.cluster import joined

    model, data = digits_in(folder)
    times = [time.perf_counter()]
    with joined("auto", {"model": model, "data": data}) as nodes:
        times.append(time.perf_counter())
        for _ in range(6):
            nodes.call("builtins:len")  # of the files
            times.append(time.perf_counter())
    taken = np.diff(times)
    return {
        "start_seconds": round(float(taken[0]), 1),
        "first_call_seconds": round(float(taken[1]), 1),
        "call_seconds": round(float(np.median(taken[2:])), 3),
        "load": [round(float(one), 1) for one in os.getloadavg()],
        "versions": {**versions(), "ray": importlib.metadata.version("ray")},
    }


def hypervolume(points: list[tuple[float, float]], worst: tuple[float, float]) -> float:
    """Returns the area between a corner and points (bytes, metric value): how much of it they beat.

    >>> hypervolume([(1.0, 0.5), (2.0, 0.9), (3.0, 0.4)], (4.0, 0.0))
    2.3
    """
    area, best = 0.0, worst[1]
    for size, value in sorted(points):
        if size < worst[0] and value > best:
            area, best = area + (worst[0] - size) * (value - best), value
    return round(area, 9)


def found_front(folder: pathlib.Path, options: argparse.Namespace) -> dict[str, Any]:
    """Continues a search for some minutes, and compares its front with what `auto` finds at its budgets alone."""
    import keras_xaic as xaic
    from keras_xaic.report import read_front
    from keras_xaic.searching import search

    model, data = digits_in(folder) if options.data_root is None else mlp_in(folder, options)
    out, clock = folder / f"front-{model.stem}", folder / f"{model.stem}.seconds"
    training, device = xaic.Training(epochs=options.epochs), xaic.Device("mobile")
    start, trials = time.perf_counter(), len(read_front(out / "front.json").points) if out.exists() else 0
    before = float(clock.read_text()) if clock.exists() else 0.0
    while time.perf_counter() - start < options.minutes * 60:
        trials += options.workers
        effort = xaic.SearchOptions(trials=trials, workers=options.workers)
        search(model, data, out, effort, training=training, device=device)
        clock.write_text(str(before + time.perf_counter() - start))
        front = read_front(out / "front.json")
        print(len(front.points), sum(one.best for one in front.points), round(time.perf_counter() - start), flush=True)
    front = read_front(out / "front.json")
    best, places = (
        [one for one in front.points if one.best],
        lambda some: [(p.values["flash"], p.values["metric"]) for p in some],
    )
    worst = max(one.values["flash"] for one in front.points), min(one.values["metric"] for one in best)
    first = [one for one in front.points if one.trial < AUTO]
    whole, alone = hypervolume(places(best), worst), hypervolume(places(first), worst)
    return costs(
        front,
        model,
        epochs=options.epochs,
        workers=options.workers,
        seconds=round(float(clock.read_text())),
        front=sorted([one.trial, int(one.values["flash"]), round(one.values["metric"], 4)] for one in best),
        auto=sorted([one.trial, int(one.values["flash"]), round(one.values["metric"], 4)] for one in first),
        points_on_front=len(best),
        hypervolume=whole,
        hypervolume_of_auto=round(alone / whole, 4),
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("costs", "ray", "front"))
    options.add_argument("--trials", type=int, default=6)
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--workers", type=int, default=1, help="of front")
    options.add_argument("--epochs", type=int, default=2, help="of front")
    options.add_argument("--work", type=pathlib.Path, help="directory of front, to continue; default: a temporary one")
    options.add_argument("--data-root", type=pathlib.Path, help="directory of mlp_fashion_mnist.h5")
    options.add_argument("--data", type=pathlib.Path, help="directory of fashion_mnist.npz; default: --data-root")
    options.add_argument("--samples", type=int, help="training samples of fashion_mnist.npz; default: all")
    options.add_argument("--out", type=pathlib.Path, default=OUT)
    given = options.parse_args()
    efforts = {"costs": ({"workers": 1}, {"workers": 2}, {"workers": 1, "cluster": "auto"})}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(given.work or scratch)
        for effort in efforts.get(given.what, ({},)):
            if given.what == "ray":
                row = overhead(folder)
            else:
                row = timed(folder, given, **effort) if effort else found_front(folder, given)
            print(json.dumps(row), flush=True)
            with given.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"what": given.what, **row}) + "\n")


if __name__ == "__main__":  # workers import this file, too
    main()
