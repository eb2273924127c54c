"""Measuring a bundle, which marks it where something is wrong."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Callable, Optional, Union

from keras_xaic.arguments import a_text, an, checked, this_or_path
from keras_xaic.bundle import Bundle, open_bundle, undisturbed
from keras_xaic.edge.agreement import knows_outputs, measure_agreement
from keras_xaic.edge.bundle_facts import BundleFacts
from keras_xaic.edge.bundle_files import wrong_files
from keras_xaic.edge.interpreters import UnusableInterpreter
from keras_xaic.edge.measured import Verification
from keras_xaic.edge.verification import deployed_on, file_for
from keras_xaic.edge.verification import verify as measure
from keras_xaic.errors import DataError, EdgeError, MachineError, XaicError, XaicWarning
from keras_xaic.files import PathLike, telling, tells_machine_errors
from keras_xaic.progress import Progress, silent
from keras_xaic.settings import DataOptions, cluster_address


@tells_machine_errors
@checked(options=an(DataOptions), bundle=this_or_path(Bundle), interpreter=a_text)
def verify(
    bundle: Union[PathLike, Bundle],
    data: Any,
    *,
    interpreter: str = "auto",
    options: Optional[DataOptions] = None,
    cluster: Optional[str] = None,
    progress: Progress = silent,
) -> Verification:
    """Measures size, metric, latency and memory of a bundle from its files, and marks it where something is wrong.

    That is an interpreter that fails, or whose outputs for the samples of ``check/`` are not those of the Keras model; and
    files that were not written together.

    Args:
        bundle: A bundle directory.
        data: Anything that `as_data` takes, or a path; its test part is run, or its training part where there is none.
        interpreter: ``auto``: the one that judges; ``all``: every installed one that the bundle is for; or a name.
        options: Task, metric and input scaling where they are not what the bundle remembers.
        cluster: A Ray cluster whose nodes share the samples: ``auto`` or HOST:PORT, as for `SearchOptions`; None: this machine.
            Time and memory are measured on this machine all the same.
        progress: Told how far the work is.

    Returns:
        What every interpreter measured: metric, milliseconds, bytes of RAM. `Verification.error` is what is wrong.

    Raises:
        XaicError: If there is no bundle, the data does not fit, or the interpreter is not usable.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    opened.check_mark()
    cluster = None if cluster is None else cluster_address(cluster)
    with undisturbed(opened) as check:
        made_for = deployed_on(opened)
        try:
            verification = measure(opened, data, interpreters=interpreter, options=options, cluster=cluster, progress=progress)
        except UnusableInterpreter:
            raise  # it says nothing about the bundle
        except EdgeError as error:
            if interpreter in (*made_for, "auto", "all"):
                _mark(opened, check, str(error))
            raise
        ran = [name for name, run in verification.runs.items() if run.error is None and name in made_for]
        verification = replace(verification, faults=tuple(_faults(opened, ran)))
        errors = [run.error for name, run in verification.runs.items() if name in made_for]
        found = [one for one in [*errors, *verification.faults] if one is not None]
        faults = [one for one in found if not isinstance(one, UnusableInterpreter)]
        if faults:
            _mark(opened, check, str(faults[0]))
        elif interpreter == "all" and verification.error is None:
            _mark(opened, check, None)
    return verification


def _faults(bundle: Bundle, interpreters: Iterable[str]) -> Iterator[XaicError]:
    """Yields what is wrong with files that run: what the interpreters make of the samples of ``check/``, and mixed files."""
    try:
        for name in interpreters if knows_outputs(bundle) else ():
            path = file_for(bundle, name)
            measure_agreement(bundle, name, path).require(path.relative_to(bundle.path).as_posix())
    except (EdgeError, DataError) as error:
        yield error
    wrong = wrong_files(bundle, BundleFacts(bundle).report.get("sha256"))
    if wrong is not None:
        yield wrong


def _mark(bundle: Bundle, check: Callable[[], None], said: Optional[str]) -> None:
    """Marks a bundle that is still the measured one, or takes its mark away.

    Where it cannot be written, what was found is said all the same.
    """
    try:
        with telling():
            check()
            bundle.mark(said)
    except MachineError as error:
        what = "The bundle could not be marked" if said is not None else "The bundle's mark could not be taken away"
        warnings.warn(f"{what}: {error.found}.", XaicWarning, stacklevel=3)
