"""The published methods at the sizes of their own claims, each beside itself without relevance: same bytes, same schedule.

    python bench/papers.py --data-root MODELS --data DATA [--models mlp,digits] [--recipes ecqx,deeplift-mixed]
    python bench/papers.py --table                                    the table of what was measured so far

Each recipe plans, trains and is written under a limit: a share of the original's float32 file (lrp-mixed), of what that file
takes to download (ecqx), or of the download of plain int8 (deeplift-...). lrp-mixed also runs without a limit of bytes, as far
as a point of validation accuracy allows. Its control is the same recipe with the magnitude of weights wherever it looks at
relevance, and as many zeros where the recipe itself says how many; that of ecqx is ecq. Files are judged with the full test
set. Appends to bench/results/papers.jsonl, where rows that are there are not measured again.
"""

from __future__ import annotations

import pathlib
import shutil
import sys
import tempfile

import common
import comparison

SCHEDULES = {"mlp": (3, 6_000), "digits": (8, None), "cnn": (1, 3_000), "resnet8": (1, 3_000)}
"""Epochs, and training samples in each; None: all."""
CLAIMS = {
    "lrp-mixed": [("flash", "float32", 1 / 0.36), ("max_drop", "float32", 0.0)],
    "ecqx": [("download", "float32", 103.0)],
    **{f"deeplift-{form}": [("download", "int8", times) for times in (2.0, 4.0, 8.0)] for form in comparison.FORMS},
}
"""Recipe -> what is limited, the file that counts, and how many times smaller than that it shall be."""
BLIND = {"rule": "magnitude", "score": "magnitude", "sensitivity": "weight_error", "reduce": "mean_abs"}
CALIBRATION = 256
MEASURED = ("digits",)
"""Models whose files are written while they are planned, until the bytes are met; of the others bytes are predicted. (Rows of
the MLP by lrp-mixed, ecqx, deeplift-codebook and deeplift-mixed were made while it was among these.)"""
MAX_DROP = 1.0
"""Percentage points that may be lost where nothing else is limited."""
KNOWN = {}
"""What a process has computed: sizes and accuracies of originals, relevance."""


def once(key, compute):
    """Returns what was computed for `key` before, or computes it."""
    if key not in KNOWN:
        KNOWN[key] = compute()
    return KNOWN[key]


def control_of(recipe, zeros):
    """Returns a recipe without relevance; `zeros` is what relevance makes of the weights where no budget says how many."""
    if recipe.name == "ecqx":
        from keras_xaic.recipes import get_recipe

        return get_recipe("ecq").changed(rule="magnitude")
    blind = {**BLIND, "sparsity": zeros} if recipe.score == "signed_relevance" else BLIND
    return recipe.changed(**blind)


def work(options, *, model, recipe, control, limit, of, times, seed, epochs, samples):
    """Plans, trains and writes one file, and judges it."""
    import keras_xaic as xaic
    from keras_xaic import tflite
    from keras_xaic.models import canonicalize
    from keras_xaic.recipes import get_recipe

    original, data = common.load(options, model, samples)
    known = data if model in MEASURED else None
    calibration = data.calibration(CALIBRATION, seed)
    training = xaic.Training(epochs=epochs, seed=seed)

    def relevance_of(one):
        how = {"rule": one.rule, "reduce": one.reduce, "seed": seed}
        return once((model, *how.values()), lambda: xaic.attribute(original, calibration, calibration.labels, **how))

    def zeros_of(one):
        return round(xaic.plan(original, relevance_of(one), xaic.Budget(), recipe=one, data=known, seed=seed).sparsity, 4)

    def twin():
        return tflite.float_twin(canonicalize(original).model)

    def bytes_of():
        content = twin() if of == "float32" else tflite.int8_twin(original, calibration)
        return len(tflite.pack_download(content) if limit == "download" else content)

    chosen = get_recipe(recipe)
    if control:
        signed = chosen.score == "signed_relevance"
        chosen = control_of(chosen, once((model, recipe, seed), lambda: zeros_of(get_recipe(recipe))) if signed else 0.0)
    row = {"original_accuracy": once((model, "accuracy"), lambda: common.edge_accuracy(twin(), data.test))}
    size = once((model, of, limit == "download", seed), bytes_of)
    if limit == "max_drop":
        out = pathlib.Path(tempfile.gettempdir()) / f"xaic-papers-{model}-{recipe}-{control}-{seed}"
        report = xaic.compress(
            original,
            data,
            budget=xaic.Budget(max_drop=MAX_DROP),
            recipe=chosen,
            training=training,
            device=xaic.Device(baselines=()),
            out=out,
            overwrite=True,
        )
        file, found = (out / "model.tflite").read_bytes(), report.compressed
        shutil.rmtree(out)
        eased = [one for one in report.warnings if "was eased" in one]
        row |= {"limit_bytes": None, "zeros": found.sparsity, "mean_bits": found.mean_bits, "eased": eased}
    else:
        most = int(size / times)
        plan = xaic.plan(original, relevance_of(chosen), xaic.Budget(**{limit: most}), recipe=chosen, data=known, seed=seed)
        small = xaic.apply(original, plan, data, relevance=relevance_of(chosen), training=training)
        file = tflite.build_tflite(small, calibration)
        row |= {"limit_bytes": most, "zeros": round(small.sparsity, 4), "mean_bits": round(plan.mean_bits, 3)}
    return {
        **row,
        "whole_bytes": size,
        "flash_bytes": len(file),
        "download_bytes": len(tflite.pack_download(file)),
        "edge_accuracy": common.edge_accuracy(file, data.test),
    }


def jobs_of(options):
    jobs = []
    for model in options.models.split(","):
        epochs, samples = SCHEDULES[model]
        for recipe in options.recipes.split(","):
            for limit, of, times in CLAIMS[recipe]:
                for seed in range(options.seeds):
                    for control in (False, True):
                        job = {"model": model, "recipe": recipe, "control": control, "limit": limit, "of": of, "seed": seed}
                        jobs.append({**job, "times": round(times, 3), "epochs": epochs, "samples": samples})
    return jobs


def main():
    showing = "--table" in sys.argv
    parser = common.parser(__doc__, "papers.jsonl", needs_models=not showing)
    parser.add_argument("--models", default="mlp,digits")
    parser.add_argument("--recipes", default=",".join(CLAIMS))
    parser.add_argument("--table", action="store_true", help="only show what is in --out")
    options = parser.parse_args()
    if not showing:
        common.run(jobs_of(options), work, options)
    print(comparison.papers_table(common.rows(options.out)))


if __name__ == "__main__":
    main()
