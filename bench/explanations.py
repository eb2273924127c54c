"""Does training that matches explanations keep the reasons, and what does it cost?

    python bench/explanations.py --data-root MODELS --data DATA        appends to bench/results/explanations.jsonl
    python bench/explanations.py ... --models resnet8 --shares 0,1 --epochs 4 --samples 6000      another schedule

Each model gets one plan; every share of the loss trains it in the same short schedule, with the same seeds. `rank`, `cosine`
and `top10` compare `lrp.gamma` maps, `removal` what taking parts of the input away does: the loss computes neither. `gradient`
is the cosine of the maps that it computes, pixel by pixel. `cpu` is processor time of all of `apply`.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import common  # noqa: E402

SETTINGS = {
    "digits": {"flash": "14kB", "download": "5kB", "epochs": 8, "samples": None},
    "mlp": {"flash": "60kB", "download": "16.5kB", "epochs": 4, "samples": 10_000},
    "cnn": {"flash": "60kB", "download": "20kB", "epochs": 2, "samples": 2_500},
    "resnet8": {"flash": "48kB", "download": "24kB", "epochs": 2, "samples": 2_500},
}
COMPARED, TAKEN = 1_000, 64


def plan_of(model, data, settings):
    """Returns relevance and plan, the same for every share."""
    import keras_xaic as xaic

    limits = {key: settings[key] for key in ("flash", "download")}
    relevance = xaic.attribute(model, data.calibration(256))
    return relevance, xaic.plan(model, relevance, xaic.Budget(**limits), data=data)


def measure(model, data, relevance, made, epochs, share, seed):
    """Returns a row."""
    import keras_xaic as xaic
    from keras_xaic.models import infer_task
    from keras_xaic.pipeline.reasons import way_of
    from keras_xaic.pipeline.removal import removal_similarity
    from keras_xaic.relevance import Attribution, rank_similarity
    from keras_xaic.relevance.similarity import cosine_similarity, top_overlap
    from keras_xaic.training import predict

    training = xaic.Training(epochs=epochs, seed=seed, explanation_loss=share)
    start, cpu = time.perf_counter(), time.process_time()
    small = xaic.apply(model, made, data, relevance=relevance, training=training)
    start, cpu = time.perf_counter() - start, time.process_time() - cpu
    test = data.test
    outputs, after = predict(model, test), predict(small.model, test)
    few, task = test.take(slice(COMPARED)), infer_task(model, data)
    ways = [way_of(one).input_relevance(few) for one in (model, small.model)]
    slopes = [Attribution(one, rule="gradient_x_input").input_relevance(few) for one in (model, small.model)]
    (first, second), (before, now) = ((one[0] for one in pair) for pair in (ways, slopes))
    (removed,) = removal_similarity(model, small.model, test.take(slice(TAKEN)), [task], outputs[:TAKEN])
    return {
        "accuracy": float((after.argmax(-1) == test.y).mean()),
        "rank": float(np.nanmean(rank_similarity(first, second))),
        "cosine": float(np.nanmean(cosine_similarity(first, second))),
        "top10": float(np.nanmean(top_overlap(first, second))),
        "gradient": float(np.nanmean(cosine_similarity(before, now))),
        "removal": float(np.nanmean(removed)),
        "seconds": start,
        "cpu": cpu,
    }


def main():
    made = common.parser(__doc__, "explanations.jsonl", needs_models=False)
    made.add_argument("--models", default="digits,mlp,cnn")
    made.add_argument("--shares", default="0,0.5,1")
    made.add_argument("--epochs", type=int, help="default: as usual for the model")
    made.add_argument("--samples", type=int, help="training samples in each epoch; likewise")
    options = made.parse_args()
    done = common.rows(options.out)
    given = {key: getattr(options, key) for key in ("epochs", "samples") if getattr(options, key)}
    for name in options.models.split(","):
        settings = {**SETTINGS[name], **given}
        asked = itertools.product(range(options.seeds), map(float, options.shares.split(",")))
        jobs = [{"model": name, "share": share, "seed": seed, **settings} for seed, share in asked]
        left = [job for job in jobs if not any(job.items() <= row.items() for row in done)]
        if not left:
            continue
        model, data = common.load(options, name, settings["samples"])
        relevance, plan = plan_of(model, data, settings)
        for job in left:
            row = job | measure(model, data, relevance, plan, settings["epochs"], job["share"], job["seed"])
            with options.out.open("a") as file:
                row = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
                file.write(json.dumps({**row, "versions": common.versions()}) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    main()
