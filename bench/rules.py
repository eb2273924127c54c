"""Is the rule that a search finds still ahead after training? `auto` by the usual rule, by what was found, and by magnitude.

    python bench/rules.py --data-root MODELS --data DATA [--models mlp] [--seeds 3]

One plan and one short training each, under the same limits of bytes and in the same schedule. `validation` is the accuracy on
5,000 training samples that nothing else here looks at, `test` that of the whole test set, both of the Keras model whose weights
are those of the file. Appends to bench/results/rules.jsonl, where rows that are there are not measured again.
"""

from __future__ import annotations

import statistics

import common

SETTINGS = {
    "mlp": {"flash": 50_000, "download": 16_500, "epochs": 4, "samples": 6_000},
    "cnn": {"flash": 40_000, "download": 20_000, "epochs": 2, "samples": 3_000},
    "resnet8": {"flash": 44_000, "download": 24_000, "epochs": 2, "samples": 3_000},
    "digits": {"flash": 14_000, "download": 5_000, "epochs": 8, "samples": None},
}
WAYS = ("usual", "found", "magnitude")
JUDGING = 5_000


def work(options, *, model, way, seed, flash, download, epochs, samples):
    """Compresses a model once, and says how good it is."""
    import numpy as np

    import keras_xaic as xaic
    from keras_xaic import tflite
    from keras_xaic.data import Data
    from keras_xaic.models import infer_task
    from keras_xaic.pipeline.attributing import attribute_by
    from keras_xaic.pipeline.tuning import search_rules
    from keras_xaic.recipes import get_recipe
    from keras_xaic.training import predict

    original, data = common.load(options, model)
    order = np.random.default_rng(12345).permutation(len(data.train))
    train = data.train.take(np.sort(order[: samples or len(order)]))
    judging = data.train.take(np.sort(order[samples : samples + JUDGING])) if samples else None
    few = Data(train, data.test, data.name)
    task, recipe = infer_task(original, few), get_recipe("auto-magnitude" if way == "magnitude" else "auto")
    if way == "found":
        recipe = recipe.changed(**search_rules(original, few, task, seed=seed).entries)
    relevance = attribute_by(recipe, original, few.calibration(256, seed), task, seed)
    limits = xaic.Budget(flash=flash, download=download)
    plan = xaic.plan(original, relevance, limits, recipe=recipe, data=few, seed=seed)
    small = xaic.apply(original, plan, few, relevance=relevance, training=xaic.Training(epochs=epochs, seed=seed))
    content = tflite.build_tflite(small, few.calibration(256, seed))
    judged = few.split(seed=seed)[1] if judging is None else judging
    return {
        "rules": {name: getattr(recipe, name) for name in ("rule", "filter_rule", "bits_rule")},
        "flash_bytes": len(content),
        "download_bytes": len(tflite.pack_download(content)),
        **{
            name: float((predict(small.model, one).argmax(-1) == one.labels).mean())
            for name, one in (("validation", judged), ("test", data.test))
        },
    }


def table(rows):
    """Prints means over seeds."""
    for model in SETTINGS:
        for way in WAYS:
            mine = [row for row in rows if (row["model"], row["way"]) == (model, way)]
            if mine:
                shown = ", ".join(f"{row['validation']:.2%}" for row in mine)
                means = [statistics.mean(row[name] for row in mine) for name in ("validation", "test", "download_bytes")]
                print(f"{model:8} {way:10} validation {means[0]:.2%} ({shown}), test {means[1]:.2%}, {means[2]:,.0f} B")


def main():
    parser = common.parser(__doc__, "rules.jsonl")
    parser.add_argument("--models", default="mlp,digits")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--only-seed", type=int, help="one seed instead of --seeds")
    options = parser.parse_args()
    seeds = range(options.seeds) if options.only_seed is None else [options.only_seed]
    jobs = [
        {"model": model, "way": way, "seed": seed, **SETTINGS[model]}
        for model in options.models.split(",")
        for seed in seeds
        for way in options.ways.split(",")
    ]
    common.run(jobs, work, options)
    table(common.rows(options.out))


if __name__ == "__main__":
    main()
