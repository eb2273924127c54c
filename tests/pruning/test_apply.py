from __future__ import annotations

import numpy as np
import pytest
import tensorflow_model_optimization as tfmot

from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import PlanError
from keras_xaic.models.kernels import weighted_kernels
from keras_xaic.planning.sparsity import weight_score
from keras_xaic.pruning import (
    PruneByRelevance,
    RelevanceSchedule,
    kernel_masks,
    prune_by_relevance,
    ramp_power,
    relevance_schedules,
)


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_schedule_follows_zhu_and_gupta(power):
    schedule = RelevanceSchedule(0.8, end_step=100, begin_step=20, frequency=10, power=power)
    for step in (0, 20, 37, 60, 100, 400):
        _, sparsity = schedule(tf.constant(step, tf.int64))
        progress = min(1.0, max(0.0, (step - 20) / 80))
        assert float(sparsity) == pytest.approx(0.8 * (1 - (1 - progress) ** power), abs=1e-6)
    assert [bool(schedule(tf.constant(step, tf.int64))[0]) for step in (19, 20, 25, 30, 100, 110)] == [
        False,
        True,
        False,
        True,
        True,
        False,
    ]


def test_a_ramp_that_does_not_divide_by_the_frequency_still_ends_at_its_end():
    schedule = RelevanceSchedule(0.5, end_step=25, frequency=10)
    assert bool(schedule(tf.constant(25, tf.int64))[0])


def test_schedules_that_are_none_are_named():
    with pytest.raises(PlanError, match=r"final_sparsity is 1\.0"):
        RelevanceSchedule(1.0, end_step=10)
    with pytest.raises(PlanError, match="begins at step 10"):
        RelevanceSchedule(0.5, end_step=10, begin_step=10)


def test_schedule_config_round_trip():
    schedule = RelevanceSchedule(0.5, end_step=30, begin_step=2, frequency=7, power=2.0)
    again = RelevanceSchedule.from_config(schedule.get_config()["config"])
    assert vars(again) == vars(schedule)


def test_even_relevance_ramps_evenly_and_thin_relevance_fast():
    assert ramp_power(np.ones(100)) == pytest.approx(1.0)
    assert ramp_power(np.r_[np.zeros(60), np.ones(40)]) == pytest.approx(3.0)
    assert ramp_power(None) == 3.0


def make_model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(8, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.SeparableConv2D(6, 2, name="separable")(x)
    return keras.Model(inputs, layers.Dense(3, name="dense")(layers.Flatten(name="flat")(x)))


def train(model, steps):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16 * steps, 6, 6, 2)), rng.normal(size=(16 * steps, 3))
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    model.fit(x, y, batch_size=16, epochs=1, verbose=0, callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])


def test_masks_follow_relevance_times_magnitude_and_tfmot_strips_them():
    model = make_model()
    rng = np.random.default_rng(1)
    relevance = {kernel.key: rng.random(kernel.shape) for kernel in weighted_kernels(model)}
    planned = {"conv": 0.5, "separable/pointwise_kernel": 0.25, "dense": 0.8, "depthwise": 0.9}
    pruned = prune_by_relevance(model, planned, relevance, end_step=20, frequency=5)
    train(pruned, 30)
    wrappers = [layer for layer in pruned.layers if isinstance(layer, PruneByRelevance)]
    assert [wrapper.layer.name for wrapper in wrappers] == ["conv", "separable", "dense"]
    stripped = tfmot.sparsity.keras.strip_pruning(pruned)
    assert [layer.name for layer in stripped.layers] == [layer.name for layer in model.layers]
    for key, mask in kernel_masks(stripped).items():
        if key in planned and key != "depthwise":
            assert 1 - mask.mean() == pytest.approx(planned[key], abs=1 / mask.size)
        else:
            assert mask.all()
    # What went is what an independent ranking of the first weights says, but for the few that training moved past another.
    for kernel in weighted_kernels(model):
        if kernel.key == "dense":
            score = weight_score(kernel.value, relevance["dense"])
            expected = score > np.quantile(score, 0.8)
            assert (kernel_masks(stripped)["dense"] == expected).mean() > 0.95


def test_new_relevance_changes_what_goes():
    model = make_model()
    kernel = next(k for k in weighted_kernels(model) if k.key == "dense")
    relevance = np.ones(kernel.shape)
    pruned = prune_by_relevance(model, {"dense": 0.5}, {"dense": relevance}, end_step=10, frequency=2)
    wrapper = next(layer for layer in pruned.layers if isinstance(layer, PruneByRelevance))
    relevance = np.zeros(kernel.shape)
    relevance[::2] = 1.0
    wrapper.set_relevance(relevance)
    train(pruned, 15)
    mask = kernel_masks(tfmot.sparsity.keras.strip_pruning(pruned))["dense"]
    assert mask[::2].all()
    assert not mask[1::2].any()


def test_the_wrapper_saves_and_loads_weights_like_tfmots(tmp_path):
    pruned = prune_by_relevance(make_model(), {"conv": 0.5}, {}, end_step=10, frequency=2)
    train(pruned, 12)
    pruned.save_weights(tmp_path / "w")
    again = prune_by_relevance(make_model(), {"conv": 0.5}, {}, end_step=10, frequency=2)
    again.load_weights(tmp_path / "w").expect_partial()
    x = np.ones((1, 6, 6, 2))
    np.testing.assert_array_equal(again.predict(x, verbose=0), pruned.predict(x, verbose=0))


def test_schedules_spend_sparsity_where_relevance_is_thin():
    rng = np.random.default_rng(0)
    scores = {"thin": np.abs(rng.normal(size=(40, 50))) ** 6, "even": 1 + 0.1 * rng.random((40, 50))}
    schedules = relevance_schedules(scores, 0.5, end_step=100)
    thin, even = schedules["thin"], schedules["even"]
    assert thin.final_sparsity > 0.8 > even.final_sparsity
    assert thin.final_sparsity + even.final_sparsity == pytest.approx(1.0, abs=0.01)
    assert thin.power > even.power


@pytest.mark.parametrize("score", ["magnitude", "relevance", "geometric_mean"])
def test_every_score_ranks_by_its_definition(score):
    model = make_model()
    kernel = next(k for k in weighted_kernels(model) if k.key == "dense")
    relevance = np.random.default_rng(3).normal(size=kernel.shape)
    pruned = prune_by_relevance(model, {"dense": 0.6}, {"dense": relevance}, end_step=2, frequency=1, score=score)
    wrapper = next(layer for layer in pruned.layers if isinstance(layer, PruneByRelevance))
    wrapper.pruning_step.assign(2)
    wrapper.pruning_obj.conditional_mask_update()
    a, w = relevance / np.linalg.norm(relevance), np.abs(kernel.value) / np.linalg.norm(kernel.value)
    ranking = {
        "magnitude": w,
        "relevance": np.abs(a),
        "geometric_mean": np.sqrt(np.abs(a) * w),
    }[score]
    expected = ranking > np.quantile(ranking, 0.6)
    assert (wrapper.pruning_vars[0][1].numpy().astype(bool) == expected).mean() > 0.995


def test_patterns_hold_after_training():
    model = make_model()
    relevance = {kernel.key: np.random.default_rng(1).random(kernel.shape) for kernel in weighted_kernels(model)}
    patterns = {"conv": "2:3", "dense": "2x1"}
    pruned = prune_by_relevance(model, {"conv": 0.66, "dense": 0.5}, relevance, end_step=10, frequency=2, patterns=patterns)
    train(pruned, 15)
    masks = kernel_masks(tfmot.sparsity.keras.strip_pruning(pruned))
    groups = masks["conv"].reshape(-1, 3, masks["conv"].shape[-1])
    assert (groups.sum(axis=1) == 1).all()
    blocks = masks["dense"].reshape(-1, 2, masks["dense"].shape[-1])
    assert (blocks.all(axis=1) | ~blocks.any(axis=1)).all()
    assert 1 - masks["dense"].mean() == pytest.approx(0.5, abs=0.06)


def test_a_pruned_model_saves_and_loads_whole(tmp_path):
    pruned = prune_by_relevance(make_model(), {"dense": 0.5}, {"dense": np.ones((6, 3))}, 4, score="relevance")
    train(pruned, 6)
    pruned.save(tmp_path / "pruned.h5")
    own = {"PruneByRelevance": PruneByRelevance, "RelevanceSchedule": RelevanceSchedule}
    with tfmot.sparsity.keras.prune_scope(), keras.utils.custom_object_scope(own):
        again = keras.models.load_model(tmp_path / "pruned.h5", compile=False)
    wrapper = next(layer for layer in again.layers if isinstance(layer, PruneByRelevance))
    assert (wrapper.score, wrapper.pattern, wrapper.pruning_schedule.final_sparsity) == ("relevance", "unstructured", 0.5)
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 2))
    np.testing.assert_array_equal(again.predict(x, verbose=0), pruned.predict(x, verbose=0))


def test_what_is_not_positive_goes_first_the_least_relevant_of_it_first():
    model = make_model()
    relevance = np.random.default_rng(3).normal(size=(6, 3))
    pruned = prune_by_relevance(model, {"dense": 0.3}, {"dense": relevance}, end_step=2, frequency=1, score="signed_relevance")
    wrapper = next(layer for layer in pruned.layers if isinstance(layer, PruneByRelevance))
    wrapper.pruning_step.assign(2)
    wrapper.pruning_obj.conditional_mask_update()
    gone = wrapper.pruning_vars[0][1].numpy() == 0
    negative = np.where(relevance <= 0, np.abs(relevance), np.inf).ravel()
    assert np.flatnonzero(gone).tolist() == np.sort(np.argsort(negative)[: gone.sum()]).tolist()
