"""Directories of images are read as `keras.utils.image_dataset_from_directory` reads them, pixel by pixel."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from keras_xaic import export, verify
from keras_xaic._keras import keras
from keras_xaic.data import as_data, load_data
from keras_xaic.errors import DataError, MachineError, XaicWarning
from keras_xaic.models import fitted, infer_task

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (9, 7, 3), np.uint8)
SHADES = RNG.integers(0, 256, (9, 7), np.uint8)
KINDS = {
    "plain.png": Image.fromarray(COLOUR),
    "UPPER.PNG": Image.fromarray(COLOUR[::-1].copy()),
    "gray.png": Image.fromarray(SHADES),
    "alpha.png": Image.fromarray(np.dstack([COLOUR, SHADES])),
    "gray_alpha.png": Image.fromarray(np.dstack([SHADES, SHADES[::-1]]), "LA"),
    "palette.png": Image.fromarray(COLOUR).convert("P", palette=Image.Palette.ADAPTIVE),
    "bits.png": Image.fromarray(SHADES > 99),
    "sixteen.png": Image.fromarray(SHADES.astype(np.uint16) * 257 - (SHADES > 0)),
    "shot.bmp": Image.fromarray(COLOUR),
    "moving.gif": Image.fromarray(COLOUR).convert("P", palette=Image.Palette.ADAPTIVE),
    "photo.jpg": Image.fromarray(COLOUR),
    "deep/er/nested.png": Image.fromarray(COLOUR[:, ::-1].copy()),
}


def fill(root, kinds=KINDS, classes=("b", "a")):
    for name in classes:
        for file, image in kinds.items():
            (root / name / file).parent.mkdir(parents=True, exist_ok=True)
            image.save(root / name / file)
    (root / ".hidden").mkdir()
    (root / classes[-1] / "notes.txt").write_text("no image")


def by_keras(root, size, colours="rgb"):
    made = keras.utils.image_dataset_from_directory(
        root, image_size=size, color_mode=colours, shuffle=False, batch_size=4, label_mode="int"
    )
    parts = [[np.asarray(one) for one in batch] for batch in made]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]), made.class_names


@pytest.mark.parametrize("size", [None, (5, 6), (20, 14)])
def test_pixels_labels_and_order_are_those_of_keras(tmp_path, size):
    fill(tmp_path)
    data = load_data(tmp_path, image_size=size)
    x, y, names = by_keras(tmp_path, size or (9, 7))
    np.testing.assert_array_equal(data.train.y, y)
    assert list(data.classes) == names == ["a", "b"]
    assert data.train.x.shape == x.shape == (24, *(size or (9, 7)), 3)
    gap = np.abs(np.asarray(data.train.x, np.float32) - x).reshape(len(x), -1).max(axis=1)
    found = [one for one in tmp_path.rglob("*") if one.is_file() and one.suffix != ".txt"]
    files = [one.relative_to(tmp_path).as_posix() for one in found]
    photos = np.array([one.endswith(".jpg") for one in sorted(files, key=lambda one: (one[0], one.rsplit("/", 1)[0], one))])
    assert gap[~photos].max() <= 1e-3, gap
    assert gap[photos].max() <= 4, "decoders of JPEG round their cosines differently"


def test_images_without_colours_have_one_channel(tmp_path):
    fill(tmp_path, {name: KINDS[name] for name in ("gray.png", "gray_alpha.png", "bits.png", "sixteen.png")})
    data = load_data(tmp_path)
    x, y, _ = by_keras(tmp_path, (9, 7), "grayscale")
    np.testing.assert_array_equal(np.asarray(data.train.x, np.float32), x)
    np.testing.assert_array_equal(data.train.y, y)


@pytest.mark.parametrize("size", [None, (5, 6)])
def test_images_without_colours_are_read_as_keras_does_for_models_that_take_colours(tmp_path, size):
    fill(tmp_path, {name: KINDS[name] for name in ("gray.png", "bits.png")})
    shape = size or (9, 7)
    model = keras.Sequential([keras.Input((*shape, 3)), keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")])
    data = fitted(model, load_data(tmp_path, image_size=size))
    np.testing.assert_allclose(np.asarray(data.train.x, np.float32), by_keras(tmp_path, shape)[0], atol=1e-3)
    assert infer_task(model, data).kind == "classification"
    assert data.train.take(np.array([2, 0])).inputs().shape == (2, *shape, 3)
    with pytest.raises(DataError, match=r"samples of shape \(9, 7, 1\)"):  # arrays are taken as they are
        infer_task(model, fitted(model, as_data((SHADES[None, ..., None], [0]))))


def test_a_bundle_that_takes_colours_is_verified_with_images_that_have_none(tmp_path):
    fill(tmp_path / "images", {name: KINDS[name] for name in ("gray.png", "bits.png")})
    model = keras.Sequential([keras.Input((9, 7, 3)), keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")])
    bundle = export(model, tmp_path / "bundle", calibration=tmp_path / "images", prove=False)
    assert verify(bundle, tmp_path / "images").samples == 4


@pytest.mark.parametrize("names", [("train", "val", "test"), ("train", "validation", "test"), ("Training", "VALID", "Testing")])
def test_splits_of_a_directory(tmp_path, names):
    for number, part in enumerate(names):
        fill(tmp_path / part, dict.fromkeys((f"{one}.png" for one in range(2 + number)), KINDS["plain.png"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = as_data(tmp_path)
    assert [(part, len(samples)) for part, samples in data.parts()] == [("train", 4), ("test", 8), ("val", 6)]
    assert data.classes == ("a", "b")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("train", "val", "validation"), "has the directories 'val' and 'validation'. Expected one for the validation part"),
        (("Train", "train"), "has the directories 'Train' and 'train'"),
        (("val", "Test"), "has 'Test', 'val' and no directory for training"),
    ],
)
def test_splits_that_are_two_or_none_are_refused(tmp_path, names, said):
    for part in names:
        fill(tmp_path / part, {"plain.png": KINDS["plain.png"]})
    with pytest.raises(DataError, match=said):
        load_data(tmp_path)


def test_what_of_a_directory_is_not_read_is_said(tmp_path):
    one = {"plain.png": KINDS["plain.png"]}
    for part in ("seg_train", "seg_test"):
        fill(tmp_path / part, one)
    with pytest.warns(XaicWarning, match=r"same directories \(a, b\) in each of seg_test, seg_train.*call them train, val"):
        load_data(tmp_path)
    (tmp_path / "seg_train").rename(tmp_path / "train")
    with pytest.warns(XaicWarning, match="seg_test is not read: beside train/ only val/ and test/ are"):
        load_data(tmp_path)
    (tmp_path / "seg_test").rename(tmp_path / "test")
    for file in ("a/b.tiff", "a/c.webp", "d.png"):
        KINDS["plain.png"].save(tmp_path / "train" / file)
    with pytest.warns(XaicWarning, match=r"3 images of .*train are not read, a/b.tiff for one: images lie in directories of"):
        assert len(load_data(tmp_path).train) == 2


def test_a_directory_that_may_not_be_read_is_not_left_out(tmp_path, monkeypatch):
    fill(tmp_path, {"deep/er/plain.png": KINDS["plain.png"]})
    scan = os.scandir

    def scandir(place):
        if os.path.basename(place) == "er":
            raise PermissionError(13, "Permission denied", place)
        return scan(place)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(MachineError, match="deep/er: no permission"):
        load_data(tmp_path)


def test_sizes_that_differ_are_named_with_the_option_that_helps(tmp_path):
    fill(tmp_path, {"a.png": KINDS["plain.png"], "b.png": Image.fromarray(COLOUR[:4])})
    with pytest.raises(DataError, match=r"b\.png has 7 x 4 pixels.*image_size='9x7'"):
        load_data(tmp_path)
    assert load_data(tmp_path, image_size="9x7").train.x.shape == (4, 9, 7, 3)


def test_numbers_as_directories_are_counted_as_keras_does_with_a_line(tmp_path):
    fill(tmp_path, {"a.png": KINDS["bits.png"]}, [str(number) for number in range(11)])
    with pytest.warns(XaicWarning, match="are numbers, and get theirs in alphabetical order, as in Keras: 10 is class 2"):
        data = load_data(tmp_path)
    assert list(data.classes) == by_keras(tmp_path, (9, 7))[2]
