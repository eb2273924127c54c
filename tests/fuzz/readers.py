"""Every reader of the package, with whole files to start from and what must hold where damaged ones are accepted."""

from __future__ import annotations

import functools
import importlib.util
import json
import pathlib
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np
from PIL import Image

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.data import Data, Samples, load_data
from keras_xaic.edge import verify
from keras_xaic.edge.doctor import TINY
from keras_xaic.edge.inspect_file import read_file
from keras_xaic.edge.structure import check_micro, check_structure
from keras_xaic.errors import XaicError
from keras_xaic.grids import QuantizedKernel, load_kernels, save_kernels
from keras_xaic.json_files import read_json
from keras_xaic.metrics import Task
from keras_xaic.models import load_model
from keras_xaic.pipeline import slim
from keras_xaic.planning import Plan, check_plan, planner
from keras_xaic.recipes import RECIPES, Recipe
from keras_xaic.relevance import Explanations, Relevance
from keras_xaic.relevance.composites import as_composite
from keras_xaic.report import Evidence, Report, read_front, render_front, render_html
from keras_xaic.report.histograms import histogram_svg
from keras_xaic.tflite import pack_download, unpack_download
from keras_xaic.tflite.flatbuffer import load, pack
from keras_xaic.tflite.foreign import slim_foreign
from keras_xaic.tflite.same_graph import difference
from tests.fuzz.mutations import Mutation, arrays_changed, bytes_changed, json_changed, signed_again
from tests.report.conftest import facts


@dataclass(frozen=True)
class Reader:
    """A reader.

    Attributes:
        name: Short.
        file: Name that its files have.
        seeds: Returns whole files.
        read: Reads a file as the package's commands do, and uses what came out.
        mutations: How files are damaged.
        wrong: Says what is wrong with what was accepted, from the whole file, the damaged one, how it was damaged, and what
            `read` returned; None where nothing is.
        errors: What it may raise.
        share: How many of the inputs it gets, against the others.
    """

    name: str
    file: str
    seeds: Callable[[pathlib.Path], list[bytes]]
    read: Callable[[pathlib.Path], Any]
    mutations: Sequence[Mutation] = (bytes_changed,)
    wrong: Callable[[bytes, bytes, Mutation, Any], str | None] = lambda *_: None
    errors: tuple[type[BaseException], ...] = (XaicError,)
    share: float = 1.0


@functools.cache
def net() -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(4, 3, activation="relu", name="one")(inputs)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="two")(layers.Flatten()(x)))


@functools.cache
def weighty() -> bytes:
    """A .tflite of one matrix product with enough weights to be a region of a container."""
    model, rng = load(TINY.read_bytes()), np.random.default_rng(0)
    tensors = model.subgraphs[0].tensors
    for tensor, shape in zip(tensors, ((1, 40), (30, 40), (1, 30))):
        tensor.shape = np.asarray(shape, np.int32)
        tensor.shapeSignature = None
    weights = np.clip(np.rint(rng.normal(0, 20, 1200)), -127, 127).astype(np.int8)
    model.buffers[tensors[1].buffer].data = weights.view(np.uint8)
    return pack(model)


def _written(save: Callable[[pathlib.Path], Any], place: pathlib.Path) -> bytes:
    save(place)
    return place.read_bytes()


def _data(place: pathlib.Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    x, y = rng.random((20, 6, 6, 1)).astype(np.float32), np.arange(20) % 3
    arrays = {"x_train": x, "y_train": y, "x_test": x[:4], "y_test": y[:4]}
    path = place / "d.npz"
    return [_written(lambda p, save=save: save(p, **arrays), path) for save in (np.savez, np.savez_compressed)]


def _same_values(seed: bytes, _: bytes, how: Mutation, data: Any) -> str | None:
    if how is not bytes_changed:
        return None
    whole = load_arrays(seed)
    for part in ("train", "test"):
        samples = getattr(data, part)
        for name in ("x", "y"):
            values = None if samples is None else getattr(samples, name)
            if values is not None and not np.array_equal(values, whole[f"{name}_{part}"]):
                return f"{name}_{part} has other values"
    return None


def load_arrays(content: bytes) -> dict[str, np.ndarray]:
    import io

    with np.load(io.BytesIO(content)) as archive:
        return dict(archive)


def _read_data(path: pathlib.Path) -> Any:
    data = load_data(path)
    for samples in (data.train, data.test):
        for x, _ in () if samples is None else samples.batches(8):
            if not np.isfinite(x).all():
                raise AssertionError("inputs that are not finite were accepted")
    return data


def _relevance(place: pathlib.Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    weights = {"one": rng.random((3, 3, 1, 4)), "two": rng.random((64, 3)).astype(np.float32)}
    filters = {"one": rng.random(4), "two": rng.random(3)}
    inner = Relevance(weights, filters, {"one": 0.5, "two": 1.0}, "lrp.epsilon", samples=4)
    whole = Relevance(
        weights, filters, {"one": 0.5, "two": 1.0}, "lrp.epsilon", samples=9, biases=filters, per_class={3: inner}
    )
    return [_written(one.save, place / "r.npz") for one in (inner, whole)]


def _read_relevance(path: pathlib.Path) -> Any:
    relevance = Relevance.load(path)
    repr(relevance)
    relevance._repr_html_()
    planner.plan(net(), relevance, xaic.Budget(mean_bits=4))
    return relevance


def _grids(place: pathlib.Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    book = np.array([-100, 0, 3, 90], np.int8)
    kernels = {
        "one": QuantizedKernel(rng.integers(-7, 8, (3, 3, 1, 4)).astype(np.int8), np.full((1, 1, 1, 4), 0.1, np.float32), 4),
        "two": QuantizedKernel(rng.choice(book, (64, 3)).astype(np.int8), np.full((1, 1), 0.1, np.float32), 2, book),
    }
    return [_written(lambda path: save_kernels(kernels, path), place / "g.npz")]


def _read_grids(path: pathlib.Path) -> Any:
    for key, kernel in load_kernels(path).items():
        if not np.isfinite(kernel.values).all() or kernel.values.shape != kernel.integers.shape:
            raise AssertionError("a grid without values was accepted")
        json.dumps(kernel.record)
        histogram_svg(kernel, key)


def _explanations(place: pathlib.Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(3, 6, 6, 1)).astype(np.float32) for _ in range(4)]
    return [_written(Explanations(np.array([3, 1, 7]), *maps).save, place / "e.npz")]


def _report() -> Report:
    shown = [{"sample": 3, "group": "newly wrong", "truth": 1, "original_answer": 1, "answer": 2, "similarity": 0.5}] * 3
    return Report(**facts(explanations={"rule": "taylor", "samples": 3, "target": "true", "shown": shown}))


def _read_explanations(path: pathlib.Path) -> Any:
    render_html(_report(), Evidence(explanations=Explanations.load(path)))


def _plan(_: pathlib.Path) -> list[bytes]:
    made = planner.plan(
        net(), xaic.attribute(net(), np.ones((4, 6, 6, 1), np.float32), rule="magnitude"), xaic.Budget(flash="9kB")
    )
    with_all = json.loads(made.model_dump_json(by_alias=True))
    with_all["filters"] = {"macs": 2000, "steps": 2, "protect": ["two"]}
    with_all["remove"] = {"one": [1, 2]}
    return [made.model_dump_json(by_alias=True).encode(), json.dumps(with_all).encode()]


def _read_plan(path: pathlib.Path) -> Any:
    plan = Plan.load(path)
    str(plan)
    plan._repr_html_()
    check_plan(plan, net())
    return plan


def _read_report(path: pathlib.Path) -> Any:
    report = Report.load(path)
    render_html(report)
    return report


def _read_front(path: pathlib.Path) -> Any:
    front = read_front(path)
    render_front(front)
    render_html(_report(), Evidence(front=front.points))


FRONT = {
    "objectives": ["flash", "metric"],
    "points": [{"trial": n, "values": {"flash": 9000 + n, "metric": 0.9 - n / 10}, "best": n < 2} for n in range(4)],
}
COMPOSITE = {"first": "lrp.z_box:0,1", "conv": "lrp.gamma:0.5", "one*": "lrp.epsilon:0.01", "*": "lrp.epsilon"}


def _pictures(place: pathlib.Path) -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 255, (12, 9, 3)).astype(np.uint8)
    whole = Image.fromarray(pixels)
    found = [_written(lambda path: whole.save(path), place / f"i.{end}") for end in ("png", "jpg", "bmp")]
    return [*found, _written(lambda path: whole.quantize(8).save(path), place / "p.png")]


def _read_picture(path: pathlib.Path) -> Any:
    return load_data(path.parents[1])


def _read_slim(path: pathlib.Path) -> bytes:
    """As `xaic slim` does, which looks at the structure first."""
    check_structure(read_file(path))
    return bytes(slim_foreign(path.read_bytes())["content"])


def _other_graph(whole: bytes, damaged: bytes, how: Mutation, small: bytes) -> Any:
    return difference(load(damaged), load(small))


def _read_tflite(path: pathlib.Path) -> Any:
    info = read_file(path)
    check_structure(info)
    check_micro(info)


def _read_objects(path: pathlib.Path) -> Any:
    return unpack_download(pack_download(path.read_bytes()))


def _device() -> Any:
    where = pathlib.Path(__file__).parents[2] / "export" / "edge_check.py"
    spec = importlib.util.spec_from_file_location("edge_check", where)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DEVICE = _device()


def _models(ending: str, place: pathlib.Path) -> list[bytes]:
    return [_written(net().save, place / f"m.{ending}")]


@functools.cache
def saved() -> dict[str, bytes]:
    """The files of a SavedModel."""
    with tempfile.TemporaryDirectory() as name:
        net().save(name, save_format="tf")
        files = (path for path in sorted(pathlib.Path(name).rglob("*")) if path.is_file())
        return {path.relative_to(name).as_posix(): path.read_bytes() for path in files}


def after_the_name(content: bytes, rng: random.Random) -> bytes:
    """Damages a file of a directory, behind its name."""
    name, _, inside = content.partition(b"\0")
    return name + b"\0" + bytes_changed(inside, rng)


def _read_saved(path: pathlib.Path) -> Any:
    name, _, inside = path.read_bytes().partition(b"\0")
    for key, value in {**saved(), name.decode(): inside}.items():
        (path.parent / "model" / key).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "model" / key).write_bytes(value)
    return load_model(path.parent / "model")


def _read_slim(path: pathlib.Path) -> Any:
    slim(path, path.with_name("slim"), timeout=10, overwrite=True)


def _task(_: pathlib.Path) -> list[bytes]:
    facts = Task("classification", 3, "softmax").facts()
    return [json.dumps({**facts, "inputs": {"scale": 0.5, "offset": 0.0}}).encode()]


def _read_task(path: pathlib.Path) -> Any:
    """As `verify` reads what a bundle says of itself."""
    place = path.parents[1]
    (place / "model.tflite").write_bytes(TINY.read_bytes())
    (place / "report.json").write_bytes(path.read_bytes())
    data = Data(Samples(np.zeros((4, 4), np.float32), np.arange(4) % 3))
    verify(place, data, interpreters="builtin-ref")


def _other_bytes(_: bytes, damaged: bytes, how: Mutation, made: Any) -> str | None:
    return None if made in (TINY.read_bytes(), weighty()) else "an unpacked file of other content"


def _as_bytes(value: Any) -> Callable[[pathlib.Path], list[bytes]]:
    return lambda _: [json.dumps(value).encode()]


READERS = {
    one.name: one
    for one in (
        Reader(
            "xaic", "model.xaic", lambda _: [pack_download(TINY.read_bytes()), pack_download(weighty())],
            lambda path: unpack_download(path.read_bytes()), (bytes_changed, signed_again, signed_again), _other_bytes,
        ),
        Reader("data", "d.npz", _data, _read_data, (bytes_changed, arrays_changed), _same_values),
        Reader("relevance", "r.npz", _relevance, _read_relevance, (bytes_changed, arrays_changed)),
        Reader("grids", "g.npz", _grids, _read_grids, (bytes_changed, arrays_changed)),
        Reader("explanations", "e.npz", _explanations, _read_explanations, (bytes_changed, arrays_changed)),
        Reader("plan", "plan.json", _plan, _read_plan, (bytes_changed, json_changed, json_changed)),
        Reader(
            "report", "report.json", lambda _: [_report().to_json().encode()], _read_report,
            (bytes_changed, json_changed, json_changed),
        ),
        Reader("front", "front.json", _as_bytes(FRONT), _read_front, (bytes_changed, json_changed, json_changed)),
        Reader(
            "composite", "rule.json", _as_bytes(COMPOSITE), lambda path: as_composite(read_json(path)),
            (bytes_changed, json_changed),
        ),
        Reader(
            "recipe", "recipe.json", lambda _: [one.model_dump_json().encode() for one in RECIPES.values()], Recipe.load,
            (bytes_changed, json_changed, json_changed),
        ),
        Reader("image", "data/cat/1.png", _pictures, _read_picture),
        Reader("tflite", "model.tflite", lambda _: [TINY.read_bytes(), weighty()], _read_tflite),
        Reader(
            "flatbuffer", "model.tflite", lambda _: [TINY.read_bytes(), weighty()], _read_objects,
            wrong=lambda _, damaged, how, made: None if made == damaged else "it came back otherwise",
        ),
        Reader("slim", "model.tflite", lambda _: [TINY.read_bytes(), weighty()], _read_slim, wrong=_other_graph, share=0.25),
        Reader(
            "device", "inputs.npz", _data, lambda path: DEVICE.read_arrays(path, "x_train"), (bytes_changed, arrays_changed),
            errors=(DEVICE.CheckError,),
        ),
        Reader("task", "check/task.json", _task, _read_task, (bytes_changed, json_changed, json_changed), share=0.1),
        Reader("slim", "model.tflite", lambda _: [TINY.read_bytes(), weighty()], _read_slim, share=0.025),
        Reader("keras", "m.keras", lambda place: _models("keras", place), load_model, share=0.25),
        Reader("h5", "m.h5", lambda place: _models("h5", place), load_model, share=0.25),
        Reader(
            "savedmodel", "member", lambda _: [key.encode() + b"\0" + value for key, value in saved().items()], _read_saved,
            (after_the_name,), share=0.25,
        ),
    )
}  # fmt: skip


def one_input(reader: Reader, seeds: Sequence[bytes], seed: int, number: int) -> tuple[bytes, Mutation, bytes]:
    """Returns the whole file, how it is damaged, and the damaged one; the same for the same numbers."""
    rng = random.Random(f"{reader.name} {seed} {number}")
    whole, how = rng.choice(seeds), rng.choice(reader.mutations)
    try:
        return whole, how, how(whole, rng)
    except (ValueError, TypeError, OverflowError):  # what no other type can hold
        return whole, bytes_changed, bytes_changed(whole, rng)
