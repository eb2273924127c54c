"""The same model and plan on two stacks: are the integers in the files the same, and how accurate is each on its interpreter?

    .venv/bin/python bench/stacks.py make DIR
    .venv/bin/python bench/stacks.py run DIR          (with the Python of every stack)
    .venv-current/bin/python bench/stacks.py run DIR
    .venv/bin/python bench/stacks.py compare DIR      writes bench/results/stacks.md

Nothing is trained after `make`: training on two versions of TensorFlow gives two models.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import sys

import numpy as np

OUT = pathlib.Path(__file__).parent / "results" / "stacks.md"


def make(folder: pathlib.Path) -> None:
    """Trains the digits model, attributes it and plans 3 to 8 bits with half of the weights zero."""
    sys.path.append(str(pathlib.Path(__file__).parents[1] / "examples"))
    import digits

    import keras_xaic as xaic

    folder.mkdir(parents=True, exist_ok=True)
    digits.MODEL, digits.DATA = folder / "digits.keras", folder / "digits.npz"
    digits.make_data()
    digits.make_model(epochs=8)
    model, data = xaic.load_model(digits.MODEL), xaic.load_data(digits.DATA)
    relevance = xaic.attribute(model, data.calibration(256, seed=0))
    relevance.save(folder / "relevance.npz")
    made = xaic.plan(model, relevance, xaic.Budget(flash="22kB", download="13kB"))
    made.save(folder / "plan.json")


def run(folder: pathlib.Path) -> None:
    """Carries the plan out, writes the file, and runs it on every interpreter that is installed."""
    import keras_xaic as xaic
    from keras_xaic import edge
    from keras_xaic._keras import tf
    from keras_xaic.tflite import build_tflite, read_grids

    model, data = xaic.load_model(folder / "digits.keras"), xaic.load_data(folder / "digits.npz")
    plan, relevance = xaic.Plan.load(folder / "plan.json"), xaic.Relevance.load(folder / "relevance.npz")
    small = xaic.apply(model, plan, data, relevance=relevance, training=xaic.Training(epochs=0))
    content = build_tflite(small, data.calibration(256, seed=0))
    path = folder / f"{tf.__version__}.tflite"
    path.write_bytes(content)
    grids = [
        hashlib.sha256(np.ascontiguousarray(one.integers.astype(np.int8)).tobytes()).hexdigest()[:16]
        for one in read_grids(content)
    ]
    right = {}
    for name in edge.deployed_interpreters():
        version = edge.available_interpreters()[name]
        outputs = edge.run_file(path, data.test.x, interpreter=name).outputs[0]
        right[f"{name} {version}"] = int(np.sum(outputs.argmax(-1) == data.test.y))
    found = {
        "python": sys.version.split()[0],
        "bytes": len(content),
        "integers": grids,
        "right": right,
        "of": len(data.test.y),
        "judge": edge.judge(),
    }
    path.with_suffix(".json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


def compare(folder: pathlib.Path) -> None:
    """Writes the table; ends with 1 if integers differ, or accuracies by more than one sample."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json")) if path.stem != "plan"}
    assert len(found) > 1, "run it on two stacks first"
    lines = [
        "| TensorFlow | Python | file | integers of the kernels: SHA-256 (number) | right, of all test samples |",
        "|---|---|---:|---|---|",
    ]
    for name, one in found.items():
        whole = hashlib.sha256("".join(one["integers"]).encode()).hexdigest()[:16]
        right = ", ".join(f"{key} {count}" for key, count in one["right"].items())
        lines.append(
            f"| {name} | {one['python']} | {one['bytes']:,} B | `{whole}` ({len(one['integers'])}) | {right} of {one['of']} |"
        )
    same = len({tuple(one["integers"]) for one in found.values()}) == 1
    counts = [one["right"][key] for one in found.values() for key in one["right"] if key.startswith(one["judge"] + " ")]
    lines += [
        "",
        f"Integers are {'equal' if same else 'NOT equal'}; on the judges, {max(counts) - min(counts)} sample(s) apart.",
    ]
    OUT.write_text(
        "# The same model and plan on two stacks\n\nMade by `bench/stacks.py`.\n\n" + "\n".join(lines) + "\n", encoding="utf-8"
    )
    print("\n".join(lines))
    sys.exit(0 if same and max(counts) - min(counts) <= 1 else 1)


if __name__ == "__main__":
    {"make": make, "run": run, "compare": compare}[sys.argv[1]](pathlib.Path(sys.argv[2]))
