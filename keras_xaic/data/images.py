"""Directories of images per class."""

from __future__ import annotations

import pathlib
import warnings
from typing import Optional

import numpy as np

from keras_xaic.data.samples import Data, Samples
from keras_xaic.errors import DataError, first_line
from keras_xaic.npz import LARGE, map_values, nameless_file

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp"}
MOST_PIXELS = 40_000_000
"""Of one image."""


def load_directory(where: pathlib.Path, scale: float, offset: float) -> Data:
    """Loads ``train/CLASS/*.png`` and ``test/CLASS/*.png``, or ``CLASS/*.png`` (see `load_data`)."""
    train_root = where / "train" if (where / "train").is_dir() else where
    test_root = where / "test" if train_root != where and (where / "test").is_dir() else None
    classes = sorted(p.name for p in train_root.iterdir() if p.is_dir())
    if not classes:
        raise DataError(f"{train_root} has no class directories", "train/CLASS/*.png and test/CLASS/*.png, or an .npz file")
    train = _load_images(train_root, classes, scale, offset)
    test = _load_images(test_root, classes, scale, offset) if test_root else None
    return Data(train, test, where.name, classes=tuple(classes))


def _load_images(root: pathlib.Path, classes: list[str], scale: float, offset: float) -> Samples:
    unknown = sorted({p.name for p in root.iterdir() if p.is_dir()} - set(classes))
    if unknown:
        raise DataError(
            f"{root} has the class directory {unknown[0]!r}", f"the classes of the training images: {', '.join(classes)}"
        )
    files = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((root / name).glob("*"))
        if file.suffix.lower() in IMAGE_ENDINGS
    ]
    if not files:
        raise DataError(f"{root} holds no images", f"files ending in {', '.join(sorted(IMAGE_ENDINGS))}")
    first = _read_image(files[0][0])
    images = _room((len(files), *first.shape), first.dtype, str(root))
    for number, (file, _) in enumerate(files):
        images[number] = _read_image(file, first, files[0][0])
    return Samples(images, np.asarray([label for _, label in files], np.int64), scale, offset)


def _read_image(file: pathlib.Path, like: Optional[np.ndarray] = None, other: Optional[pathlib.Path] = None) -> np.ndarray:
    """Returns an image as (height, width, channels); what it claims to be is checked before it is unpacked."""
    from PIL import Image

    try:
        if not file.is_file():
            raise ValueError("it is not a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns of what is refused here
            with Image.open(file, formats=("PNG", "JPEG", "BMP")) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise DataError(f"{file} has {width} x {height} pixels", f"at most {MOST_PIXELS:,}", "Resize the images")
                wanted = None if like is None else (like.shape[1], like.shape[0])
                if wanted is not None and wanted != (width, height):
                    raise DataError(
                        f"{file} has {width} x {height} pixels", f"those of {other}: {wanted}", "Resize the images first"
                    )
                plain = {"P": "RGB", "1": "L"}.get(image.mode)  # numbers of colours, and bits, are no values
                pixels = np.asarray(image.convert(plain) if plain else image)
    except DataError:
        raise
    except Exception as error:  # whatever damaged content leads the decoders to
        raise DataError(f"{file} is not a readable image ({first_line(error)})") from None
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if like is not None and (pixels.shape, pixels.dtype) != (like.shape, like.dtype):
        found = f"{file} has the shape {pixels.shape} of {pixels.dtype}"
        raise DataError(found, f"{like.shape} of {like.dtype}, as {other}", "Convert it first")
    return pixels


def _room(shape: tuple[int, ...], dtype: np.dtype, what: str) -> np.ndarray:
    """Returns an array to fill: in memory, or, where it is large, in a file without a name."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size <= LARGE:
        return np.empty(shape, dtype)
    with nameless_file(size, what) as room:
        room.truncate(size)
        return map_values(room, dtype, shape)
