"""What a limit on time costs: accuracy against time and against epochs, through `compress` itself.

    python bench/speed.py --data-root MODELS --data DATA [--model resnet8] [--shares 0.9,0.75,0.6,0.5] [--epochs 12]

Each row is one run with `--max-slowdown SHARE` on all training samples: what validation data said, on which everything was
chosen, and what test data said in the end, both beside the original; the time that was predicted and measured, as multiples of
plain int8's. Appends rows to bench/results/speed.jsonl and prints the table. A run that is interrupted continues.
"""

from __future__ import annotations

import pathlib
import tempfile

import common


def work(options, *, model, share, epochs, seed):
    import keras_xaic as xaic
    from keras_xaic.report import Report

    folder = (options.work or pathlib.Path(tempfile.mkdtemp())) / f"{model}-{share}-{epochs}-{seed}"
    finished = folder / "report.json"
    report = (
        Report.load(finished)
        if finished.exists()
        else xaic.compress(
            options.data_root / common.FILES[model],
            (options.data or options.data_root) / common.DATA[model],
            budget=xaic.Budget(max_slowdown=share),
            training=xaic.Training(epochs=epochs, seed=seed),
            device=xaic.Device(target="mobile"),
            out=folder,
            overwrite=True,
        )
    )
    best = max(report.rounds, key=lambda one: one.held_back)
    plan = xaic.Plan.load(folder / "plan.json")
    latency = report.compressed.latency_ms[report.budget.timed_on]
    return {
        "validation": round(best.held_back, 4),
        "validation_original": round(best.held_back + best.drop_pp / 100, 4),
        "test": report.compressed.edge_metric,
        "test_original": report.original.edge_metric,
        "test_int8": report.baselines["int8"].edge_metric,
        "drop_pp": round(report.compressed.drop_pp, 2),
        "ratio": round(latency.ratio_to_int8, 3),
        "predicted": plan.predicted_slowdown,
        "flash_bytes": report.compressed.flash_bytes,
        "macs": report.compressed.macs,
        "filters": {layer.name: layer.filters_kept for layer in report.layers if layer.filters},
        "stages_s": report.seconds,
        "met": report.budget.met,
    }


def table(rows):
    print("| model | limit | measured | epochs | validation | test | int8 on test |\n|---|---:|---:|---:|---:|---:|---:|")
    for row in sorted(rows, key=lambda row: (row["model"], -row["share"], row["epochs"], row["seed"])):
        values = [f"{100 * row[name]:.1f}" for name in ("validation", "validation_original", "test", "test_int8")]
        told = f"{row['share']} | {row['ratio']:.2f} | {row['epochs']} | {values[0]} of {values[1]} | {values[2]} | {values[3]}"
        print(f"| {row['model']} | {told} |")


def main():
    parser = common.parser(__doc__, "speed.jsonl")
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--shares", default="0.9,0.75,0.6,0.5")
    parser.add_argument("--epochs", default="12")
    parser.add_argument("--work", type=pathlib.Path, help="directory of the runs; default: a temporary one")
    parser.set_defaults(workers=1, seeds=1)
    options = parser.parse_args()
    jobs = [
        {"model": options.model, "share": share, "epochs": epochs, "seed": seed}
        for seed in range(options.seeds)
        for epochs in map(int, options.epochs.split(","))
        for share in map(float, options.shares.split(","))
    ]
    common.run(jobs, work, options)
    table(common.rows(options.out))


if __name__ == "__main__":
    main()
