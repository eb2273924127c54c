"""Rounds of planning and training: what is corrected, what is kept, and how long it may take."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

import keras_xaic as xaic
import keras_xaic.pipeline.job as job_module
from keras_xaic import edge, tflite
from keras_xaic._keras import keras, layers
from keras_xaic.compression import CompressedModel
from keras_xaic.data import Data, Samples, as_data
from keras_xaic.errors import EdgeError, ExportError
from keras_xaic.models import infer_task, remove_channels
from keras_xaic.pipeline.baselines import run_baseline
from keras_xaic.pipeline.driver import Driver, in_original
from keras_xaic.pipeline.judging import Judge, judge_count
from keras_xaic.pipeline.rounds import Round
from keras_xaic.pipeline.run_settings import RunSettings
from keras_xaic.pipeline.size_fitting import SizeFitter, predict_accuracy
from keras_xaic.planning import Budget, LayerPlan, Plan, PlanOptions, keep_masks, plan
from keras_xaic.progress import silent
from keras_xaic.recipes import RECIPES
from tests.grouped import grouped


def make_data(count=700, seed=0):
    """Noisy waves of three frequencies: a task that a small net learns in a second."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    time_axis = np.linspace(0, 2 * np.pi, 24)
    x = np.sin(time_axis * (1 + y[:, None]) + rng.uniform(0, 1, (count, 1))) + rng.normal(size=(count, 24)) * 0.3
    return x.astype(np.float32), y


@pytest.fixture(scope="module")
def job():
    keras.utils.set_random_seed(4)
    x, y = make_data()
    inputs = keras.Input((24,), name="wave")
    z = layers.Dense(96, activation="relu", name="first")(inputs)
    z = layers.Dense(64, activation="relu", name="second")(z)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(z), name="waves")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=12, batch_size=32, verbose=0)
    return model, {"train": (x, y), "test": make_data(seed=1)}


@pytest.mark.slow
def test_what_is_planned_behind_the_removal_of_filters_has_room(job, tmp_path, monkeypatch):
    """To the brim, a few bytes that are predicted too many would have dense kernels looked up, tens of times as slow."""
    asked, fitting = [], SizeFitter.fitting

    def spied(self, budget, filters=None):
        asked.append((budget.flash_bytes, filters))
        return fitting(self, budget, filters)

    monkeypatch.setattr(SizeFitter, "fitting", spied)
    model, data = job
    report = xaic.compress(
        model,
        _npz(data, tmp_path),
        budget=Budget(flash=5_000, max_drop=100.0),
        out=tmp_path / "out",
        training=xaic.Training(epochs=0),
        device=xaic.Device(target="mobile", baselines=()),
    )
    assert asked[:2] == [(4_975, None), (5_000, False)]
    assert report.compressed.flash_bytes <= 5_000
    assert not Plan.load(tmp_path / "out" / "plan.json").lookup


@pytest.mark.slow
def test_without_limits_rounds_go_down_until_accuracy_is_gone(job, tmp_path):
    model, data = job
    report = xaic.compress(
        model,
        _npz(data, tmp_path),
        budget=Budget(max_drop=3.0),
        out=tmp_path / "out",
        training=xaic.Training(epochs=8),
        device=xaic.Device(baselines=("int8",)),
    )
    download = [one.download_bytes for one in report.rounds]
    assert len(download) >= 2
    assert download == sorted(download, reverse=True)  # flash counts where it is limited, or for microcontrollers alone
    kept = [one for one in report.rounds if one.drop_pp <= 3.0]
    assert report.compressed.flash_bytes == kept[-1].flash_bytes < 0.6 * report.baselines["int8"].flash_bytes
    assert all(one.drop_pp <= 3.0 for one in report.rounds[:-1])


@pytest.mark.slow
def test_rounds_use_up_the_download_but_never_overrun_it(job, tmp_path):
    model, data = job
    budget = Budget(flash="7kB", download="3600", max_drop=1.0)
    options = {"epochs": 12, "baselines": ["auto-magnitude"]}
    report = xaic.compress(model, _npz(data, tmp_path), budget=budget, out=tmp_path / "out", **grouped(**options))
    assert report.compressed.flash_bytes <= 7_000
    assert report.compressed.download_bytes <= 3_600
    assert report.rounds[0].epochs == 9
    assert sum(one.epochs for one in report.rounds) <= 12
    assert report.compressed.download_bytes in [one.download_bytes for one in report.rounds]
    assert report.baselines["auto-magnitude"].flash_bytes <= 7_000
    assert "The same method without relevance" in report.verdict


@pytest.mark.slow
def test_minutes_end_training(job, tmp_path, monkeypatch):
    trained = []

    def baseline(*arguments, epochs, **options):
        trained.append(epochs)
        return run_baseline(*arguments, epochs=epochs, **options)

    monkeypatch.setattr(job_module, "run_baseline", baseline)
    model, data = job
    start = time.perf_counter()
    report = xaic.compress(
        model,
        _npz(data, tmp_path),
        budget=Budget(flash="7kB"),
        out=tmp_path / "out",
        training=xaic.Training(minutes=0.02, seed=3),
        device=xaic.Device(baselines=("magnitude",)),
    )
    assert report.seconds["compress"] < time.perf_counter() - start
    assert 1 <= sum(one.epochs for one in report.rounds) < 120
    assert trained == [sum(one.epochs for one in report.rounds)], "a baseline trains as long, not as long as it could"


def _npz(data, folder):
    (x, y), (x_test, y_test) = data["train"], data["test"]
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return folder / "data.npz"


def _round(download, drop, held_back=0.9, **plan):
    small = CompressedModel(None, {}, Plan(**plan), {})
    return Round(small, 5_000, download, held_back, drop, 1, 1.0)


def _driver(model=None, data=None, epochs=2, **limits):
    task, samples = (None, None) if data is None else (infer_task(model, data), data.train)
    groups = (Budget(**limits), xaic.Training(epochs=epochs), xaic.Device(), xaic.DataOptions())
    return Driver(model, data, task, RunSettings(RECIPES["auto"], *groups), None, samples, None, silent)


def test_without_limits_a_round_must_be_good_on_other_samples_too():
    sure, lucky, worse = (replace(_round(800, drop), doubt=doubt) for drop, doubt in ((0.5, 0.2), (0.9, 2.0), (0.8, 1.5)))
    driver = _driver(max_drop=1.0)
    assert driver.standard.is_safe(sure)
    assert driver.standard.is_good(lucky)
    assert not driver.standard.is_safe(lucky)
    assert _driver(flash=9_000, max_drop=1.0).standard.is_safe(lucky), "where a size is given, it is what counts"
    small_but_lucky = replace(lucky, flash_bytes=10)
    assert max((small_but_lucky, sure, worse), key=driver.standard.worth) is sure
    assert max((small_but_lucky, worse), key=driver.standard.worth) is worse, "none is safe: the one that most likely keeps it"


def test_the_standard_error_of_a_drop_is_that_of_paired_decisions(tight, tmp_path, monkeypatch):
    model, _ = tight
    random = np.random.default_rng(0)
    x = random.random((1_000, *model.input_shape[1:]), np.float32)
    data = Data(Samples(x, model.predict(x, verbose=0).argmax(-1)))
    judge = Judge.of(model, infer_task(model, data), data.train)
    outputs = judge.outputs.copy()
    wrong = random.permutation(1_000)[:100]
    outputs[wrong] = outputs[wrong].max(-1, keepdims=True) - outputs[wrong]
    monkeypatch.setattr(edge, "run_file", lambda *_, **__: edge.EdgeResult(edge.judge(), "2", [outputs], []))
    _, drop, doubt = judge(tmp_path / "any.tflite")
    assert drop == pytest.approx(10.0)
    assert doubt == pytest.approx(100 * (0.1 * 0.9 / 1_000) ** 0.5, rel=0.7)  # 10 groups estimate it roughly


def test_one_sample_judges_without_a_standard_error(tight, tmp_path, monkeypatch):
    model, _ = tight
    x = np.zeros((1, *model.input_shape[1:]), np.float32)
    judge = Judge.of(model, infer_task(model, Data(Samples(x, np.array([0])))), Samples(x, np.array([0])))
    monkeypatch.setattr(edge, "run_file", lambda *_, **__: edge.EdgeResult(edge.judge(), "2", [judge.outputs], []))
    assert judge(tmp_path / "any.tflite")[1:] == (0.0, 0.0)


def test_when_a_download_is_corrected():
    driver = _driver(download=1_000)
    assert not driver._is_off(_round(990, 2.0)), "close enough"
    assert not driver._is_off(_round(800, 0.0)), "nothing to win"
    assert not _driver(flash=9_000)._is_off(_round(800, 2.0)), "no limit"
    assert driver._is_off(_round(1_001, 0.0)), "too large"
    assert driver._is_off(_round(800, 2.0)), "bytes are left that could win something back"


def test_what_is_left_of_the_effort_trains_on():
    driver = _driver(download=1_000)
    good = _round(990, 2.0, remove={"first": [1]}, seed=5)
    assert driver._following(good, left=3) == Plan(seed=5), "the same plan; what it removes is gone already"
    assert driver._following(good, left=0) is None, "no effort is left"
    assert driver._following(_round(990, -0.1), left=3) is None, "nothing to win"
    assert _driver(flash=4_000)._following(good, left=3) is None, "training makes no file smaller"


@pytest.mark.parametrize(
    ("limits", "epochs"),
    [({"max_slowdown": 0.5}, [12]), ({"max_slowdown": 0.5, "download": 900}, [9, 2, 1]), ({"flash": 9_000}, [9, 2, 1])],
)
def test_all_epochs_go_into_one_round_where_another_has_nothing_to_correct(monkeypatch, limits, epochs):
    class Fitter:
        model = relevance = None

        def fitting(self, *_, **__):
            return Plan()

    layer = LayerPlan(key="a", kind="dense", weights=9, bits=8, granularity="tensor", storage="int8")
    plans = iter([[layer], [], []])
    trained = []

    def a_round(self, number, model, made, relevance, epochs, *_):
        trained.append(epochs)
        return _round(890, 2.0, layers=next(plans))

    monkeypatch.setattr(Driver, "_fitter", lambda *_: Fitter())
    monkeypatch.setattr(Driver, "_round", a_round)

    def following(self, one, left, grown):
        return None if left == 0 else Plan(layers=[layer] if len(trained) > 1 else [])

    monkeypatch.setattr(Driver, "_following", following)
    driver = _driver(epochs=12, **limits)
    driver.reasons = None
    list(driver._within_limits())
    assert trained == epochs


def test_a_limit_that_every_trained_round_overruns_is_met_without_training(monkeypatch):
    """Long training was seen to make files 4 % too large in all rounds: what came out missed a limit that a plan can keep."""

    aims = []

    class Fitter:
        model = relevance = None

        def fitting(self, budget, **_):
            aims.append(budget.download_bytes)
            return Plan(predicted_download_bytes=880)

    layer = LayerPlan(key="a", kind="dense", weights=9, bits=8, granularity="tensor", storage="int8")
    sizes, trained = iter([930, 940, 920, 890]), []

    def a_round(self, number, model, made, relevance, epochs, *_):
        trained.append((number, epochs))
        return _round(next(sizes), 2.0, layers=[layer] * number, predicted_download_bytes=850)

    monkeypatch.setattr(Driver, "_fitter", lambda *_: Fitter())
    monkeypatch.setattr(Driver, "_round", a_round)
    driver = _driver(epochs=12, download=900)
    driver.reasons = None
    rounds = list(driver._within_limits())
    assert trained == [(1, 9), (2, 2), (3, 1), (4, 0)]
    assert max(rounds, key=driver.standard.worth).download_bytes == 890
    assert aims == [878, *(round(0.99 * 900 * 850 / written) for written in (930, 940, 940))], "less what was added at most"


@pytest.fixture(scope="module")
def coarse(job):
    """The net trained on grids of 2,000 bytes, under a driver with a limit of 3,000."""
    model, data = job
    arrays = Data(Samples(*data["train"]))
    driver = _driver(model, arrays, download=3_000)
    made = driver._fitter(model).fitting(replace(driver.budget, download=2_000), filters=False)
    small = xaic.apply(model, made, arrays, training=xaic.Training(epochs=2))
    download = len(tflite.pack_download(tflite.build_tflite(small, arrays.train)))
    return driver, Round(small, 5_000, download, 0.8, 5.0, 2, 1.0)


def test_a_trained_model_is_planned_anew_with_what_is_left(coarse):
    driver, one = coarse
    assert one.download_bytes < 2_500
    assert driver._following(one, left=0) is None, "without training other bits make a trained model worse"
    more = driver._following(one, left=1)
    made = one.small.plan
    assert one.download_bytes < more.predicted_download_bytes <= 3_000
    assert more.mean_bits * (1 - more.sparsity) > made.mean_bits * (1 - made.sparsity)
    assert more.budget == driver.budget
    assert more.remove == {}


def test_a_trained_model_that_is_too_large_is_planned_smaller(coarse):
    driver, one = coarse
    limits = Budget(download=round(0.9 * one.download_bytes))
    tight = replace(driver, settings=replace(driver.settings, budget=limits))
    less = tight._following(one, left=0)
    assert less.predicted_download_bytes <= tight.budget.download_bytes


def test_zeros_of_a_grid_are_no_masks(coarse):
    driver, one = coarse
    dense = [layer.model_copy(update={"sparsity": 0.0}) for layer in one.small.plan.layers]
    small = xaic.apply(
        driver.model, one.small.plan.model_copy(update={"layers": dense}), driver.data, training=xaic.Training(epochs=0)
    )
    assert small.sparsity > 0.05
    assert driver._fitter(small.trainable).options.sparsity == 0.0


def test_what_a_round_is_worth():
    limited = _driver(download=1_000)
    rounds = [
        _round(900, 1.0, 0.8),
        _round(990, 0.5, 0.9),
        _round(1_001, 0.0, 0.99),
        _round(2_000, 0.0, 1.0),
    ]
    assert max(rounds, key=limited.standard.worth) is rounds[1], "within the limit first, then accurate"
    assert max(rounds[2:], key=limited.standard.worth) is rounds[2], "the nearest where none fits"


def test_without_limits_the_smallest_that_keeps_the_accuracy_wins_and_else_the_most_accurate():
    free = _driver(max_drop=2.0)

    def rounds(*both):
        return [replace(_round(100, drop), flash_bytes=flash) for flash, drop in both]

    kept = rounds((9_000, 0.0), (5_000, 1.9), (3_000, 2.1), (1_000, 40.0))
    assert max(kept, key=free.standard.worth) is kept[1]
    lost = rounds((5_000, 30.0), (9_000, 2.5), (1_000, 60.0), (2_000, float("inf")))
    assert max(lost, key=free.standard.worth) is lost[1]


@pytest.fixture(scope="module")
def tight():
    """A net of six hidden units that needs all of them."""
    keras.utils.set_random_seed(6)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(24, 8)) * 2.0

    def draw(count):
        cluster = rng.integers(0, len(centres), count)
        return (centres[cluster] + rng.normal(size=(count, 8)) * 0.3).astype(np.float32), cluster % 6

    (x, y), test = draw(900), draw(300)
    inputs = keras.Input((8,), name="point")
    z = layers.Dense(14, activation="relu", name="first")(inputs)
    z = layers.Dense(14, activation="relu", name="second")(z)
    model = keras.Model(inputs, layers.Dense(6, activation="softmax", name="head")(z), name="points")
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=60, batch_size=32, verbose=0)
    return model, ((x, y), test)


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [0, 1])
def test_without_limits_a_model_that_cannot_be_halved_is_not_ruined(tight, tmp_path, epochs):
    model, data = tight
    budget = Budget(max_drop=3.0)
    report = xaic.compress(
        model,
        data,
        budget=budget,
        out=tmp_path / "out",
        training=xaic.Training(epochs=epochs),
        device=xaic.Device(baselines=(), target="mobile"),
    )
    assert report.rounds[0].drop_pp > 10, "the first round is ruined: this is what the rule is for"
    chosen = next(one for one in report.rounds if one.flash_bytes == report.compressed.flash_bytes)
    assert chosen.drop_pp <= 3.0
    assert report.compressed.drop_pp < 6.0
    assert report.budget.met is (report.compressed.drop_pp <= 3.0)


@pytest.mark.slow
def test_where_int8_cannot_keep_the_accuracy_activations_get_more_bits(tmp_path):
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 4)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
    inputs = keras.Input((4,))
    bound = keras.constraints.MaxNorm(1e9)  # without it the file would scale each column before it rounds
    z = layers.Dense(16, activation="relu", name="first", kernel_constraint=bound)(inputs)
    model = keras.Model(inputs, layers.Dense(2, activation="softmax", name="head")(z))
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=25, verbose=0)
    kernel, bias = model.get_layer("first").get_weights()
    model.get_layer("first").set_weights([kernel * [[1], [1], [1e-4], [1e-4]], bias])
    x[:, 2:] *= 3000.0  # one range for all columns leaves the others nothing
    data = {"x_train": x[:400], "y_train": y[:400], "x_test": x[400:], "y_test": y[400:]}
    options = {"budget": Budget(max_drop=4.0), "epochs": 0, "baselines": (), "target": "mobile"}
    report = xaic.compress(model, data, out=tmp_path / "out", **grouped(**options))
    assert report.compressed.drop_pp <= 4.0
    assert report.rounds[-1].activations != "int8"
    assert any(one.startswith(f"Activations are {report.rounds[-1].activations}") for one in report.warnings)


@pytest.fixture
def without_int16(monkeypatch):
    """A driver whose model has files with activations of int8, which lose 20 points, and float32, which keep all."""
    driver = replace(_driver(flash=9_000, max_drop=1.0), wider=("int16", "float32"))

    class Fitter:
        model = relevance = None

        def __init__(self, activations):
            self.activations = activations

        def fitting(self, limits, filters):
            if self.activations == "int16":
                raise ExportError("it needs an operator", "others", "Replace it")
            sizes = {"predicted_flash_bytes": 5_000, "predicted_download_bytes": 800}
            return Plan(activations=self.activations, budget=limits, **sizes)

    monkeypatch.setattr(Driver, "_fitter", lambda self, model, relevance, recipe: Fitter(recipe.plain_activations))
    monkeypatch.setattr("keras_xaic.pipeline.driver.macs", lambda model: {})
    drops = {"int8": 20.0, "float32": 0.5}
    monkeypatch.setattr(
        Driver,
        "_round",
        lambda self, number, model, made, *_: _round(800, drops[made.activations], activations=made.activations),
    )
    return driver


def test_activations_that_no_file_can_have_are_passed_over_for_wider_ones(without_int16):
    found = list(without_int16._gentler([_round(800, 30.0)], ("int8", "int16", "float32")))
    assert [one.small.plan.activations for one in found if one.drop < 1.0] == ["float32"]


@pytest.mark.parametrize(("layers_before", "tried"), [(None, ["float32"]), (40, ["int8", "int8", "float32"])])
def test_what_was_tried_without_training_is_not_tried_again(without_int16, layers_before, tried):
    before = _round(800, 30.0)
    if layers_before:
        layer = LayerPlan(key="a", kind="dense", weights=layers_before, bits=4, granularity="tensor", storage="int4")
        before = replace(before, small=replace(before.small, plan=Plan(layers=[layer])))
    found = list(without_int16._gentler([replace(before, epochs=0)], ("int8", "int16", "float32")))
    assert [one.small.plan.activations for one in found] == tried


@pytest.mark.parametrize("before", [[], [30.0]], ids=["the first file", "a later one"])
def test_a_file_that_is_refused_is_no_end_where_wider_activations_are_left(without_int16, monkeypatch, tmp_path, before):
    def rounds(self):
        yield from (_round(800, drop) for drop in before)
        raise EdgeError("LiteRT crashed", "", "")

    monkeypatch.setattr(Driver, "_within_limits", rounds)
    monkeypatch.setattr(Driver, "_call_judges", lambda self: None)
    driver = replace(without_int16, directory=tmp_path)
    small, found = driver.run()
    assert small.plan.activations == "float32"
    assert [one.drop for one in found] == [*before, 0.5]
    if not before:
        with pytest.raises(EdgeError, match="LiteRT crashed"):
            replace(driver, wider=("int16",)).run()


def test_a_few_held_back_samples_do_not_judge_alone(tight):
    model, ((x, y), _) = tight
    driver = _driver(model, Data(Samples(x[:120], y[:120])), epochs=2)
    driver._call_judges()
    assert [len(one.samples) for one in driver.judges] == [12, 100]
    driver = _driver(model, driver.data, epochs=0)
    driver._call_judges()
    assert [len(one.samples) for one in driver.judges] == [120], "nothing is trained: all of them may judge"


def test_outputs_that_are_not_finite_are_never_good(tight, tmp_path, monkeypatch):
    model, ((x, y), _) = tight
    data = Data(Samples(x, y))
    judge = Judge.of(model, infer_task(model, data), data.train)
    result = edge.EdgeResult(edge.judge(), "2", [np.full((len(x), 6), np.nan, np.float32)], [])
    monkeypatch.setattr(edge, "run_file", lambda *_, **__: result)
    assert judge(tmp_path / "any.tflite") == (float("-inf"), float("inf"), 0.0)


def test_channels_are_numbered_as_in_the_original(job):
    model, _ = job
    first, second = {"first": [0, 3, 95], "second": [1]}, {"first": [0, 1], "second": [62]}
    both = in_original(Plan(remove=second), Plan(remove=first), model).remove
    small = remove_channels(model, keep_masks(model, first))
    smaller = remove_channels(small, keep_masks(small, second))
    at_once = remove_channels(model, keep_masks(model, both))
    for one, other in zip(smaller.get_weights(), at_once.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_accuracy_before_training_is_predicted(job):
    model, data = job
    loaded = as_data({"x_train": data["train"][0], "y_train": data["train"][1]})
    samples = loaded.calibration(128, 0)
    relevance = xaic.attribute(model, samples)
    before, fine = predict_accuracy(model, plan(model, relevance, Budget(), PlanOptions(bits=(8,))), relevance, loaded)
    assert abs(before - fine) < 0.02
    _, coarse = predict_accuracy(
        model, plan(model, relevance, Budget(), PlanOptions(bits=(2,), sparsity=0.995)), relevance, loaded
    )
    assert coarse < fine, coarse


def test_large_models_are_judged_on_fewer_samples():
    assert [judge_count(work) for work in (0, 10**6, 10**8, 10**10)] == [5000, 5000, 200, 100]
