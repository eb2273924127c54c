"""Every recipe and every peer on the same models, data and test sets, judged by the same interpreter: one row each.

    python bench/compare.py --data-root MODELS --data DATA [--models mlp,cnn] [--methods auto,int8] [--epochs resnet8=8,mlp=20]
    python bench/compare.py --table                          tables of what was measured so far
    python bench/compare.py --chart docs/pictures/pareto.png
    python bench/compare.py --data-root MODELS --data DATA --keep FILES --time    times of kept files anew, on a quiet machine

Our recipes run through `keras_xaic.compress` with the model's budget. The baselines among the recipes (int8, magnitude,
cluster) and the peers, TFLite's converter and the Model Optimization toolkit, train for as many epochs with the same
optimizer and learning rate. Sony's MCT and Google's AI Edge Quantizer need a Python of their own (peers/README.md), else they
are left out. Every file runs on the edge interpreter beside the original, one that it refuses on LiteRT; one that fails there,
too, or a method that does not take a model, has a row with the reason. Appends to bench/results/compare.jsonl, where rows that
are there are not measured again, and writes them as tables to compare.md beside it. Rows made by several workers were timed
beside other training; `--keep` keeps their files, and `--time` puts times that were measured with nothing else running into
their rows."""

from __future__ import annotations

import json
import pathlib
import shutil
import sys
import tempfile
import time

import chart
import common
import comparison

BUDGETS = {
    "resnet8": {"flash": 44_000, "download": 24_000, "max_drop": 1.0},
    "cnn": {"flash": 40_000, "download": 20_000, "max_drop": 1.0},
    "mlp": {"flash": 50_000, "download": 16_500, "max_drop": 1.0},
    "ad01": {"flash": 145_000, "download": 110_000, "max_error": 0.05},
}
"""Bytes; percentage points, or the squared error as a share of the variance of the original's outputs."""
VARIANTS = {"auto-float32": {"recipe": "auto", "entries": {"activations": "float32"}, "target": "mobile"}}
"""Recipes of ours with other options; float32 computes in float from int8 weights, which is fast on tflite-runtime."""
CONVERTER = ("tflite-float32", "tflite-int8")
TOOLKIT = ("tfmot-prune50", "tfmot-prune80", "tfmot-cluster16", "tfmot-qat", "tfmot-pcqat")
MCT = ("mct-mixed75", "mct-mixed50")
AI_EDGE = ("ai-edge-int8", "ai-edge-int4")
UNTRAINED = ("int8", *CONVERTER, *MCT, *AI_EDGE)
TITLE = """# Every method on every model

How it was measured: [docs/benchmarks.md](../../docs/benchmarks.md). Made by `python bench/compare.py --table`.

"""
OTHER_JUDGE = FAST = "litert"
"""Judges files that the usual interpreter is too old for, and is the one that people run."""
EPOCHS = 10
CALIBRATION = 256
MOST_SPARSE = 0.99
"""More zeros than this leave no model; where the budget needs more, magnitude pruning misses it."""


def work(options, *, model, method, seed, epochs, samples, budget, minutes=None):
    from keras_xaic import tflite
    from keras_xaic.models import canonicalize
    from keras_xaic.recipes import RECIPES

    ours = method in VARIANTS or (method in RECIPES and RECIPES[method].rule is not None)
    keras_model, data = common.load(options, model, samples)
    name = name_of(model=model, method=method, seed=seed, epochs=epochs, samples=samples, minutes=minutes)
    scratch = pathlib.Path(tempfile.gettempdir()) / f"xaic-compare-{name}"  # an interrupted run of ours continues there
    scratch.mkdir(exist_ok=True)
    original, file = scratch / "original.tflite", scratch / "file.tflite"
    original.write_bytes(tflite.float_twin(canonicalize(keras_model).model))
    try:
        if ours:
            content, facts = recipe(keras_model, data, method, budget, epochs, seed, minutes, scratch / "bundle")
        else:
            start = time.perf_counter()
            content, facts = peer(options, keras_model, data, model, method, budget, epochs, seed, scratch)
            facts["compress_seconds"] = round(time.perf_counter() - start, 1)
        file.write_bytes(content)
        row = {**facts, **judge(file, original, data.test)}
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, options.keep / f"{name}.tflite")
            shutil.copy(original, options.keep / f"{model}.tflite")
        if not ours:
            row.update(arena(file))
    except Exception as error:  # whatever a peer raises is its result
        row = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]}
    shutil.rmtree(scratch)
    return {"ours": ours, **row}


def name_of(*, model, method, seed, epochs, samples, minutes=None, **_):
    """Returns what a row's files are called."""
    return "-".join(str(part) for part in (model, method, seed, epochs, samples, minutes))


def time_again(options):
    """Puts times of kept files into their rows. Nothing else should run meanwhile."""
    found = common.rows(options.out)
    for row in found:
        file, original = options.keep / f"{name_of(**row)}.tflite", options.keep / f"{row['model']}.tflite"
        if not file.exists() or file.stat().st_size != row.get("flash_bytes"):
            continue
        test = common.load(options, row["model"])[1].test
        times = common.latencies({"original": original, "file": file}, test)
        row.update(median_ms=times["file"], original_ms=times["original"], timed_alone=True)
        print(f"{file.stem}: {row['median_ms']} ms, original {row['original_ms']} ms", flush=True)
    options.out.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


def recipe(model, data, name, budget, epochs, seed, minutes, out):
    """Returns the file that a recipe of ours makes, and what only its report knows."""
    import keras_xaic as xaic
    from keras_xaic.recipes import get_recipe

    limits = xaic.Budget(flash=budget["flash"], download=budget["download"], max_drop=budget.get("max_drop", 100.0))
    variant = VARIANTS.get(name, {})
    report = xaic.compress(
        model,
        data,
        budget=limits,
        recipe=get_recipe(variant.get("recipe", name)).changed(**variant.get("entries", {})),
        training=xaic.Training(epochs=epochs, minutes=minutes, seed=seed),
        device=xaic.Device(target=variant.get("target", "both"), baselines=()),
        out=out,
        overwrite=True,
    )
    seconds = sum(report.seconds.get(step, 0.0) for step in ("attribute", "compress"))
    facts = {
        "micro_bytes": report.compressed.micro_flash_bytes,
        "arena_bytes": report.compressed.arena_bytes,
        "compress_seconds": round(seconds, 1),
    }
    return (out / "model.tflite").read_bytes(), facts


def peer(options, keras_model, data, model, method, budget, epochs, seed, scratch):
    """Returns the file that a method of others makes, and what is special about it."""
    from peers import converter, external, toolkit

    from keras_xaic import tflite
    from keras_xaic.pipeline.baselines import run_baseline
    from keras_xaic.recipes import RECIPES

    calibration, facts = data.calibration(CALIBRATION, seed), {}
    if method in RECIPES:
        if method == "magnitude":
            facts = toolkit.sparsity_for(keras_model, calibration, budget["download"], MOST_SPARSE)
        settings = {"sparsity": facts["sparsity"]} if facts else {}
        made = run_baseline(method, keras_model, data, epochs=epochs, seed=seed, **settings)
        return tflite.int8_twin(made.model, calibration), facts
    if method in CONVERTER:
        int8 = method == "tflite-int8"
        return (converter.to_int8(keras_model, calibration) if int8 else converter.to_float32(keras_model)), facts
    if method in TOOLKIT:
        return toolkit.compress(method, keras_model, data, epochs, seed, calibration), facts
    python = options.mct_python if method in MCT else options.ai_edge_python
    source = options.data_root / common.FILES[model]
    content, version = external.compress(method, python, keras_model, source, calibration, scratch)
    return content, {"peer_version": version}


def judge(file, original, test):
    """Returns bytes, accuracy and latency of a file beside the original; on LiteRT where the usual judge refuses the file."""
    from keras_xaic import tflite
    from keras_xaic.errors import EdgeError

    content, files, elsewhere = file.read_bytes(), {"original": original, "file": file}, {}
    try:
        found = common.measure(files, test)
    except EdgeError:
        found, elsewhere = common.measure(files, test, OTHER_JUDGE), {"runtime": OTHER_JUDGE}
    general = common.general_compressors(content)
    best = min(general, key=general.__getitem__)
    row = {**elsewhere, "flash_bytes": len(content), "download_bytes": len(tflite.pack_download(content))}
    row.update(general_bytes=general[best], general_compressor=best)
    row.update(median_ms=found["file"]["median_ms"], original_ms=found["original"]["median_ms"])
    fast = common.least(files, test, FAST)
    row.update(litert_ms=fast["file"], litert_original_ms=fast["original"])
    if "error" in found["file"]:
        row["error"] = round(found["file"]["error"], 5)
    else:
        row.update(edge_accuracy=found["file"]["accuracy"], original_accuracy=found["original"]["accuracy"])
        row["drop_pp"] = round(100 * (row["original_accuracy"] - row["edge_accuracy"]), 4)
    return row


def arena(file):
    """Returns what TensorFlow Lite Micro needs for a file, or why it refuses it."""
    from keras_xaic import edge
    from keras_xaic.errors import EdgeError

    try:
        return {"arena_bytes": edge.measure_arena(file).minimum}
    except EdgeError as error:
        return {"tflm_refused": error.found[:200]}


def epochs_of(text):
    """Returns model -> epochs from ``8`` or ``resnet8=8,cnn=12``; models that are not named have the default."""
    parts = [part.partition("=") for part in text.split(",")]
    for_all = next((int(name) for name, sign, _ in parts if not sign), EPOCHS)
    return {**dict.fromkeys(BUDGETS, for_all), **{name: int(count) for name, sign, count in parts if sign}}


def jobs_of(options):
    from keras_xaic.recipes import RECIPES

    known = [*RECIPES, *VARIANTS, *CONVERTER, *TOOLKIT]
    known += MCT if options.mct_python else ()
    known += AI_EDGE if options.ai_edge_python else ()
    models, methods = options.models.split(","), options.methods.split(",") if options.methods else known
    for kind, asked, there in (("model", models, list(BUDGETS)), ("method", methods, known)):
        unknown = [name for name in asked if name not in there]
        if unknown:
            raise SystemExit(f"compare.py: no {kind} {unknown[0]!r}; there are {', '.join(there)}")
    jobs = []
    for seed in range(options.seeds):
        for model in models:
            for method in methods:
                epochs = 0 if method in UNTRAINED else options.epochs[model]
                job = {"model": model, "method": method, "seed": seed, "epochs": epochs, "samples": options.samples}
                limit = {"minutes": options.minutes} if method.startswith("auto") else {}
                jobs.append({**job, "budget": BUDGETS[model], **limit})
    return jobs


def main():
    showing = any(option.startswith(("--table", "--chart")) for option in sys.argv)
    parser = common.parser(__doc__, "compare.jsonl", needs_models=not showing)
    parser.add_argument("--models", default=",".join(BUDGETS))
    parser.add_argument("--methods", help="default: all that can run")
    parser.add_argument("--epochs", type=epochs_of, default=str(EPOCHS), help="8 for all, or resnet8=8,cnn=12")
    parser.add_argument("--samples", type=int, help="training samples; default: all")
    parser.add_argument("--minutes", type=float, help="limit of the training of recipe auto")
    parser.add_argument("--mct-python", type=pathlib.Path, help="a Python with model-compression-toolkit")
    parser.add_argument("--ai-edge-python", type=pathlib.Path, help="a Python with ai-edge-quantizer")
    parser.add_argument("--keep", type=pathlib.Path, metavar="FILES", help="directory where the files of rows are kept")
    parser.add_argument("--time", action="store_true", help="only time the files in --keep anew, into their rows")
    parser.add_argument("--table", action="store_true", help="only show what is in --out")
    parser.add_argument("--chart", type=pathlib.Path, metavar="PNG", help="only draw what is in --out")
    options = parser.parse_args()
    if options.time and not options.keep:
        raise SystemExit("compare.py: --time needs --keep FILES, the directory that was given when the rows were made")
    if options.time:
        time_again(options)
    elif not (options.table or options.chart):
        common.run(jobs_of(options), work, options)
    lines = comparison.summarize(common.rows(options.out))
    if options.chart:
        chart.draw(lines, options.chart)
        return
    tables = comparison.table(lines)
    print(tables)
    options.out.with_suffix(".md").write_text(TITLE + tables, encoding="utf-8")


if __name__ == "__main__":
    main()
