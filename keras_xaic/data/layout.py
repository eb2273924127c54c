"""Directories of images: which of them are parts of the data, which are classes, and what of them is not read."""

from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Iterator

from keras_xaic.errors import DataError, XaicWarning
from keras_xaic.files import unreadable

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif"}
UNREAD_ENDINGS = {".webp", ".tif", ".tiff", ".jfif", ".heic", ".heif", ".avif", ".ppm", ".pgm", ".jp2"}
"""Of images that Keras does not read either."""
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What directories of parts are called, in small letters -> the part."""


def part_directories(where: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns part -> its directory; the directory itself is the training part where no other is.

    Raises:
        DataError: If two are one part, or all are parts but none is for training.
    """
    names = class_names(where)
    roots: dict[str, pathlib.Path] = {}
    for name in names:
        part = PARTS.get(name.lower(), "")
        if part in roots:
            raise DataError(f"{where} has the directories {roots[part].name!r} and {name!r}", f"one for the {part} part")
        if part:
            roots[part] = where / name
    if "train" not in roots:
        if names and len(roots) == len(names):
            raise DataError(f"{where} has {', '.join(map(repr, names))} and no directory for training", "train/CLASS/*.png")
        return {"train": where}
    others = [name for name in names if where / name not in roots.values()]
    if others:
        warn(f"{where / others[0]} is not read: beside train/ only val/ and test/ are.")
    return roots


def warn(said: str) -> None:
    """Says what a user should know of a directory."""
    warnings.warn(said, XaicWarning, stacklevel=4)


def check_layout(root: pathlib.Path, classes: list[str]) -> None:
    """Says where images are not read, and where classes look like parts of the data."""
    inside = [sorted(walked(root / one)) for one in classes]
    below = [(class_names(root / one), [name for name in found[0][2] if has_ending(name, IMAGE_ENDINGS)])
             for one, found in zip(classes, inside) if found]  # fmt: skip
    if len(classes) > 1 and all(names == below[0][0] and len(names) > 1 and not images for names, images in below):
        said = f"{root} has the same directories ({', '.join(below[0][0][:4])}) in each of {', '.join(classes[:4])}"
        warn(f"{said}, which are read as classes. If they are parts of the data, call them train, val and test.")
    files = [pathlib.Path(place, name) for found in inside for place, _, names in found for name in names]
    unread = sorted(one for one in files if has_ending(one.name, UNREAD_ENDINGS))
    unread += [one for one in sorted(root.iterdir()) if one.is_file() and has_ending(one.name, IMAGE_ENDINGS | UNREAD_ENDINGS)]
    if unread:
        expected = f"images lie in directories of classes and end in {', '.join(sorted(IMAGE_ENDINGS))}"
        warn(f"{len(unread)} images of {root} are not read, {unread[0].relative_to(root)} for one: {expected}.")


def has_ending(name: str, endings: set[str]) -> bool:
    """Whether a file's name ends in one of the endings, in small or capital letters."""
    return pathlib.Path(name).suffix.lower() in endings


def class_names(root: pathlib.Path) -> list[str]:
    """Returns the names of the directories that are not hidden.

    Raises:
        DataError: If the directory may not be read.
    """
    place, names, _ = next(walked(root))
    return sorted(name for name in names if (pathlib.Path(place) / name).is_dir() and not name.startswith("."))


def walked(root: pathlib.Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields what `os.walk` does, which leaves out what may not be read.

    Raises:
        XaicError: Naming it.
    """

    def refuse(error: OSError) -> None:
        said = f"{error.filename} cannot be read ({error.strerror})"
        raise unreadable(error) or DataError(said, "a directory of images") from None

    return os.walk(root, onerror=refuse)
