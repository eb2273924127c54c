"""How files appear: whole or not at all, and never at the price of something that is not ours.

Nothing else in the package opens a final name for writing: content goes to a temporary name in the same directory, reaches the
disk, and takes its name in one step.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, Union

PathLike = Union[str, "os.PathLike[str]"]


@contextlib.contextmanager
def writing(path: PathLike) -> Iterator[BinaryIO]:
    """Yields a binary file that takes the name `path` when the block ends well, and vanishes otherwise.

    Example:
        >>> import tempfile
        >>> target = pathlib.Path(tempfile.mkdtemp()) / "values.bin"
        >>> with writing(target) as file:
        ...     _ = file.write(b"whole")
        >>> target.read_bytes()
        b'whole'
    """
    path = pathlib.Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp hides it from others
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def write_atomic(path: PathLike, content: Union[str, bytes]) -> None:
    """Writes a file that is either whole or not there."""
    with writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
