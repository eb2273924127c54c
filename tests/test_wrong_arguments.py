"""Every public function is called with things that no argument can be: one line of ours comes back, before any work."""

from __future__ import annotations

import contextlib
import inspect
import pathlib
import shutil

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic import relevance
from keras_xaic import report as report_
from keras_xaic._keras import keras, layers, tf
from keras_xaic.ownership import Mark
from keras_xaic.pipeline.board_projects import write_project
from keras_xaic.planning import Plan, PlanOptions
from keras_xaic.relevance import rank_similarity
from keras_xaic.report import Found, Front, save_front
from keras_xaic.settings import AttributionOptions

NAN = float("nan")
WRONG = [
    None, True, False, 0, -1, 2.5, -0.5, NAN, float("inf"), 10**30, 10**400, 1j, "", " ", "nonsense", "a\0b", "lrp.epsilonn",
    "/nowhere/at/all.npz", pathlib.Path("nowhere.json"), b"bytes", [], [None], ["a", 1], [[1, 2], [3]], (), (1, 2, 3), {},
    {"a": 1}, set(), {"h1"}, object(), object, int, lambda: 1, len, range(3), iter(()), Ellipsis, ValueError("x"), np.array([]),
    np.array(["a"]), np.array([NAN]), np.array(3.0), np.float32(NAN), np.int64(-5), np.datetime64("2020"), slice(1), keras,
    Plan(),
]  # fmt: skip
assert len(WRONG) >= 40


def short(value):
    return " ".join(repr(value).split())[:40]


class Began(Exception):
    """Work has begun: too late to refuse anything."""


def begins(*args, **options):
    raise Began


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """What functions are called with where nothing is wrong."""
    keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("wrong")
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu", name="h1"), layers.Dense(3, "softmax", name="head")])
    x, y = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32), np.arange(40) % 3
    model.save(folder / "model.keras")
    np.savez(folder / "data.npz", x_train=x, y_train=y)
    made = xaic.export(model, folder / "bundle", calibration=(x, y), target="mobile", prove=False)
    shutil.copytree(made.path, folder / "front" / "trials" / "0")
    Mark("search").write(folder / "front")
    point = Found(trial=0, values={"flash": 2000, "metric": 0.5})
    save_front(Front(objectives=("flash", "metric"), points=(point,)), folder / "front")
    return {"folder": folder, "model": model, "x": x, "y": y, "bundle": made, "relevance": xaic.attribute(model, x, y)}


@pytest.fixture(autouse=True)
def no_work(monkeypatch, bundle, tmp_path):
    monkeypatch.chdir(tmp_path)
    for target in (
        "keras_xaic.pipeline.compressing.Job",
        "keras_xaic.pipeline.explaining.attribute",
        "keras_xaic.pipeline.previewing.SizeFitter",
        "keras_xaic.tflite.export",
        "keras_xaic.edge.verification.run_file",
        "keras_xaic.searching.study.smallest_and_largest",
        "keras_xaic.compression.remove_filters",
        "keras_xaic.relevance.attribution.Attribution._step",
        "keras_xaic.pipeline.slim_work.Work.write_model",
    ):
        monkeypatch.setattr(target, begins)


def usual(bundle):
    """Public function -> arguments that are right."""
    model, data, out = bundle["model"], (bundle["x"], bundle["y"]), pathlib.Path("out")
    return {
        "compress": {"model": model, "data": data, "out": out, "device": xaic.Device("mobile", baselines=())},
        "explain": {"model": model, "data": data, "out": out},
        "plan": {"model": model, "relevance": bundle["relevance"], "data": data},
        "export": {"model": model, "out": out, "calibration": data},
        "verify": {"bundle": bundle["bundle"], "data": data},
        "search": {"model": bundle["folder"] / "model.keras", "data": bundle["folder"] / "data.npz", "out": out},
        "pick": {"front": bundle["folder"] / "front", "data": data, "out": out, "rule": "flash<48kB"},
        "apply": {"model": model, "plan": Plan(), "data": data, "training": xaic.Training(epochs=0)},
        "attribute": {"model": model, "x": bundle["x"], "y": bundle["y"]},
        "slim": {"file": bundle["bundle"].model, "out": out, "data": bundle["x"]},
        "as_data": {"data": data},
        "load_data": {"path": bundle["folder"] / "data.npz"},
        "load_model": {"path": bundle["folder"] / "model.keras"},
    }


OTHERS = {
    "compress": "budget recipe training device options overwrite progress",
    "explain": "attribution options seed overwrite progress",
    "plan": "budget recipe options seed out overwrite progress",
    "export": "target precision float_layers file prove options overwrite",
    "verify": "interpreter options cluster progress",
    "search": "effort budget recipe training device options progress",
    "pick": "options overwrite progress",
    "apply": "relevance calibration teacher replan checkpoint progress",
    "attribute": "rule engine target start reduce reference batch_size seed allow_approximate per_class progress checkpoint",
    "slim": "target bare options timeout overwrite progress",
    "as_data": "scale offset image_size",
    "load_data": "scale offset image_size",
    "load_model": "allow_unsafe custom_objects architecture",
}
REQUIRED = {
    "compress": "model data out", "explain": "model data out", "plan": "model relevance data",
    "export": "model out calibration",
    "verify": "bundle data", "search": "model data out", "pick": "front data out rule",
    "apply": "model plan data training", "attribute": "model x y",
    "slim": "file out data", "as_data": "data", "load_data": "path", "load_model": "path",
}  # fmt: skip


def is_right(name, value, function):
    """Whether a value of the list is no wrong one here."""
    if value is None:
        return name in (
            "budget", "training", "device", "effort", "options", "attribution", "precision", "relevance", "teacher", "replan",
            "reference", "checkpoint", "cluster", "storage", "y", "image_size", "custom_objects", "architecture",
            *(("out", "data", "progress") if function in ("plan", "attribute") else ()),
            *(("data",) if function == "slim" else ()),
            *(("file",) if function == "export" else ()),
        )  # fmt: skip
    if isinstance(value, bool):
        return name in ("overwrite", "prove", "lookup", "allow_unsafe", "allow_approximate", "per_class", "bare")
    if isinstance(value, Plan):
        return name in ("recipe", "plan")
    if name in ("scale", "offset"):
        return isinstance(value, (int, float, np.integer)) and abs(value) < 1e38 and (name == "offset" or value != 0)
    if isinstance(value, (tuple, range)) and len(value) == 3:  # three samples
        return (function, name) in (("as_data", "data"), ("verify", "data"), ("pick", "data"), ("slim", "data"))
    if name == "seed" and isinstance(value, int):
        return 0 <= value < 2**32
    if name in ("calibration", "trials", "workers", "batch_size") and isinstance(value, int) and function != "export":
        return value >= 1
    if name == "target" and function == "attribute":
        return type(value) is int and value == 0
    if name in ("out", "checkpoint", "architecture"):  # where the file is a whole model, nobody reads its architecture
        return isinstance(value, pathlib.Path) or (isinstance(value, str) and value.strip() and "\0" not in value)
    if name == "timeout" and isinstance(value, (int, float)):
        return 0 < value < 1e38
    if name in ("progress", "replan"):
        return callable(value) and not isinstance(value, type)
    if name == "float_layers":
        return isinstance(value, (list, tuple)) and not value
    return False


@pytest.mark.parametrize("function", list(REQUIRED))
def test_wrong_arguments_are_one_line(bundle, function):
    right, said = usual(bundle)[function], []
    for name in (*REQUIRED[function].split(), *OTHERS[function].split()):
        for value in WRONG:
            if is_right(name, value, function):
                continue
            try:
                getattr(xaic, function)(**{**right, name: value})
                said.append(f"{name}={short(value)}: accepted")
            except xaic.XaicError as error:
                if "\n" in str(error) or len(str(error)) < 10:
                    said.append(f"{name}={short(value)}: {error}")
            except BaseException as error:
                said.append(f"{name}={short(value)}: {type(error).__name__}: {error}"[:160])
    assert not said, f"{len(said)}\n" + "\n".join(said)
    with contextlib.suppress(Began):
        getattr(xaic, function)(**right)  # nothing else was wrong, all the time


def further(bundle):
    """Functions of the public rooms -> arguments that are right."""
    x, found = bundle["x"], bundle["relevance"]
    report = xaic.Report(recipe="auto", original={"tflite_fp32_bytes": 9}, compressed={"flash_bytes": 3})
    point = Found(trial=0, values={"flash": 2000, "metric": 0.5})
    front, attribution = Front(objectives=("flash", "metric"), points=(point,)), relevance.Attribution(bundle["model"])
    pathlib.Path("front").mkdir()
    save_front(front, "front")
    return {
        relevance.Attribution: {
            "model": bundle["model"],
            "rule": "lrp.epsilon",
            "engine": "native",
            "allow_approximate": False,
        },
        attribution.run: {"x": x, "y": bundle["y"], "target": "true", "reduce": "sum", "batch_size": 8, "per_class": False},
        attribution.part: {"x": x, "number": 0, "parts": 1, "target": 0, "reduce": "sum"},
        attribution.input_relevance: {"x": x, "y": bundle["y"], "target": "true", "outputs": None, "reference": None},
        relevance.as_csv: {"rows": relevance.layer_rows(bundle["model"], found)},
        relevance.compare: {"first": found, "second": found},
        relevance.layer_rows: {"model": bundle["model"], "relevance": found},
        relevance.mean_similarity: {"similarity": x[:, 0]},
        relevance.plot_layers: {"relevance": found},
        relevance.plot_sample: {"sample": x[0], "relevance": x[0], "title": "a"},
        relevance.rank_similarity: {"first": x, "second": x},
        relevance.save_figure: {"figure": relevance.plot_layers(found), "path": "figure.png"},
        relevance.save_pictures: {"attribution": attribution, "x": x, "y": bundle["y"], "out": "pictures", "count": 1},
        report_.budget_misses: {"report": report},
        report_.comparison_table: {"report": report},
        report_.layer_table: {"report": report},
        report_.plot_tradeoff: {"report": report, "front": [point]},
        report_.read_front: {"path": "front/front.json"},
        report_.rebuild_html: {"path": bundle["bundle"]},
        report_.render: {"report": report},
        report_.render_front: {"front": front},
        report_.render_html: {"report": report, "evidence": report_.Evidence()},
        report_.save_front: {"front": front, "place": "front"},
        report_.shown_value: {"name": "flash", "value": 3.0},
        report_.summary_line: {"report": report},
        report_.verdict: {"report": report},
        report_.write_html: {"report": report, "path": "report.html", "evidence": report_.Evidence()},
        write_project: {"bundle": bundle["bundle"], "system": "cmake", "out": "project", "overwrite": False},
    }


def test_wrong_arguments_of_functions_of_the_rooms_are_one_line(bundle, monkeypatch):
    monkeypatch.setattr(relevance.Attribution, "_call", begins)
    said, tried = [], further(bundle)
    for function, right in tried.items():
        for name in right:
            for value in WRONG:
                if is_right({"path": "out", "place": "out"}.get(name, name), value, ""):
                    continue
                try:
                    function(**{**right, name: value})
                except (xaic.XaicError, Began) as error:
                    if "\n" in str(error):
                        said.append(f"{function.__qualname__}: {name}={short(value)}: {error}")
                except BaseException as error:
                    said.append(f"{function.__qualname__}: {name}={short(value)}: {type(error).__name__}: {error}"[:160])
    assert not said, f"{len(said)}\n" + "\n".join(said)
    public = {getattr(room, name) for room in (relevance, report_) for name in room.__all__}
    untried = {one for one in public if inspect.isfunction(one)} - set(tried)
    assert untried == {xaic.attribute, relevance.cross_check}  # both are runs of `Attribution`


def test_arrays_of_any_kind_are_drawn_and_compared(bundle):
    image = np.random.default_rng(0).normal(size=(8, 8, 3))
    for kind in (np.float16, np.float32, np.uint8, bool, np.asfortranarray, np.ndarray.tolist, tf.constant):
        given = kind(image) if not isinstance(kind, type) else image.astype(kind)
        assert relevance.plot_sample(given, given).get_axes()
    huge = (np.full((2, 4, 4, 3), 4000.0) * np.arange(16).reshape(1, 4, 4, 1)).astype(np.float16)  # sums do not fit
    assert relevance.rank_similarity(huge, huge.astype(np.float64)).tolist() == [1.0, 1.0]
    assert relevance.rank_similarity(huge[:0], huge[:0]).shape == (0,)
    with pytest.raises(xaic.DataError, match=r"relevance\[0\]"):
        relevance.plot_sample(image, image[None])
    with pytest.raises(xaic.DataError, match="NaN"):
        relevance.plot_sample(image, np.full_like(image, np.nan))
    with pytest.raises(xaic.DataError, match="of two models"):
        relevance.compare(bundle["relevance"], xaic.Relevance({}, {}, {}, rule="lrp.z"))


class Free(keras.Model):
    """Only its `call` knows what follows what, and it takes no symbolic tensors."""

    def __init__(self):
        super().__init__()
        self.layer = layers.Dense(3, "softmax")

    def call(self, x):
        if not isinstance(x, tf.Tensor):
            raise TypeError(f"{x} is no tensor")
        return self.layer(x)


@pytest.mark.parametrize("called", [False, True], ids=["new", "called"])
@pytest.mark.parametrize("make", [Free, lambda: keras.Sequential([layers.Dense(3)])], ids=["subclass", "sequential"])
@pytest.mark.parametrize(
    "function", [name for name, needed in REQUIRED.items() if "model" in needed.split() and name != "search"]
)
def test_a_model_without_a_graph_is_refused_before_work(bundle, function, make, called):
    model = make()
    if called and isinstance(model, Free):
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(bundle["x"], bundle["y"], verbose=0)
    with pytest.raises(xaic.ModelError, match=r"has no graph of layers.*keras\.Model\(inputs, outputs\)"):
        getattr(xaic, function)(**{**usual(bundle)[function], "model": model})


def test_every_public_function_is_tried():
    functions = {name for name in xaic.__all__ if inspect.isfunction(getattr(xaic, name))}
    assert functions == set(REQUIRED)
    for name in functions:
        parameters = inspect.signature(getattr(xaic, name)).parameters
        tried = {*REQUIRED[name].split(), *OTHERS[name].split()}
        assert {one for one in parameters if one != "details"} <= tried, name


GROUPS = [
    xaic.Budget,
    xaic.Training,
    xaic.Device,
    xaic.DataOptions,
    AttributionOptions,
    xaic.Plan,
    xaic.LayerPlan,
    xaic.SearchOptions,
    xaic.Report,
    Front,
    Found,
]
GROUPS += [xaic.FilterPlan, xaic.Recipe, xaic.FileOptions, PlanOptions]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_wrong_entries_of_groups_are_one_line(group):
    said, entries = [], inspect.signature(group).parameters
    assert len(entries) > 2, "what editors and help() show, too"
    for name in entries:
        for value in WRONG:
            try:
                group(**{name: value})
            except xaic.XaicError as error:
                if "\n" in str(error):
                    said.append(f"{name}={short(value)}: {error}")
            except BaseException as error:
                said.append(f"{name}={short(value)}: {type(error).__name__}: {error}"[:160])
    assert not said, "\n".join(said)


NO_PATHS = [None, True, 0, 2.5, b"bytes", "", "a\0b", [], {}, object(), int]


def test_what_is_no_path_is_one_line_for_everything_that_is_saved(bundle):
    data = xaic.as_data((bundle["x"], bundle["y"]))
    objects = bundle["relevance"], Plan(), xaic.Report(recipe="auto"), xaic.Recipe(name="a", rule="lrp.z")
    calls = [call for one in objects for call in (one.save, type(one).load)]
    calls += [xaic.Bundle, xaic.CompressedModel.load, lambda path: write_project(path, "cmake", "out")]
    calls += [lambda path: write_project(bundle["bundle"], "cmake", path)]
    for call in calls:
        for value in NO_PATHS:
            with pytest.raises(xaic.XaicError, match="path") as caught:
                call(value)
            assert "\n" not in str(caught.value)
    for wrong in (None, -1, 0, 2.5, "a", NAN):
        for call in (data.calibration, lambda n: data.calibration(3, n), lambda n: data.split(most=n), data.split):
            with pytest.raises(xaic.PlanError, match=r"Expected a (whole number|share)"):
                call(-1 if wrong == 0 and call is not data.calibration else wrong)


@pytest.mark.parametrize("outputs", [5, 2.5, [None], [["head"]], {1: 2}, {"head": "much"}, "haed"])
def test_outputs_that_are_none_are_one_line(bundle, outputs):
    with pytest.raises(xaic.DataError, match="head"):
        xaic.attribute(bundle["model"], bundle["x"], bundle["y"], outputs=outputs)


def test_maps_of_unlike_shapes_are_not_compared():
    with pytest.raises(xaic.DataError, match="two of one shape"):
        rank_similarity(np.ones((4, 3)), np.ones((3, 3)))
    assert rank_similarity([[1, 2, 3]], [[2, 4, 9]]) == [1.0]


def test_misspelt_arguments_get_the_nearest_name(bundle):
    for function, right in usual(bundle).items():
        with pytest.raises(xaic.PlanError, match=rf"{function}\(\) has no argument 'progres'"):
            getattr(xaic, function)(**right, progres=print)
        with pytest.raises(xaic.PlanError, match="missing a required argument"):
            getattr(xaic, function)()
    with pytest.raises(xaic.PlanError, match=r"no argument 'epoch'\. Expected 'epochs'"):
        xaic.Training(epoch=3)
    with pytest.raises(xaic.PlanError, match=r"unknown entry 'layrs'\. Expected 'layers'"):
        xaic.Plan(layrs=[])


def compress(bundle, **options):
    return xaic.compress(bundle["model"], (bundle["x"], bundle["y"]), **options)


def layer(**entries):
    usual = {"key": "h1", "kind": "dense", "weights": 48, "bits": 8, "granularity": "tensor", "storage": "int8"}
    return xaic.LayerPlan(**{**usual, **entries})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda b: compress(b, recipe=xaic.Recipe(name="a", rule="lrp.epsilon", protect="h2")), "one of h1, head"),
        (lambda b: compress(b, recipe="ecqxx"), "'ecqx'"),
        (lambda b: compress(b, device=xaic.Device(interpreters="tflmm")), "'tflm'"),
        (lambda b: compress(b, training=xaic.Training(optimizer="adm")), "adam"),
        (lambda b: compress(b, training=xaic.Training(loss="no_loss")), "Keras loss"),
        (lambda b: xaic.attribute(b["model"], b["x"], rule="lrp.epsilom"), "'lrp.epsilon'"),
        (lambda b: xaic.DataOptions(metric="acuracy"), "'accuracy'"),
        (lambda b: layer(storage="float32"), "32 bits"),
        (lambda b: xaic.Recipe(name="a", rule="lrp.epsilon", zeros={"*": "4:2"}), "4 zeros in every 2"),
    ],
)  # fmt: skip
def test_names_and_numbers_that_cannot_be_are_refused_before_work(bundle, call, words):
    with pytest.raises(xaic.XaicError) as caught:
        call(bundle)
    assert words in str(caught.value)


def test_a_pattern_of_zeros_without_zeros_is_refused(bundle):
    with pytest.raises(xaic.PlanError, match=r"pattern 2:4 and no zeros\. Expected sparsity 0.5"):
        xaic.apply(bundle["model"], xaic.Plan(layers=[layer(pattern="2:4")]), (bundle["x"], bundle["y"]))


def test_one_name_is_a_list_of_one():
    recipe = xaic.Recipe(name="a", rule="lrp.epsilon", protect="h1", float_layers="head", bits=4)
    assert (recipe.protect, recipe.float_layers, recipe.bits) == (("h1",), ("head",), (4,))
    assert xaic.FilterPlan(macs=10, protect="h1").protect == ("h1",)


def test_limits_that_no_plan_keeps_are_said(bundle, monkeypatch):
    monkeypatch.undo()
    with pytest.warns(
        xaic.errors.XaicWarning, match=r"No plan of this recipe keeps the budget: flash is [\d,]+ B, its limit 48 B"
    ):
        made = xaic.plan(bundle["model"], bundle["relevance"], xaic.Budget(flash=48))
    assert made.predicted_flash_bytes > 48
