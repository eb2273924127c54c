"""What relevance adds: `auto` beside its blind control `auto-magnitude`, same bytes, same short schedule, same seeds.

    python bench/control.py --data-root MODELS --data DATA [--models mlp,cnn] [--methods auto,auto-magnitude]
    python bench/control.py --data-root MODELS --data DATA --models mlp --download 14500                other limits
    python bench/control.py --table                                the table of what was measured so far

The control is `auto` with the magnitude of weights in place of relevance, everywhere. Budgets are those of `bench/compare.py`;
schedules are short, so that all models fit two cores. The files are judged with the full test set. `validation` is what the
driver saw on the part of the training data that it chooses by. Appends to bench/results/control.jsonl, where rows that are
there are not measured again. ``digits`` is the model of `examples/digits.py`, ``dscnn`` a depthwise separable net on the same
digits of scikit-learn.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import sys
import tempfile

import common
import comparison

SCHEDULES = {
    "resnet8": (3, 4_000),
    "cnn": (3, 4_000),
    "mlp": (6, 10_000),
    "ad01": (3, 5_000),
    "dscnn": (5, None),
    "digits": (5, None),
}
"""Epochs, and training samples in each; None: all."""
BUDGETS = {
    "dscnn": {"flash": 22_000, "download": 7_000, "max_drop": 1.0},
    "digits": {"flash": 14_000, "download": 5_000, "max_drop": 1.0},
}
"""Of models that `bench/compare.py` does not have."""


def work(options, *, model, method, seed, epochs, samples, budget, entries=None):
    """Compresses a model by one method and judges its file with the full test set."""
    import keras_xaic as xaic
    from keras_xaic.recipes import get_recipe

    keras_model, data = common.load(options, model, samples)
    out = pathlib.Path(tempfile.gettempdir()) / f"xaic-control-{model}-{method}-{seed}-{epochs}-{samples}"
    report = xaic.compress(
        keras_model,
        data,
        budget=xaic.Budget(flash=budget["flash"], download=budget["download"], max_drop=budget.get("max_drop", 100.0)),
        recipe=get_recipe(method).changed(**(entries or {})),
        training=xaic.Training(epochs=epochs, seed=seed),
        device=xaic.Device(target="mobile", baselines=()),
        out=out,
        overwrite=True,
    )
    compressed = report.compressed
    row = {
        "flash_bytes": compressed.flash_bytes,
        "download_bytes": compressed.download_bytes,
        "metric": report.metric.name,
        "original": report.original.edge_metric,
        "compressed": compressed.edge_metric,
        "validation": [one.held_back for one in report.rounds],
        "downloads": [[one.predicted_download_bytes, one.download_bytes] for one in report.rounds],
        "similarity": None if compressed.similarity is None else compressed.similarity.model_dump(),
        "compress_seconds": round(sum(report.seconds.get(step, 0.0) for step in ("attribute", "compress")), 1),
    }
    if data.test.labels is None:
        content = (out / "model.tflite").read_bytes()
        with tempfile.TemporaryDirectory() as scratch:
            file = pathlib.Path(scratch) / "file.tflite"
            file.write_bytes(content)
            row["error"] = common.measure({"file": file}, data.test)["file"]["error"]
    shutil.rmtree(out)
    return row


def jobs_of(options):
    import compare

    entries = json.loads(options.entries) if options.entries else None
    jobs = []
    for model in options.models.split(","):
        for seed in range(options.seeds) if options.only_seed is None else [options.only_seed]:
            for method in options.methods.split(","):
                epochs, samples = SCHEDULES[model]
                job = {"model": model, "method": method, "seed": seed, "epochs": options.epochs or epochs}
                job["samples"] = options.samples or samples
                given = {name: getattr(options, name) for name in ("flash", "download") if getattr(options, name)}
                job["budget"] = {**{**compare.BUDGETS, **BUDGETS}[model], **given}
                jobs.append({**job, "entries": entries})
    return jobs


def main():
    showing = "--table" in sys.argv
    parser = common.parser(__doc__, "control.jsonl", needs_models=not showing)
    parser.add_argument("--models", default=",".join(SCHEDULES))
    parser.add_argument("--methods", default=",".join(comparison.PAIR))
    parser.add_argument("--only-seed", type=int, help="one seed instead of --seeds")
    parser.add_argument("--flash", type=int, help="limit in bytes; default: as usual for the model")
    parser.add_argument("--download", type=int, help="likewise")
    parser.add_argument("--epochs", type=int, help="default: as usual for the model")
    parser.add_argument("--samples", type=int, help="training samples in each epoch; likewise")
    parser.add_argument("--entries", help="other entries of the recipes, as JSON")
    parser.add_argument("--table", action="store_true", help="only show what is in --out")
    options = parser.parse_args()
    if not options.table:
        common.run(jobs_of(options), work, options)
    print(comparison.control_table([*common.rows(options.out), *common.rows(options.out.with_name("compare.jsonl"))]))


if __name__ == "__main__":
    main()
