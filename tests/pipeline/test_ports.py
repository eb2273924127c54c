"""Several inputs and outputs, all the way: judged by numpy against the original Keras model, output by output, by name.

Names sort otherwise than the model orders them, and some inputs and outputs have equal shapes, so that nothing that goes by
position or by the alphabet would pass.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import keras_xaic as xaic
from keras_xaic import edge
from keras_xaic._keras import keras, layers, tf
from keras_xaic.bundle import Bundle
from keras_xaic.cli.app import app
from keras_xaic.data import Data, Samples
from keras_xaic.planning import Budget
from tests.grouped import grouped

ROWS, TEST = 320, 120


def make_model():
    """Image, table and whole numbers in; a class, values, and a layer in the middle out."""
    image = keras.Input((6, 6, 1), name="zebra")
    table, other = keras.Input((4,), name="table"), keras.Input((4,), name="also_table")
    ids = keras.Input((), dtype="int32", name="ids")
    shared = layers.Dense(4, activation="relu", name="shared")
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu", name="conv")(image))
    half = layers.Rescaling(0.5)(shared(other))
    parts = [x, shared(table), half, layers.Embedding(5, 3, name="embedding")(ids)]
    middle = layers.Dense(12, activation="relu", name="middle")(layers.Concatenate()(parts))
    digit = layers.Dense(3, activation="softmax", name="digit")(middle)
    return keras.Model([image, table, other, ids], [digit, layers.Dense(2, name="box")(middle), middle], name="ports")


INPUTS, OUTPUTS = ("zebra", "table", "also_table", "ids"), ("digit", "box", "middle")


def draw(count, seed):
    rng = np.random.default_rng(seed)
    x = {
        "zebra": rng.normal(size=(count, 6, 6, 1)).astype(np.float32),
        "table": rng.normal(size=(count, 4)).astype(np.float32),
        "also_table": rng.normal(size=(count, 4)).astype(np.float32),
        "ids": rng.integers(0, 5, count).astype(np.int32),
    }
    score = np.stack([x["zebra"][:, :3].mean((1, 2, 3)) * 8, x["table"][:, 0] - x["also_table"][:, 1], x["ids"] - 2.0], 1)
    return x, {"digit": score.argmax(1), "box": np.stack([40 * score[:, 1], score[:, 2]], 1).astype(np.float32)}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A trained model and its data, as files."""
    folder = tmp_path_factory.mktemp("ports")
    keras.utils.set_random_seed(1)
    model = make_model()
    (x, y), (x_test, y_test) = draw(ROWS, 0), draw(TEST, 1)
    model.compile(
        keras.optimizers.Adam(5e-3), {"digit": "sparse_categorical_crossentropy", "box": "mse"}, loss_weights={"box": 0.01}
    )
    model.fit([x[name] for name in INPUTS], {name: y[name] for name in ("digit", "box")}, epochs=20, verbose=0)
    middle = [model.predict([part[name] for name in INPUTS], verbose=0)[2] for part in (x, x_test)]
    model.save(folder / "ports.keras")
    keys = {}
    for part, inputs, targets in (("train", x, {**y, "middle": middle[0]}), ("test", x_test, {**y_test, "middle": middle[1]})):
        keys.update({f"x_{part}_{name}": inputs[name] for name in sorted(inputs)})
        keys.update({f"y_{part}_{name}": targets[name] for name in sorted(targets)})
    np.savez(folder / "data.npz", **keys)
    return folder, model, {name: keys[f"x_test_{name}"] for name in INPUTS}, {name: keys[f"y_test_{name}"] for name in OUTPUTS}


@pytest.fixture(scope="module")
def done(job, tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "out"
    options = grouped(epochs=0, baselines=("int8",), budget=Budget("6kB", max_drop=30), interpreters="all")
    return Bundle(out), xaic.compress(job[0] / "ports.keras", job[0] / "data.npz", out=out, **options)


def truth(job):
    _, model, x, _ = job
    return dict(zip(OUTPUTS, model.predict([x[name] for name in INPUTS], verbose=0)))


def near(given, expected):
    """Mean deviation as a share of the spread: unrelated values give about 1."""
    return float(np.abs(given.reshape(expected.shape) - expected).mean() / expected.std())


def test_every_output_is_that_of_keras_on_every_interpreter(job, done):
    bundle, expected = done[0], truth(job)
    inputs = [job[2][name] for name in INPUTS]
    for name in edge.deployed_interpreters():
        path = bundle.micro / "model.tflite" if name == "tflm" else bundle.model
        given = edge.run_file(path, inputs, interpreter=name).outputs
        assert [near(one, expected[key]) < 0.2 for key, one in zip(OUTPUTS, given)] == [True] * 3, name
        # The same test refuses tables that are exchanged, and an output of another place.
        exchanged = edge.run_file(path, [inputs[0], inputs[2], inputs[1], inputs[3]], interpreter=name).outputs
        assert near(exchanged[1], expected["box"]) > 0.3


def test_programs_may_call_inputs_and_outputs_by_their_names(job, done):
    interpreter = tf.lite.Interpreter(str(done[0].model))
    details = {one["name"]: one for one in interpreter.get_input_details()}
    assert len(details) <= len(INPUTS)
    runner = interpreter.get_signature_runner()
    assert set(runner.get_input_details()) == set(INPUTS)
    assert set(runner.get_output_details()) == set(OUTPUTS)
    codes = {}
    for name, detail in runner.get_input_details().items():
        scale, zero = detail["quantization"]
        value = job[2][name][:1]
        codes[name] = (value if scale == 0 else np.clip(np.round(value / scale) + zero, -128, 127)).astype(detail["dtype"])
    given = runner(**codes)
    for name, expected in truth(job).items():
        scale, zero = runner.get_output_details()[name]["quantization"]
        np.testing.assert_allclose((given[name].astype(float) - zero) * scale, expected[:1], atol=0.12 * np.ptp(expected))


def test_the_report_has_every_output_worst_first(job, done):
    bundle, report = done
    given = edge.run_file(bundle.model, [job[2][name] for name in INPUTS]).outputs
    labels = job[3]
    found = {one.name: one for one in report.outputs}
    assert set(found) == set(OUTPUTS)
    accuracy = np.mean(given[0].argmax(1) == labels["digit"])
    mse = {name: np.mean((given[place] - labels[name]) ** 2) for name, place in (("box", 1), ("middle", 2))}
    assert found["digit"].compressed == pytest.approx(accuracy)
    assert found["digit"].original == pytest.approx(np.mean(truth(job)["digit"].argmax(1) == labels["digit"]))
    assert found["digit"].drop == pytest.approx(100 * (found["digit"].original - accuracy))
    assert found["box"].compressed == pytest.approx(mse["box"], rel=1e-5)
    assert found["middle"].compressed == pytest.approx(mse["middle"], rel=1e-5)
    # The targets are the outputs of the original themselves: the drop is a share of their variance.
    assert found["middle"].drop == pytest.approx(100 * mse["middle"] / labels["middle"].var(axis=0).mean(), rel=1e-3)
    drops = [one.drop for one in report.outputs]
    assert drops == sorted(drops, reverse=True)
    worst = report.outputs[0]
    assert (report.compressed.drop_pp, report.compressed.edge_metric) == (worst.drop, worst.compressed)
    assert (report.metric.output, report.metric.name, report.task) == (worst.name, worst.metric, worst.task)
    assert set(worst.baselines) == {"int8"}
    again = json.loads(bundle.report.read_text())["outputs"]
    assert [one["name"] for one in again] == [one.name for one in report.outputs]


def test_the_budget_is_that_of_the_worst_output(done):
    report = done[1]
    worst = report.outputs[0]
    missed = report.model_copy(update={"budget": report.budget.model_copy(update={"max_drop_pp": worst.drop - 0.001})})
    from keras_xaic.report import budget_misses

    assert f"{worst.metric} of {worst.name} drops by" in budget_misses(missed)[0]
    assert budget_misses(report) == []


def test_terminal_and_page_show_a_table_of_outputs(done):
    from rich.console import Console

    from keras_xaic.report import render

    bundle, report = done
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(report))
    said, page = console.export_text(), bundle.html.read_text()
    rows = [
        line
        for line in said.splitlines()
        if any(f" {name} " in line for name in OUTPUTS) and ("regression" in line or "classification" in line)
    ]
    assert [next(name for name in OUTPUTS if f" {name} " in row) for row in rows] == [one.name for one in report.outputs]
    assert "<h2>Outputs</h2>" in page
    for place in range(3):
        assert f'data-json="/outputs/{place}/compressed"' in page
        assert f'data-json="/outputs/{place}/baselines/int8"' in page


def test_verification_judges_every_output(job, done):
    found = xaic.verify(done[0], job[0] / "data.npz", interpreter="all")
    given = edge.run_file(done[0].model, [job[2][name] for name in INPUTS]).outputs
    by_name = {one["name"]: one for one in found.by_output()}
    assert by_name["box"]["compressed"] == pytest.approx(np.mean((given[1] - job[3]["box"]) ** 2), rel=1e-5)
    assert by_name["digit"]["original"] == pytest.approx(next(one.original for one in done[1].outputs if one.name == "digit"))
    assert found.output == done[1].metric.output
    assert set(found.as_dict()["interpreters"][edge.judge()]["outputs"]) == set(OUTPUTS)
    other = xaic.verify(done[0], job[0] / "data.npz", options=xaic.DataOptions(metric="box=mae"))
    assert {one["name"]: one["metric"] for one in other.by_output()} == {"digit": "accuracy", "box": "mae", "middle": "mse"}


def test_the_check_on_the_device_looks_at_every_output(done, tmp_path):
    copied = tmp_path / "device"
    shutil.copytree(done[0].path, copied)
    run = [sys.executable, str(copied / "check" / "edge_check.py"), "--runs", "0"]
    said = subprocess.run(run, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "inputs       0 zebra, 1 table, 2 also_table, 3 ids" in said.stdout
    assert "outputs      0 digit, 1 box, 2 middle" in said.stdout
    assert "accuracy 0" in said.stdout
    assert "mse 1" in said.stdout
    expected = dict(np.load(copied / "check" / "expected.npz"))
    assert {"targets0", "targets1", "targets2", "y0", "y1", "y2", "keras0", "keras1", "keras2"} <= set(expected)
    expected["y1"] = expected["y1"] + expected["y1"].std()
    np.savez(copied / "check" / "expected.npz", **expected)
    said = subprocess.run(run, capture_output=True, text=True, timeout=120)
    assert said.returncode == 1
    assert "FAIL" in said.stdout


def test_sources_for_microcontrollers_name_all_tensors_in_order(done, tmp_path):
    folder = done[0].micro
    readme = (folder / "README.md").read_text()
    rows = [line.split("|")[1].strip() for line in readme.splitlines() if line.startswith(("| input", "| output"))]
    assert rows == [
        *(f"input {i} `{name}`" for i, name in enumerate(INPUTS)),
        *(f"output {i} `{name}`" for i, name in enumerate(OUTPUTS)),
    ]
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    (tmp_path / "main.cc").write_text(
        '#include <cstdio>\n#include "model_data.h"\n'
        'int main() { std::printf("%d %d %d %d %d %d %d %u", XAIC_INPUT_ZEBRA, XAIC_INPUT_TABLE, XAIC_INPUT_ALSO_TABLE, '
        "XAIC_INPUT_IDS, XAIC_OUTPUT_DIGIT, XAIC_OUTPUT_BOX, XAIC_OUTPUT_MIDDLE, g_model_data_size); return 0; }\n"
    )
    program, size = tmp_path / "program", (folder / "model.tflite").stat().st_size
    sources = [str(tmp_path / "main.cc"), str(folder / "model_data.cc")]
    subprocess.run(
        ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{folder}", *sources, "-o", str(program)], check=True
    )
    assert subprocess.run([str(program)], capture_output=True, text=True).stdout == f"0 1 2 3 0 1 2 {size}"


def test_a_bundle_is_exported_again_to_the_same_files(job, done, tmp_path):
    again = xaic.export(done[0].path, tmp_path / "again", calibration=job[0] / "data.npz", prove=False)
    assert again.model.read_bytes() == done[0].model.read_bytes()
    assert again.ports() == (INPUTS, OUTPUTS)


@pytest.mark.slow
def test_dictionaries_and_lists_give_the_same_file_as_the_npz(job, done, tmp_path):
    (x, y), (x_test, y_test) = draw(ROWS, 0), draw(TEST, 1)
    model = keras.models.load_model(job[0] / "ports.keras", compile=False)
    with np.load(job[0] / "data.npz") as kept:
        y["middle"], y_test["middle"] = kept["y_train_middle"], kept["y_test_middle"]
    train, test = ([part[name] for name in INPUTS] for part in (x, x_test))
    made = {}
    for form, data in (
        ("lists", ((train, [y[name] for name in OUTPUTS]), (test, [y_test[name] for name in OUTPUTS]))),
        ("dictionaries", Data(Samples(dict(sorted(x.items())), dict(sorted(y.items()))), Samples(x_test, y_test))),
    ):
        bundle = xaic.export(model, tmp_path / form, calibration=data, target="mobile", prove=False)
        made[form] = bundle.model.read_bytes()
    from_file = xaic.export(
        job[0] / "ports.keras", tmp_path / "npz", calibration=job[0] / "data.npz", target="mobile", prove=False
    )
    assert made["lists"] == made["dictionaries"] == from_file.model.read_bytes()


@pytest.mark.parametrize(
    ("drop", "said"),
    [
        ("x_train_table", "data.npz: x_train_table is missing"),
        ("y_test_box", "data.npz: y_test_box is missing"),
        ("x_test_ids", "data.npz: x_test_ids is missing"),
    ],
)
def test_a_missing_part_is_one_line(job, tmp_path, drop, said):
    with np.load(job[0] / "data.npz") as kept:
        np.savez(tmp_path / "data.npz", **{name: kept[name] for name in kept.files if name != drop})
    command = ["compress", str(job[0] / "ports.keras"), "--data", str(tmp_path / "data.npz"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert said in result.output.replace("\n", " ")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_without_targets_every_output_is_compared_with_the_original(job, tmp_path):
    x, _ = draw(ROWS, 0)
    options = grouped(epochs=0, baselines=(), budget=Budget(max_drop=30), target="mobile", recipe="int8")
    report = xaic.compress(job[1], Data(Samples(x)), out=tmp_path / "out", **options)
    found = {one.name: one for one in report.outputs}
    given = edge.run_file(tmp_path / "out" / "model.tflite", [x[name] for name in INPUTS]).outputs
    expected = job[1].predict([x[name] for name in INPUTS], verbose=0)
    assert found["digit"].agreement == pytest.approx(np.mean(given[0].argmax(1) == expected[0].argmax(1)))
    assert found["box"].drop == pytest.approx(100 * np.mean((given[1] - expected[1]) ** 2) / expected[1].var(), rel=1e-4)
    assert report.compressed.agreement == found["digit"].agreement
    assert report.compressed.drop_pp == max(found["box"].drop, found["middle"].drop)
    assert report.metric is None


@pytest.mark.slow
def test_dictionaries_in_the_model_itself(tmp_path):
    keras.utils.set_random_seed(0)
    right, left = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    one, two = layers.Dense(3, name="one")(right), layers.Dense(3, name="two")(layers.Concatenate()([left, right]))
    model = keras.Model({"right": right, "left": left}, {"sum": one, "difference": two})
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(96, 4)).astype(np.float32) for name in ("right", "left")}
    y = model.predict(x, verbose=0)
    options = grouped(epochs=1, baselines=(), budget=Budget(max_drop=60), target="mobile", recipe="ecq")
    report = xaic.compress(model, (x, y), out=tmp_path / "out", **options)
    bundle = Bundle(tmp_path / "out")
    names = bundle.ports()
    given = dict(zip(names[1], edge.run_file(bundle.model, [x[name] for name in names[0]]).outputs))
    assert sorted(names[0]) == ["left", "right"]
    for name, expected in y.items():
        assert near(given[name], expected) < 0.3
    assert {one.name for one in report.outputs} == {"sum", "difference"}


@pytest.mark.slow
def test_positions_of_one_output_and_a_class_of_another(tmp_path):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="picture")
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="body")(image)
    mask = layers.Conv2D(2, 1, activation="softmax", name="mask")(x)
    kind = layers.Dense(1, activation="sigmoid", name="any")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, [mask, kind])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 8, 8, 1)).astype(np.float32)
    y = {"mask": (x[..., 0] > 0.3).astype(np.int64), "any": (x.mean((1, 2, 3)) > 0).astype(np.int64)}
    model.compile(keras.optimizers.Adam(1e-2), ["sparse_categorical_crossentropy", "binary_crossentropy"])
    model.fit(x, [y["mask"], y["any"]], epochs=8, verbose=0)
    options = grouped(epochs=1, baselines=(), budget=Budget(max_drop=20), target="mobile")
    report = xaic.compress(model, (x, y), out=tmp_path / "out", **options)
    found = {one.name: one for one in report.outputs}
    given = edge.run_file(tmp_path / "out" / "model.tflite", x).outputs
    decided = given[0].argmax(-1)
    overlaps = [np.sum((decided == k) & (y["mask"] == k)) / np.sum((decided == k) | (y["mask"] == k)) for k in (0, 1)]
    assert (found["mask"].task, found["mask"].metric) == ("segmentation", "mean_iou")
    assert found["mask"].compressed == pytest.approx(np.mean(overlaps))
    assert found["any"].task == "binary"
    assert found["any"].compressed == pytest.approx(np.mean((given[1][:, 0] > 0.5) == y["any"]))


@pytest.mark.slow
def test_explain_starts_where_it_is_told(job, tmp_path):
    command = ["explain", str(job[0] / "ports.keras"), "--data", str(job[0] / "data.npz"), "--pictures", "1"]
    result = CliRunner().invoke(app, [*command, "--output-weights", "box", "--out", str(tmp_path / "why")])
    assert result.exit_code == 0, result.output
    relevance = xaic.Relevance.load(tmp_path / "why")
    assert np.abs(relevance.weights["digit"]).max() == 0
    assert np.abs(relevance.weights["box"]).max() > 0
    shown = sorted(path.name for path in (tmp_path / "why" / "pictures").iterdir())
    assert shown == sorted(f"sample-000-{name}.png" for name in INPUTS)
    plan = ["plan", str(job[0] / "ports.keras"), "--relevance", str(tmp_path / "why"), "--flash", "6kB"]
    for more in ([], ["--data", str(job[0] / "data.npz"), "--overwrite"]):
        result = CliRunner().invoke(app, [*plan, *more, "--out", str(tmp_path / "plan.json")])
        assert result.exit_code == 0, result.output
    small = xaic.apply(job[1], xaic.Plan.load(tmp_path / "plan.json"), job[0] / "data.npz", training=xaic.Training(epochs=0))
    assert near(small.model.predict([job[2][name] for name in INPUTS], verbose=0)[1], truth(job)["box"]) < 0.3
