"""The published methods at the sizes of their own claims, each beside itself without relevance: same bytes, same schedule.

    python bench/papers.py --data-root MODELS --data DATA [--models mlp,digits] [--recipes ecqx,deeplift-mixed]
    python bench/papers.py --table                                    the table of what was measured so far

Each recipe plans, trains and is written under a limit: a share of the original's float32 file (lrp-mixed), of what that file
takes to download (ecqx), or of the download of plain int8 (deeplift-...). Its control is the same recipe with the magnitude of
weights wherever it looks at relevance; that of ecqx is ecq. Files are judged with the full test set. Appends to
bench/results/papers.jsonl, where rows that are there are not measured again.
"""

from __future__ import annotations

import sys

import common
import comparison

SCHEDULES = {"mlp": (3, 6_000), "digits": (8, None), "cnn": (2, 3_000), "resnet8": (2, 3_000)}
"""Epochs, and training samples in each; None: all."""
CLAIMS = {
    "lrp-mixed": [("flash", "float32", 1 / 0.36)],
    "ecqx": [("download", "float32", 103.0)],
    **{f"deeplift-{form}": [("download", "int8", times) for times in (2.0, 4.0, 8.0)] for form in comparison.FORMS},
}
"""Recipe -> what is limited, the file that counts, and how many times smaller than that it shall be."""
BLIND = {"rule": "magnitude", "score": "magnitude", "sensitivity": "weight_error", "reduce": "mean_abs"}
CALIBRATION = 256


def control_of(recipe):
    """Returns a recipe without relevance."""
    from keras_xaic.recipes import get_recipe

    if recipe == "ecqx":
        return get_recipe("ecq").changed(rule="magnitude")
    made = get_recipe(recipe)
    blind = dict(BLIND)
    if made.sensitivity == "mean_score" or made.score == "signed_relevance":
        blind["sparsity"] = 0.5  # relevance says for half of the weights that they are not positive; magnitude cannot
    return made.changed(**blind)


def work(options, *, model, recipe, control, limit, of, times, seed, epochs, samples):
    """Plans, trains and writes one file, and judges it."""
    import keras_xaic as xaic
    from keras_xaic import tflite
    from keras_xaic.models import canonicalize
    from keras_xaic.recipes import get_recipe

    original, data = common.load(options, model, samples)
    calibration = data.calibration(CALIBRATION, seed)
    canonical = canonicalize(original).model
    content = tflite.float_twin(canonical) if of == "float32" else tflite.int8_twin(original, calibration)
    size = len(content) if limit == "flash" else len(tflite.pack_download(content))
    chosen = control_of(recipe) if control else get_recipe(recipe)
    how = {"rule": chosen.rule, "reduce": chosen.reduce, "seed": seed}
    relevance = xaic.attribute(original, calibration, calibration.labels, **how)
    budget = xaic.Budget(**{limit: int(size / times)})
    plan = xaic.plan(original, relevance, budget, recipe=chosen, data=data, seed=seed)
    small = xaic.apply(original, plan, data, relevance=relevance, training=xaic.Training(epochs=epochs, seed=seed))
    file = tflite.build_tflite(small, calibration)
    return {
        "limit_bytes": int(size / times),
        "flash_bytes": len(file),
        "download_bytes": len(tflite.pack_download(file)),
        "zeros": round(small.sparsity, 4),
        "mean_bits": round(plan.mean_bits, 3),
        "edge_accuracy": common.edge_accuracy(file, data.test),
        "original_accuracy": common.edge_accuracy(tflite.float_twin(canonical), data.test),
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
