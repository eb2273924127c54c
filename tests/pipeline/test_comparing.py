"""What compression changed, on a model whose relevance and mistakes are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.data import Data, Samples
from keras_xaic.models import fitted, infer_task
from keras_xaic.pipeline.comparing import compare_models
from keras_xaic.pipeline.removal import _parts
from keras_xaic.relevance.explanations import Explanations
from keras_xaic.training import predict
from tests.nets import linear


def compared(first, second, x, y, **how):
    test = Samples(np.asarray(x, np.float32), None if y is None else np.asarray(y))
    task = infer_task(first, Data(test, test))
    outputs = [model.predict(test.x, verbose=0) for model in (first, second)]
    return compare_models(first, second, test, task, *outputs, **how)


@pytest.fixture(scope="module")
def changes():
    x = np.random.default_rng(0).uniform(0.1, 1, (90, 3)).astype(np.float32)
    first = linear(np.eye(3) * 4)
    second = linear([[4, 0, 0], [0, 4, 3.9], [0, 0, 0.1]])  # what was class 2 hangs on the input of class 1
    return x, compared(first, second, x, x.argmax(1))


def test_mistakes_are_counted_class_by_class(changes):
    x, found = changes
    y = x.argmax(1)
    after = (x @ np.array([[4, 0, 0], [0, 4, 3.9], [0, 0, 0.1]])).argmax(1)
    assert [one["label"] for one in found.classes] == [0, 1, 2]
    for one in found.classes:
        mine = y == one["label"]
        assert one["samples"] == mine.sum()
        assert one["original_accuracy"] == 1
        assert one["accuracy"] == pytest.approx(np.mean(after[mine] == one["label"]))
        assert one["drop_pp"] == pytest.approx(100 * (1 - one["accuracy"]))
        for other in one["confused_with"]:
            assert other["samples"] == np.sum(after[mine] == other["label"]) > other["original_samples"] == 0
    assert found.classes[2]["confused_with"]


def test_similarity_sees_which_class_changed_its_reasons(changes):
    _, found = changes
    similarity = {one["label"]: one["explanation_similarity"] for one in found.classes}
    assert similarity[0] == similarity[1] == 1
    assert similarity[2] < 0.6
    counts = np.array([one["samples"] for one in found.classes])
    assert found.similarity["spearman"] == pytest.approx(np.average(list(similarity.values()), weights=counts))
    assert found.facts["samples"] == 90


def test_what_changed_most_and_newly_wrong_samples_are_shown_first_and_their_maps_are_kept(changes):
    x, found = changes
    shown = found.facts["shown"]
    assert [one["group"] for one in shown] == ["most changed"] * 4 + ["newly wrong"] * 6 + ["still right"] * 6
    assert all((one["answer"] != one["truth"]) == (one["group"] == "newly wrong") for one in shown[4:])
    assert len({one["sample"] for one in shown}) == 16
    kept = found.explanations
    np.testing.assert_array_equal(kept.inputs, x[[one["sample"] for one in shown]])
    expected = np.eye(3)[[one["truth"] for one in shown]]
    np.testing.assert_allclose(kept.original, expected, atol=1e-4)  # the one input that the class of a sample hangs on


def test_a_model_compared_with_itself():
    x = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    model = linear(np.random.default_rng(2).normal(size=(4, 3)))
    found = compared(model, model, x, None)  # no labels: the original's answers are explained
    assert found.similarity == dict.fromkeys(("spearman", "cosine", "top10", "held_out"), pytest.approx(1))
    assert found.classes == []
    assert found.facts["target"] == "predicted"
    assert {one["group"] for one in found.facts["shown"]} == {"most changed", "still right"}


def test_a_model_that_is_right_about_nothing_is_compared_nevertheless():
    x = np.random.default_rng(0).uniform(0.1, 1, (5, 3)).astype(np.float32)
    found = compared(linear(np.eye(3)), linear(np.eye(3)), x, (x.argmax(1) + 1) % 3)
    assert {one["group"] for one in found.facts["shown"]} == {"most changed", "wrong before"}
    assert len(found.explanations.index) == len(found.facts["shown"]) == 5
    assert [one["group"] for one in found.facts["shown"]] == ["most changed"] * 4 + ["wrong before"]


def test_regression_has_explanations_but_no_classes():
    x = np.random.default_rng(3).normal(size=(20, 4)).astype(np.float32)
    model = linear(np.ones((4, 2)), None)
    found = compared(model, model, x, x[:, :2])
    assert found.classes == []
    assert found.facts["target"] == "all"
    assert found.similarity["spearman"] == 1
    assert found.similarity["held_out"] == 1
    assert {one["group"] for one in found.facts["shown"]} == {"most changed", "sample"}


def test_inputs_of_one_number_are_compared_and_their_explanations_are_read_again(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(())
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(4, "relu")(inputs[:, None])))
    x = np.random.default_rng(4).normal(size=12).astype(np.float32)
    found = compared(model, model, x, np.stack([x, -x], 1))
    found.explanations.save(tmp_path / "explanations.npz")
    assert Explanations.load(tmp_path / "explanations.npz").inputs.shape == (10, 1)


def test_the_worst_samples_stand_first(changes):
    x, found = changes
    spoken = [x * weights[:, x.argmax(1)].T for weights in (np.eye(3) * 4, np.array([[4, 0, 0], [0, 4, 3.9], [0, 0, 0.1]]))]
    rank = np.array([np.corrcoef(*map(rank_of, pair))[0, 1] for pair in zip(*spoken)])
    shown = [one["similarity"] for one in found.facts["shown"] if one["group"] == "most changed"]
    assert shown == pytest.approx(np.sort(rank)[:4])


def rank_of(values):
    return np.array([(values < one).sum() + (values == one).sum() / 2 for one in values])


def test_every_yardstick_sees_which_class_changed_its_reasons(changes):
    _, found = changes
    by_class = [one["similarity"] for one in found.classes]
    assert all(set(one) == {"spearman", "cosine", "top10", "held_out"} for one in by_class)
    assert by_class[0]["cosine"] == by_class[1]["cosine"] == by_class[0]["top10"] == pytest.approx(1)
    assert by_class[2]["cosine"] < 0.3
    assert by_class[2]["top10"] < 0.5
    assert by_class[2]["held_out"] < by_class[0]["held_out"]


@pytest.mark.parametrize(("shape", "parts"), [((), 1), ((5,), 5), ((40,), 16), ((30, 3), 16), ((8, 8, 1), 16), ((3, 9, 2), 12)])
def test_parts_that_are_taken_away_cover_every_input_once(shape, parts):
    counted = np.zeros((2, *shape))
    found = list(_parts(shape))
    for part in found:
        counted[part] += 1
    assert (counted == 1).all()
    assert len(found) == parts


def test_each_of_several_outputs_is_compared_by_itself():
    inputs = keras.Input((4,), name="x")
    parts = [layers.Dense(1, use_bias=False, name=name)(inputs) for name in ("kept", "turned")]
    first = keras.Model(inputs, parts)
    first.set_weights([np.array([[1.0], [2.0], [3.0], [4.0]])] * 2)
    second = keras.models.clone_model(first)
    second.set_weights([np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([[4.0], [3.0], [2.0], [1.0]])])
    x = np.random.default_rng(5).uniform(0.9, 1.1, (20, 4)).astype(np.float32)
    data = fitted(first, Data(Samples(x, {"kept": x[:, :1], "turned": x[:, 1:2]})))
    task = infer_task(first, data)
    outputs = [predict(model, data.train) for model in (first, second)]
    found = compare_models(first, second, data.train, task, *outputs)
    assert found.outputs["kept"] == dict.fromkeys(("spearman", "cosine", "top10", "held_out"), pytest.approx(1))
    assert found.outputs["turned"]["spearman"] < -0.9
    assert found.outputs["turned"]["held_out"] < 0.8


@pytest.mark.slow
def test_layers_without_a_rule_do_not_keep_models_from_being_compared():
    inputs = keras.Input((4, 4, 1))
    outputs = layers.Dense(3, activation="softmax")(layers.Flatten()(layers.ConvLSTM1D(2, 2)(inputs)))
    model = keras.Model(inputs, outputs)
    x = np.random.default_rng(4).normal(size=(6, 4, 4, 1)).astype(np.float32)
    found = compared(model, model, x, np.arange(6) % 3)
    assert found.similarity["spearman"] == 1
    assert len(found.classes) == 3


def test_comparing_says_how_far_it_is():
    told = []
    x = np.random.default_rng(0).uniform(0.1, 1, (90, 3)).astype(np.float32)

    def tell(stage, done, total, note=""):
        told.append((stage, done, total, note))

    compared(linear(np.eye(3)), linear(np.eye(3)), x, None, progress=tell)
    assert {stage for stage, *_ in told} == {"compare"}
    for note, total in (("what taking parts of inputs away does", 2 * (1 + 3)), ("relevance of inputs", 90)):
        assert ("compare", total, total, note) in told
        assert max(done for _, done, of, about in told if about == note and of == total) == total
