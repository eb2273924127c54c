"""Who should decide which weights become zero? Equal bits and zeros in every layer; edge accuracy, download bytes.

    python bench/entropy.py --data-root MODELS --data DATA [--models mlp,cnn,resnet8] [--bits 2,4] [--epochs 3]
    python bench/entropy.py --data-root MODELS --data DATA --codebook

* magnitude: masks, smallest weights first (L2-normalised, ranked over the whole model), then training on the uniform grid.
* ecq: the entropy constraint, driven in every layer to the sparsity that magnitude gives it; uniform grid.
* ecqx: as ecq, but relevance (LRP epsilon) chooses among weights; attributions are computed four times an epoch.
* ecqx-every-step: as ecqx, with attributions at every training step, as published. Only with --methods.

With --codebook: 8 and 16 shared values per layer, before any fine-tuning, on levels that weigh all weights alike (plain) or by
DeepLIFT relevance of 256 training samples (relevance). Appends rows to bench/results/entropy.jsonl and prints the table.
"""

from __future__ import annotations

import dataclasses
import statistics

import common

METHODS = {"magnitude": "uniform", "ecq": "ecq", "ecqx": "ecqx", "ecqx-every-step": "ecqx"}
DEFAULT = "magnitude,ecq,ecqx"
CODEBOOKS = ("codebook-plain", "codebook-relevance")
SPARSITIES = {"resnet8": (0.5, 0.7), "cnn": (0.8, 0.95), "mlp": (0.8, 0.95)}
CALIBRATION = 256


def work(options, *, model, method, bits, sparsity, seed, epochs, samples):
    import numpy as np

    from keras_xaic import apply, tflite
    from keras_xaic.models import infer_task
    from keras_xaic.relevance import attribute

    original, data = common.load(options, model, samples)
    plan = equal_plan(original, method, bits, sparsity, seed)
    calibration = data.calibration(CALIBRATION, seed)
    rule = "deeplift.rescale" if method in CODEBOOKS else "lrp.epsilon"
    target = infer_task(original, data).explained(calibration)
    relevance = attribute(original, calibration, rule=rule, target=target)
    if method == "codebook-plain":
        alike = {key: np.ones_like(score) for key, score in relevance.weights.items()}
        relevance = dataclasses.replace(relevance, weights=alike)
    options = {"epochs": epochs, "seed": seed, "calibration": CALIBRATION}
    small = apply(original, plan, data, relevance=relevance, refresh=1 if method == "ecqx-every-step" else None, **options)
    grids = small.kernels.values()
    weights = sum(grid.integers.size for grid in grids)
    content = tflite.build_tflite(small, calibration)
    return {
        "zeros": round(small.sparsity, 4),
        "zeros_per_layer": {key: round(grid.sparsity, 3) for key, grid in small.kernels.items()},
        "entropy_bits": round(sum(grid.entropy_bits * grid.integers.size for grid in grids) / weights, 4),
        "flash_bytes": len(content),
        "download_bytes": len(tflite.pack_download(content)),
        "edge_accuracy": common.edge_accuracy(content, data.test),
    }


def equal_plan(model, method, bits, sparsity, seed):
    """The same bits everywhere, and in every layer the zeros that ranking by magnitude over the whole model gives it."""
    import numpy as np

    from keras_xaic.models import remove_channels, weighted_kernels
    from keras_xaic.planning import LayerPlan, Plan, kept_weights, legal_storages, weight_score, with_grid

    kernels = weighted_kernels(remove_channels(model, {}))
    scores = {k.key: weight_score(k.value, np.ones(k.shape), "magnitude") for k in kernels if k.kind != "depthwise"}
    kept = kept_weights(scores, sparsity)
    layers = []
    for kernel in kernels:
        granularity = "tensor" if kernel.kind == "dense" and bits <= 4 else "channel"
        layers.append(
            LayerPlan(
                key=kernel.key,
                kind=kernel.kind,
                weights=kernel.size,
                bits=bits,
                granularity=granularity,
                storage=legal_storages(kernel.kind, bits, granularity == "tensor")[0],
                sparsity=float(1 - kept[kernel.key].mean()) if sparsity and kernel.key in kept else 0.0,
            )
        )
    plan = Plan(recipe="benchmark", seed=seed, score="magnitude", layers=layers)
    return with_grid(plan, "codebook" if method in CODEBOOKS else METHODS[method])


def table(found, jobs):
    settings = []
    for job in jobs:
        setting = {key: value for key, value in job.items() if key not in ("seed", "method")}
        if setting not in settings:
            settings.append(setting)
    for setting in settings:
        print("\n" + ", ".join(f"{key} {value}" for key, value in setting.items()))
        for method in (*METHODS, *CODEBOOKS):
            mine = [row for row in found if {**setting, "method": method}.items() <= row.items()]
            if mine:
                accuracy = [row["edge_accuracy"] * 100 for row in mine]
                mean = {key: statistics.mean(row[key] for row in mine) for key in ("zeros", "entropy_bits", "download_bytes")}
                print(
                    f"  {method:20} {statistics.mean(accuracy):6.2f} % ({min(accuracy):.2f} to {max(accuracy):.2f}; "
                    f"{len(mine)} seeds), {mean['zeros']:.1%} zeros, {mean['entropy_bits']:.2f} bits a weight, "
                    f"{mean['download_bytes']:,.0f} B"
                )


def main():
    parser = common.parser(__doc__, "entropy.jsonl")
    parser.add_argument("--models", default="mlp,cnn,resnet8")
    parser.add_argument("--methods", default=DEFAULT)
    parser.add_argument("--bits", default="2,4", help="bit-widths")
    parser.add_argument("--sparsities", help="fractions of zeros; default: two for each model")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--samples", type=int, default=20_000, help="training samples an epoch")
    parser.add_argument("--codebook", action="store_true", help="compare codebooks instead")
    options = parser.parse_args()
    jobs = []
    for model in options.models.split(","):
        wanted = [float(one) for one in options.sparsities.split(",")] if options.sparsities else SPARSITIES[model]
        for seed in range(options.seeds):
            fixed = {"model": model, "seed": seed, "samples": options.samples}
            if options.codebook:
                free = [{"method": m, "bits": b, "sparsity": 0.0, "epochs": 0} for b in (3, 4) for m in CODEBOOKS]
            else:
                free = [
                    {"method": method, "bits": bits, "sparsity": sparsity, "epochs": options.epochs}
                    for bits in map(int, options.bits.split(","))
                    for sparsity in wanted
                    for method in options.methods.split(",")
                ]
            jobs += [{**fixed, **one} for one in free]
    common.run(jobs, work, options)
    table(common.rows(options.out), jobs)


if __name__ == "__main__":
    main()
