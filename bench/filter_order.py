"""Which filters should go under a limit on time? Equal limits, epochs, data and schedule; accuracy on validation data.

    python bench/filter_order.py --data-root MODELS --data DATA [--models resnet8,cnn] [--epochs 0,1,2] [--samples 15000]

* score: the lowest scores of the whole model go first, as under limits of bytes.
* saving: what `compress` does: the lowest loss for the time that is saved, where a removal that takes the sum of scores of a
  group from S to s loses log(S / s).
* saving-whole, saving-sum: the same with a loss of Z log(S / s), where Z is the sum of the whole group, and of S - s.
* branch: the residual branch that loses least for the time that it saves goes whole first, then filters as in saving;
  `compress` takes what loses least in all.
* uniform: the same share of every group, within it the lowest scores.

Models are float32, trained with distillation as `apply` does. Accuracy is that on 5,000 training samples that nothing else
sees. Appends rows to bench/results/filter_order.jsonl and prints the table.
"""

from __future__ import annotations

import math
import statistics

import common
import numpy as np

ORDERS = {
    "score": None,
    "saving": None,
    "branch": None,
    "saving-whole": lambda whole, before, after: whole * math.log(max(before, 1e-9 * whole) / max(after, 1e-9 * whole)),
    "saving-sum": lambda whole, before, after: before - after,
    "uniform": None,
}
CALIBRATION, VALIDATION = 256, 5_000


def work(options, *, model, order, share, seed, epochs, samples, rate):
    import keras_xaic as xaic
    from keras_xaic.data import Data
    from keras_xaic.models import channel_groups, group_scores
    from keras_xaic.planning.latency import Times
    from keras_xaic.training import predict

    original, data = common.load(options, model, samples + VALIDATION)
    apart = data.train.take(np.arange(samples, samples + VALIDATION))
    data = Data(data.train.take(np.arange(samples)), None, data.name)
    relevance = xaic.attribute(original, data.calibration(CALIBRATION, seed), rule="lrp.epsilon")
    branches, left = first_branch(original, relevance, share) if order == "branch" else ({}, original)
    groups = channel_groups(left)
    plain = Times(original).plain()
    keep, predicted = chosen(order, groups, group_scores(groups, relevance.filters, norm="l2"), share, plain)
    remove = {name: np.flatnonzero(~mask).tolist() for name, mask in keep.items() if not mask.all()}
    left = {group.name: group.size - len(remove.get(group.name, ())) for group in groups.removable}
    same = {"model": model, "share": share, "seed": seed, "epochs": epochs, "samples": samples, "rate": rate, "left": left}
    done = next((row for row in common.rows(options.out) if same.items() <= row.items()), None)
    if done is not None:  # equal widths are equal models
        return {key: done[key] for key in ("accuracy", "original", "predicted", "left", "parameters")}
    plan = xaic.Plan(recipe="filters", seed=seed, branches=branches, remove=remove)
    small = xaic.apply(original, plan, data, training=xaic.Training(epochs=epochs, learning_rate=rate))
    right = predict(small.model, apart).argmax(-1) == apart.labels
    return {
        "accuracy": round(float(right.mean()), 4),
        "original": round(float((predict(original, apart).argmax(-1) == apart.labels).mean()), 4),
        "predicted": round(predicted, 3),
        "left": left,
        "parameters": small.model.count_params(),
    }


def first_branch(model, relevance, share):
    """Returns the branch that goes, as in a plan, and the model without it."""
    from keras_xaic.models import channel_groups, remove_branches
    from keras_xaic.planning.branches import BranchRemoval
    from keras_xaic.planning.latency import Times

    times = Times(model)
    removal = BranchRemoval(channel_groups(model), relevance.filters)
    name = removal.next((), times.of_layers({}), (1 - share) * times.plain())
    branches = {} if name is None else {name: list(removal.branches[name].layers)}
    return branches, remove_branches(model, branches)


def chosen(order, groups, scores, share, plain):
    """Returns keep masks, and the predicted time as a multiple of plain int8's."""
    from keras_xaic.planning import FilterPlan, filter_ranking
    from keras_xaic.planning.filters import FilterCost

    cost = FilterCost(groups, FilterPlan(microseconds=share * plain), {})
    if order == "uniform":
        keep = next(masks for masks in same_share(groups, scores) if cost(masks) <= 1)
    else:
        ours = filter_ranking.lost
        filter_ranking.lost = ORDERS[order] or ours
        try:
            keep = filter_ranking.choose_filters(groups, scores, cost=cost, target=1.0, by_saving=order != "score")
        finally:
            filter_ranking.lost = ours
    return keep, cost.left(keep)["microseconds"] / plain


def same_share(groups, scores):
    """Yields masks that leave ever fewer channels of every group."""
    for percent in range(100, 0, -1):
        masks = {}
        for group in groups.removable:
            count = max(4, math.ceil(group.size * percent / 100))
            masks[group.name] = np.zeros(group.size, bool)
            masks[group.name][np.argsort(scores[group.name], kind="stable")[group.size - count :]] = True
        yield masks


def table(found, share, samples, rate):
    print(f"\n{share} of plain int8's predicted time, {samples} samples, rate {rate}: accuracy in %, mean (all seeds)")
    for model, epochs in sorted({(row["model"], row["epochs"]) for row in found}):
        for order in ORDERS:
            mine = [
                row
                for row in found
                if (row["model"], row["order"], row["share"], row["epochs"], row["samples"], row["rate"])
                == (model, order, share, epochs, samples, rate)
            ]
            if mine:
                values = [100 * row["accuracy"] for row in sorted(mine, key=lambda row: row["seed"])]
                each = ", ".join(f"{value:.1f}" for value in values)
                print(f"  {model:8} {epochs} epochs  {order:11} {statistics.mean(values):6.2f} ({each})  {mine[0]['left']}")


def main():
    parser = common.parser(__doc__, "filter_order.jsonl")
    parser.add_argument("--models", default="cnn,resnet8")
    parser.add_argument("--orders", default=",".join(ORDERS))
    parser.add_argument("--epochs", default="0,1,2")
    parser.add_argument("--share", type=float, default=0.5, help="predicted time as a multiple of plain int8's")
    parser.add_argument("--samples", type=int, default=15_000, help="training samples an epoch")
    parser.add_argument("--rate", type=float, default=1e-3, help="first learning rate")
    options = parser.parse_args()
    jobs = [
        {
            "model": model,
            "order": order,
            "share": options.share,
            "seed": seed,
            "epochs": epochs,
            "samples": options.samples,
            "rate": options.rate,
        }
        for epochs in map(int, options.epochs.split(","))
        for seed in range(options.seeds)
        for model in options.models.split(",")
        for order in options.orders.split(",")
    ]
    common.run(jobs, work, options)
    table(common.rows(options.out), options.share, options.samples, options.rate)


if __name__ == "__main__":
    main()
