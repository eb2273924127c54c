"""Directories of images per class."""

from __future__ import annotations

import contextlib
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Optional

import numpy as np

from keras_xaic.data.classes import is_out_of_order, written_names
from keras_xaic.data.layout import IMAGE_ENDINGS, check_layout, class_names, has_ending, part_directories, walked, warn
from keras_xaic.data.samples import Data, Samples
from keras_xaic.errors import DataError, first_line
from keras_xaic.files import unreadable
from keras_xaic.npz import LARGE, map_values, nameless_file

MOST_PIXELS = 40_000_000
"""Of one image."""
GRAY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F"}
"""Modes of images without colours."""
Size = tuple[int, int]


def load_directory(where: pathlib.Path, scale: float, offset: float, image_size: Optional[Size] = None) -> Data:
    """Loads ``train/CLASS/*.png``, ``val/...`` and ``test/...``, or ``CLASS/*.png`` (see `load_data`).

    Files, their order and their pixels are those of `keras.utils.image_dataset_from_directory` with ``shuffle=False``, in its
    colour mode ``rgb``, or ``grayscale`` where no image of the training part has colours (see `with_channels`).

    Args:
        where: The directory.
        scale: Of the samples.
        offset: Of the samples.
        image_size: Height and width that images are resized to, bilinearly; None: all must have the same.

    Raises:
        DataError: Naming the directory or file.
    """
    roots = part_directories(where)
    train_root = roots["train"]
    classes = class_names(train_root)
    if not classes:
        raise DataError(f"{train_root} has no class directories", "train/CLASS/*.png and test/CLASS/*.png, or an .npz file")
    if is_out_of_order(classes):
        said = f"The class directories of {train_root} are numbers, and get theirs in alphabetical order, as in Keras: "
        warn(f"{said}{classes[2]} is class 2.")
    for root in roots.values():
        check_layout(root, classes)
    found = {name: _files(root, classes) for name, root in roots.items()}
    colours = any(_mode(file) not in GRAY for file, _ in found["train"])
    parts: dict[str, Any] = {name: _load_images(files, colours, scale, offset, image_size) for name, files in found.items()}
    return Data(**parts, name=where.name, classes=written_names(classes, where.name), images=True)


def with_channels(data: Data, shapes: Sequence[Sequence[Optional[int]]]) -> Data:
    """Returns images without colours with their channel three times, as Keras reads them, where a model takes three; no copies.

    Args:
        data: The data.
        shapes: Of the model's inputs, (batch, height, width, channels).
    """
    x = data.train.x
    if not (data.images and len(shapes) == 1 and shapes[0][-1:] == (3,) and x.shape[-1:] == (1,)):
        return data
    return data.changed(lambda name, part: replace(part, x=np.broadcast_to(part.x, (*part.x.shape[:-1], 3))))


def _files(root: pathlib.Path, classes: list[str]) -> list[tuple[pathlib.Path, int]]:
    unknown = sorted(set(class_names(root)) - set(classes))
    if unknown:
        raise DataError(
            f"{root} has the class directory {unknown[0]!r}", f"the classes of the training images: {', '.join(classes)}"
        )
    files = [
        (pathlib.Path(place) / name, label)
        for label, one in enumerate(classes)
        for place, _, names in sorted(walked(root / one))
        for name in sorted(names)
        if has_ending(name, IMAGE_ENDINGS)
    ]
    if not files:
        raise DataError(f"{root} holds no images", f"files ending in {', '.join(sorted(IMAGE_ENDINGS))}")
    return files


def _load_images(
    files: list[tuple[pathlib.Path, int]], colours: bool, scale: float, offset: float, size: Optional[Size]
) -> Samples:
    first = _read_image(files[0][0], colours)
    shape = (*(size or first.shape[:2]), first.shape[2])
    images = _room((len(files), *shape), first.dtype if size is None else np.dtype(np.float32), str(files[0][0].parent))
    for number, (file, _) in enumerate(files):
        pixels = _read_image(file, colours)
        if size is None and pixels.shape != shape:
            found = f"{file} has {pixels.shape[1]} x {pixels.shape[0]} pixels"
            fix = f"Resize the images: {{image_size={first.shape[0]}x{first.shape[1]}}}"
            raise DataError(found, f"those of {files[0][0]}: {(first.shape[1], first.shape[0])}", fix)
        images[number] = pixels if size is None else resized(pixels, size)
    return Samples(images, np.asarray([label for _, label in files], np.int64), scale, offset)


def _mode(file: pathlib.Path) -> str:
    """Returns the mode of an image as PIL names it; images with a palette have colours."""
    with _opened(file) as image:
        return "P" if image.format == "GIF" else str(image.mode)


@contextlib.contextmanager
def _opened(file: pathlib.Path) -> Iterator[Any]:
    from PIL import Image

    try:
        if not file.is_file():
            raise ValueError("it is not a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns of what is refused here
            with Image.open(file, formats=("PNG", "JPEG", "BMP", "GIF")) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise DataError(f"{file} has {width} x {height} pixels", f"at most {MOST_PIXELS:,}", "Resize the images")
                yield image
    except DataError:
        raise
    except Exception as error:  # whatever damaged content leads the decoders to
        raise unreadable(error) or DataError(f"{file} is not a readable image ({first_line(error)})") from None


def _read_image(file: pathlib.Path, colours: bool) -> np.ndarray:
    """Returns an image as (height, width, channels), uint8; what it claims to be is checked before it is unpacked."""
    with _opened(file) as image:
        if image.mode.startswith("I"):  # 16 bits: the upper 8 count
            pixels = (np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)[..., None]
            return np.repeat(pixels, 3, axis=-1) if colours else pixels
        if image.mode not in GRAY and not colours:
            raise DataError(f"{file} has colours", "shades of gray, as the training images", "Convert it first")
        pixels = np.asarray(image.convert("RGB" if colours else "L"))
    return pixels if colours else pixels[..., None]


def resized(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Returns an image in another size, float32: bilinear, pixel centres at halves, as `tf.image.resize` does it."""
    image = pixels.astype(np.float32)
    for axis, wanted in enumerate(size):
        given = image.shape[axis]
        place = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * np.float32(given / wanted) - np.float32(0.5)
        low = np.floor(place)
        share = (place - low).reshape([-1 if one == axis else 1 for one in range(3)])
        before = np.take(image, np.clip(low, 0, given - 1).astype(int), axis)
        after = np.take(image, np.clip(low + 1, 0, given - 1).astype(int), axis)
        image = before + (after - before) * share
    return image


def _room(shape: tuple[int, ...], dtype: np.dtype, what: str) -> np.ndarray:
    """Returns an array to fill: in memory, or, where it is large, in a file without a name."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size <= LARGE:
        return np.empty(shape, dtype)
    with nameless_file(size, what) as room:
        room.truncate(size)
        return map_values(room, dtype, shape)
