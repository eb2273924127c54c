"""Which score should decide which weights go? Equal zeros, epochs, data and schedule; plain int8; edge accuracy.

    python bench/pruning.py --data-root MODELS --data DATA [--models resnet8,mlp] [--epochs 3] [--samples 20000]

* tfmot: `prune_low_magnitude`, the same sparsity in every layer.
* magnitude: |w|, L2-normalised per kernel, ranked over the whole model.
* relevance (LRP epsilon), deeplift (rescale), taylor: the attribution's scores, normalised and ranked likewise.
* geometric_mean: relevance (LRP epsilon) times magnitude, the square root of it.

All but tfmot refresh their attribution after every epoch. Appends rows to bench/results/pruning.jsonl and prints the table.
"""

from __future__ import annotations

import statistics

import common

SPARSITIES = {"resnet8": (0.8,), "mlp": (0.95, 0.97, 0.98)}
CRITERIA = {
    "tfmot": (None, None),
    "magnitude": ("magnitude", "magnitude"),
    "relevance": ("relevance", "lrp.epsilon"),
    "geometric_mean": ("geometric_mean", "lrp.epsilon"),
    "deeplift": ("relevance", "deeplift.rescale"),
    "taylor": ("relevance", "taylor"),
}
CALIBRATION = 256


def work(options, *, model, criterion, sparsity, seed, epochs, samples):
    from keras_xaic.recipes.magnitude import compress_magnitude

    from keras_xaic import tflite
    from keras_xaic.models import weighted_kernels

    original, data = common.load(options, model, samples)
    if criterion == "tfmot":
        small = compress_magnitude(original, data, epochs=epochs, seed=seed, sparsity=sparsity).model
    else:
        small = prune(original, data, *CRITERIA[criterion], sparsity, seed, epochs)
    kernels = weighted_kernels(small)
    content = tflite.build_tflite(small, data.calibration(CALIBRATION, seed))
    return {
        "zeros": round(sum(int((k.value == 0).sum()) for k in kernels) / sum(k.size for k in kernels), 4),
        "zeros_per_layer": {k.key: round(float((k.value == 0).mean()), 3) for k in kernels},
        "flash_bytes": len(content),
        "edge_accuracy": common.edge_accuracy(content, data.test),
    }


def prune(original, data, score, rule, sparsity, seed, epochs):
    """Prunes as `compress` does, without its quantization stage."""
    from keras_xaic.models import canonicalize, remove_channels, weighted_kernels
    from keras_xaic.planning import LayerPlan, Plan, kept_weights, weight_score
    from keras_xaic.progress import silent
    from keras_xaic.pruning.weights import prune_weights
    from keras_xaic.relevance import attribute
    from keras_xaic.training import Schedule
    from keras_xaic.training.context import Context

    flat = remove_channels(original, {})
    context = Context.of(
        original, data, epochs=epochs, seed=seed, calibration=CALIBRATION, callbacks=(), checkpoint=None, progress=silent
    )
    relevance = attribute(flat, context.calibration, rule=rule, target=context.target)
    kernels = weighted_kernels(flat)
    kept = kept_weights({k.key: weight_score(k.value, relevance.weights[k.key], score) for k in kernels}, sparsity)
    layers = [
        LayerPlan(
            key=k.key,
            kind=k.kind,
            weights=k.size,
            bits=8,
            granularity="channel",
            storage="int8",
            sparsity=float(1 - kept[k.key].mean()),
        )
        for k in kernels
    ]
    plan = Plan(recipe="benchmark", seed=seed, score=score, layers=layers)
    small, _ = prune_weights(flat, plan, relevance, context, Schedule(epochs, seed=seed))
    return canonicalize(small).model


def table(found, model, epochs, samples):
    print(f"\n{model}, {epochs} epochs of {samples} samples: edge accuracy in %, mean (range) over seeds")
    for sparsity in SPARSITIES[model]:
        print(f"  {sparsity:.0%} zeros")
        for criterion in CRITERIA:
            mine = [
                row["edge_accuracy"] * 100
                for row in found
                if (row["model"], row["criterion"], row["sparsity"], row["epochs"], row["samples"])
                == (model, criterion, sparsity, epochs, samples)
            ]
            if mine:
                spread = f"{min(mine):.2f} to {max(mine):.2f}; {len(mine)} seeds"
                print(f"    {criterion:16} {statistics.mean(mine):6.2f} ({spread})")


def main():
    parser = common.parser(__doc__, "pruning.jsonl")
    parser.add_argument("--models", default="mlp,resnet8")
    parser.add_argument("--criteria", default=",".join(CRITERIA))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--samples", type=int, default=20_000, help="training samples an epoch")
    options = parser.parse_args()
    models = options.models.split(",")
    jobs = [
        {
            "model": model,
            "criterion": criterion,
            "sparsity": sparsity,
            "seed": seed,
            "epochs": options.epochs,
            "samples": options.samples,
        }
        for model in models
        for seed in range(options.seeds)
        for sparsity in SPARSITIES[model]
        for criterion in options.criteria.split(",")
    ]
    common.run(jobs, work, options)
    for model in models:
        table(common.rows(options.out), model, options.epochs, options.samples)


if __name__ == "__main__":
    main()
