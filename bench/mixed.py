"""Who should say which layer gets how many bits: ResNet-8 at the same mean bit-width, with and without training.

    python bench/mixed.py --data-root DIR [--data DIR] --epochs 0                      no training: rounding alone
    python bench/mixed.py --data-root DIR [--data DIR] --epochs 8 --seeds 3            the same budgets, trained
    python bench/mixed.py --data-root DIR [--data DIR] --epochs 8 --fixed              4, 3 and 2 bits everywhere beside mixed

One row a method, budget and seed in bench/results/mixed.jsonl; rows that are there are not measured again. Accuracy is that of
the written file on the edge interpreter that judges, on the whole test set. Bit-widths are chosen on 256 training samples.
"""

from __future__ import annotations

import time

import common

BITS = (2, 3, 4, 5, 6, 8)
METHODS = ("uniform", "weight_error", "relevance", "measured", "hessian", "combined")


def measure(options, *, method, mean_bits, rounding, epochs, samples, seed):
    from keras_xaic import Budget, Training, apply
    from keras_xaic.planning import PlanOptions, measure_damage, plan
    from keras_xaic.relevance import attribute
    from keras_xaic.tflite import build_tflite, pack_download

    model, data = common.load(options, "resnet8", samples)
    calibration = data.calibration(256, seed)
    start = time.perf_counter()
    relevance = attribute(model, calibration)
    attributed = time.perf_counter()
    damage = measure_damage(model, relevance, PlanOptions(sensitivity=method, bits=BITS), samples=calibration, seed=seed)
    measured = time.perf_counter()
    budget = Budget(mean_bits=mean_bits)
    made = plan(model, relevance, budget, PlanOptions(bits=BITS, sensitivity=damage, filters=False), seed=seed)
    planned = time.perf_counter()
    small = apply(model, made, data, relevance=relevance, training=Training(epochs=epochs, seed=seed, rounding=rounding))
    compressed = time.perf_counter()
    content = build_tflite(small, calibration)
    return {
        "plan_mean_bits": round(made.mean_bits, 3),
        "bits": [layer.bits for layer in made.layers],
        "edge_accuracy": common.edge_accuracy(content, data.test),
        "flash_bytes": len(content),
        "download_bytes": len(pack_download(content)),
        "attribute_seconds": round(attributed - start, 1),
        "sensitivity_seconds": round(measured - attributed, 1),
        "plan_seconds": round(planned - measured, 1),
        "compress_seconds": round(compressed - planned, 1),
    }


def main():
    parser = common.parser(__doc__, "mixed.jsonl")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--samples", type=int, help="training samples; default: all")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--mean-bits", default="4.0,3.0")
    parser.add_argument("--rounding", default="outputs", help="without training: outputs, nearest or both, with a comma")
    parser.add_argument("--fixed", action="store_true", help="4, 3 and 2 bits everywhere, and mixed at 4.0 and 3.0")
    options = parser.parse_args()
    pairs = [(method, float(mean)) for mean in options.mean_bits.split(",") for method in options.methods.split(",")]
    if options.fixed:
        pairs = [("uniform", 4.0), ("uniform", 3.0), ("uniform", 2.0), ("combined", 4.0), ("combined", 3.0)]
    roundings = options.rounding.split(",") if options.epochs == 0 else ["nearest"]
    jobs = [
        {
            "method": method,
            "mean_bits": mean,
            "rounding": rounding,
            "epochs": options.epochs,
            "samples": options.samples,
            "seed": seed,
        }
        for seed in range(options.seeds)
        for rounding in roundings
        for method, mean in pairs
    ]
    common.run(jobs, measure, options)


if __name__ == "__main__":
    main()
