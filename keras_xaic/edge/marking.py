"""Measuring a bundle, which marks it where an interpreter fails."""

from __future__ import annotations

from typing import Any, Optional

from keras_xaic.bundle import open_bundle
from keras_xaic.edge.interpreters import UnusableInterpreter
from keras_xaic.edge.verification import Verification, deployed_on
from keras_xaic.edge.verification import verify as measure
from keras_xaic.errors import EdgeError
from keras_xaic.files import PathLike, tells_machine_errors
from keras_xaic.progress import Progress, silent


@tells_machine_errors
def verify(
    bundle: PathLike,
    data: Any,
    *,
    interpreter: str = "auto",
    task: Optional[str] = None,
    metric: Optional[str] = None,
    scale: Optional[float] = None,
    offset: Optional[float] = None,
    progress: Progress = silent,
) -> Verification:
    """Measures a bundle as `keras_xaic.edge.verify` does, and marks it where an interpreter fails."""
    opened = open_bundle(bundle)
    opened.check_mark()
    made_for = deployed_on(opened)
    how: dict[str, Any] = {"task": task, "metric": metric, "scale": scale, "offset": offset}
    try:
        verification = measure(opened, data, interpreters=interpreter, progress=progress, **how)
    except UnusableInterpreter:
        raise  # it says nothing about the bundle
    except EdgeError as error:
        if interpreter in (*made_for, "auto", "all"):
            opened.mark(str(error))
        raise
    errors = [run.error for name, run in verification.runs.items() if name in made_for]
    faults = [one for one in errors if one is not None and not isinstance(one, UnusableInterpreter)]
    if faults:
        opened.mark(str(faults[0]))
    elif interpreter == "all" and verification.error is None:
        opened.mark(None)
    return verification
