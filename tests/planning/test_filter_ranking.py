from __future__ import annotations

import itertools

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.errors import PlanError
from keras_xaic.models.channels import channel_groups
from keras_xaic.models.costs import kept_macs, kept_parameters
from keras_xaic.models.surgery import remove_channels
from keras_xaic.planning.filter_ranking import choose_filters


def net():
    """Groups of 16, 12 and 8 channels and a head."""
    x = inputs = keras.Input((8, 8, 3))
    for name, filters in (("first", 16), ("second", 12), ("third", 8)):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def groups():
    return channel_groups(net())


@pytest.fixture(scope="module")
def scores(groups):
    rng = np.random.default_rng(0)
    return {group.name: rng.uniform(1, 2, group.size) for group in groups.removable}


def kept(groups, masks):
    return {group.name: int(masks[group.name].sum()) if group.name in masks else group.size for group in groups.removable}


def test_the_lowest_scores_of_the_whole_model_go_first(groups, scores):
    keep = choose_filters(groups, scores, fraction=0.25, min_filters=1, min_fraction=0)
    everything = np.sort(np.concatenate(list(scores.values())))
    threshold = everything[round(0.25 * 36)]
    for name, one in scores.items():
        np.testing.assert_array_equal(keep.get(name, np.ones(len(one), bool)), one >= threshold)


def test_floors_hold_where_scores_would_empty_a_group(groups, scores):
    low = {**scores, "second": scores["second"] / 1000}
    assert kept(groups, choose_filters(groups, low, fraction=0.5, min_filters=3, min_fraction=0))["second"] == 3
    assert kept(groups, choose_filters(groups, low, fraction=0.5, min_filters=1, min_fraction=0.4))["second"] == 5
    nothing_left = choose_filters(groups, low, fraction=0.99, min_filters=20, min_fraction=0)
    assert nothing_left == {}


def test_protected_layers_stay_whole(groups, scores):
    low = {**scores, "second": scores["second"] / 1000}
    keep = choose_filters(groups, low, fraction=0.5, protect=["sec*", "nothing"])
    assert "second" not in keep
    assert set(keep) == {"first", "third"}


@pytest.mark.parametrize("align", [2, 4, 8])
def test_what_stays_is_aligned_and_what_stays_extra_is_the_best_of_the_rest(groups, scores, align):
    keep = choose_filters(groups, scores, fraction=0.4, min_filters=1, min_fraction=0, align=align)
    for name, mask in keep.items():
        assert mask.sum() % align == 0
        assert scores[name][mask].min() > scores[name][~mask].max()
    plain = kept(groups, choose_filters(groups, scores, fraction=0.4, min_filters=align, min_fraction=0))
    for name, count in kept(groups, keep).items():
        assert count == min(groups[name].size, -(-plain[name] // align) * align)


@pytest.mark.parametrize("kept_cost", [kept_parameters, kept_macs])
@pytest.mark.parametrize("align", [1, 4])
def test_a_target_cost_is_met_by_the_fewest_removals(groups, scores, kept_cost, align):
    calls = []

    def cost(keep):
        calls.append(keep)
        return sum(kept_cost(groups, keep).values())

    target = cost({}) // 2
    keep = choose_filters(groups, scores, cost=cost, target=target, align=align)
    assert len(calls) < 24
    assert cost(keep) <= target
    for name, mask in keep.items():  # giving any group its next best channels again is too much
        gone = np.flatnonzero(~mask)
        back = mask.copy()
        back[gone[np.argsort(scores[name][gone])[::-1][:align]]] = True
        assert cost({**keep, name: back}) > target
        assert scores[name][mask].min() > scores[name][gone].max()


def test_channels_that_went_while_another_group_decided_come_back(groups, scores):
    """The limit is on one group only, whose channels score highest: nothing of the others needs to go."""
    high = {**scores, "third": scores["third"] + 10}

    def cost(keep):
        return int(keep["third"].sum()) if "third" in keep else groups["third"].size

    assert kept(groups, choose_filters(groups, high, cost=cost, target=5)) == {"first": 16, "second": 12, "third": 5}


def test_the_cost_is_that_of_the_rebuilt_model(groups, scores):
    keep = choose_filters(groups, scores, cost=lambda k: sum(kept_parameters(groups, k).values()), target=1000)
    assert remove_channels(net(), keep).count_params() == sum(kept_parameters(groups, keep).values()) <= 1000


def test_a_target_out_of_reach_gives_the_most_that_floors_allow(groups, scores):
    keep = choose_filters(groups, scores, cost=lambda k: sum(kept_parameters(groups, k).values()), target=1, min_filters=2)
    assert kept(groups, keep) == {"first": 2, "second": 2, "third": 2}


def test_a_target_that_is_met_already_removes_nothing(groups, scores):
    assert choose_filters(groups, scores, cost=lambda keep: 5, target=5) == {}


def test_equal_scores_give_the_same_choice_every_time(groups):
    flat = {group.name: np.ones(group.size) for group in groups.removable}
    keep = choose_filters(groups, flat, fraction=0.25, min_filters=1, min_fraction=0)
    assert kept(groups, keep) == {"first": 7, "second": 12, "third": 8}
    np.testing.assert_array_equal(keep["first"], np.arange(16) >= 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "how much"),
        ({"fraction": 0.5, "cost": len, "target": 1}, "how much"),
        ({"target": 1}, "how much"),
        ({"fraction": 1.0}, "fraction"),
        ({"fraction": 0.5, "align": 0}, "align"),
        ({"fraction": 0.5, "min_fraction": 2.0}, "min_fraction"),
    ],
)
def test_wrong_arguments_are_refused(groups, scores, options, message):
    with pytest.raises(PlanError, match=message):
        choose_filters(groups, scores, **options)


def test_scores_that_do_not_fit_are_refused(groups, scores):
    for wrong, message in [
        ({"elsewhere": np.ones(3)}, "elsewhere"),
        ({"first": np.ones(3)}, r"\(16,\)"),
        ({"first": np.full(16, np.nan)}, "NaN"),
    ]:
        with pytest.raises(PlanError, match=message):
            choose_filters(groups, {**scores, **wrong}, fraction=0.5)


def in_blocks(widths):
    """What kernels cost that compute 16 channels from 8 at a time, on pictures that get smaller."""
    ins = (3, *widths[:-1])
    return sum(place * -(-one // 8) * -(-out // 16) for place, one, out in zip((64, 16, 4), ins, widths))


def test_what_saves_most_for_its_score_goes_first_and_in_whole_blocks():
    sizes, names = (24, 48, 64), ("first", "second", "third")
    x = inputs = keras.Input((8, 8, 3))
    for name, filters in zip(names, sizes):
        x = layers.Conv2D(filters, 3, padding="same", name=name)(x)
    groups = channel_groups(keras.Model(inputs, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x))))

    def cost(keep):
        return in_blocks([int(keep[name].sum()) if name in keep else size for name, size in zip(names, sizes)])

    def loss(of_all, of_the_rest):
        return np.log(of_all / of_the_rest)

    found = []
    for seed, share in itertools.product((0, 1, 2), (0.3, 0.5, 0.7)):
        rng = np.random.default_rng(seed)
        gains = zip(names, sizes, (3, 1, 1))  # the layer that costs most has the highest scores
        scores = {name: gain * rng.lognormal(size=size) / np.sqrt(size) for name, size, gain in gains}
        limits = {"cost": cost, "target": share * in_blocks(sizes), "min_filters": 4, "min_fraction": 0}
        keeps = [choose_filters(groups, scores, by_saving=how, **limits) for how in (True, False)]
        assert cost(keeps[0]) <= limits["target"]
        lost = [sum(loss(scores[name].sum(), scores[name][mask].sum()) for name, mask in keep.items()) for keep in keeps]
        # Independently: all widths in whole blocks, by brute force; others save nothing.
        left = [np.cumsum(np.sort(scores[name])[::-1]) for name in names]
        widths = itertools.product(*({4, size, *range(8, size, 8)} for size in sizes))
        within = [given for given in widths if in_blocks(given) <= limits["target"]]
        best = min(sum(loss(one[-1], one[width - 1]) for one, width in zip(left, given)) for given in within)
        found.append((*lost, best))
    by_saving, by_score, best = np.sum(found, axis=0)
    assert by_saving <= 1.1 * best
    assert by_saving < 0.8 * by_score


def test_where_nothing_saves_anything_floors_are_reached(groups, scores):
    keep = choose_filters(groups, scores, cost=lambda keep: 2.0, target=1.0, by_saving=True, min_fraction=0)
    assert kept(groups, keep) == {"first": 4, "second": 4, "third": 4}
