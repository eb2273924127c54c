"""What `xaic slim` does: any .tflite file gets smaller, and is proved to compute the same bits as before."""

from __future__ import annotations

import gzip
import hashlib
import pathlib
import time
from typing import Any, Optional

import numpy as np

from keras_xaic.arguments import a_path, an, checked, one_of_these, seconds, yes_no
from keras_xaic.bundle import Bundle
from keras_xaic.data import as_data
from keras_xaic.edge.bundle_files import checksums
from keras_xaic.edge.process import Limits
from keras_xaic.files import PathLike, readable, tells_machine_errors
from keras_xaic.ownership import output
from keras_xaic.pipeline.slim_work import Work
from keras_xaic.progress import Progress, silent
from keras_xaic.report.html import write_html
from keras_xaic.report.schema import (
    CompressedFacts,
    InterpreterFacts,
    JudgeFacts,
    ModelFacts,
    OriginalFacts,
    Report,
    SlimFacts,
)
from keras_xaic.settings import TARGETS, DataOptions, Target
from keras_xaic.units import format_bytes

SAMPLES = 64
"""Samples of the data that are run."""


@tells_machine_errors
@checked(file=a_path, options=an(DataOptions), target=one_of_these(TARGETS), bare=yes_no, timeout=seconds)
def slim(
    file: PathLike,
    out: PathLike,
    *,
    data: Any = None,
    target: Target = "both",
    bare: bool = False,
    options: Optional[DataOptions] = None,
    timeout: float = 120.0,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Report:
    """Makes a .tflite file smaller, and proves on every interpreter that is installed that it computes the same bits.

    The file may come from anywhere: float or quantized, with several graphs and signatures, metadata and state. What cannot be
    written again without loss, or cannot be proved, is left as it was, and the report says why.

    Args:
        file: A .tflite file; or a SavedModel directory, which is converted first (that runs its code).
        out: Directory of the bundle.
        data: Anything that `as_data` takes: inputs to compare with, beside random inputs and edge values.
        target: ``mobile`` leaves ``micro/`` out.
        bare: Whether signatures, names of inputs and outputs, and metadata may go, too: for programs that number their inputs.
        options: Scaling of the data, and whether a SavedModel may run its code.
        timeout: Seconds without progress after which an interpreter counts as hung.
        overwrite: Replace a bundle that is there already.
        progress: Told how far the work is.

    Returns:
        The report; ``report.slim`` says what each step saved and what each interpreter found.

    Raises:
        DataError: If there is no such file, or the data does not fit it.
        EdgeError: If the file is damaged.
        ExportError: If `out` may not be written.

    Example:
        >>> import tempfile
        >>> from keras_xaic import edge
        >>> theirs = pathlib.Path(edge.__file__).with_name("tiny.tflite")
        >>> report = slim(theirs, pathlib.Path(tempfile.mkdtemp()) / "slim", target="mobile")
        >>> report.compressed.flash_bytes <= theirs.stat().st_size
        True
    """
    options = options or DataOptions()
    source = pathlib.Path(file)
    with output(out, "bundle", overwrite=overwrite, inputs=[source, data]) as place, place.fresh() as scratch:
        started = time.monotonic()
        work = Work(Bundle(scratch), readable(source.stem), bare, Limits(timeout), progress)
        work.read(source, options)
        arrays = [] if data is None else _arrays(data, options)
        work.write_model(arrays)
        work.write_download()
        if target != "mobile":
            work.write_micro(arrays)
        work.write_check(arrays)
        work.time_both()
        report = _report(work, time.monotonic() - started)
        work.input.unlink()
        report.save(work.bundle.report)
        write_html(report, work.bundle.html)
    return report


def _report(work: Work, seconds: float) -> Report:
    """Returns what was done and found."""
    size, ours = len(work.content), work.bundle.model.stat().st_size
    download = work.bundle.download.stat().st_size if work.bundle.download.is_file() else None
    micro = work.bundle.micro / "model.tflite"
    equal = [name for name, proof in work.proofs.items() if proof.equal]
    on = " and ".join(f"{name} {work.proofs[name].version}" for name in equal)
    verdict = (
        f"model.tflite has {format_bytes(ours)}, {1 - ours / size:.0%} less than the file that was given, "
        f"and computes the same bits on {on}."
        if ours < size
        else "model.tflite is the file that was given."
    )
    weak = [name for name in equal if (work.proofs[name].outcomes or 0) < 2]
    if weak:
        work.notes.append(f"On {', '.join(weak)} all inputs gave the same outputs; data of your own says more.")
    work.notes += [f"{what} was left out: {why.rstrip('.')}." for what, why in work.left_out.items()]
    return Report(
        recipe="slim",
        model=ModelFacts(name=work.name),
        metric=None,
        judge=JudgeFacts(interpreter=equal[0], version=work.proofs[equal[0]].version) if equal else None,
        original=OriginalFacts(latency_ms={name: one["original"] for name, one in work.latency.items()}),
        compressed=CompressedFacts(
            flash_bytes=ours,
            download_bytes=download,
            micro_flash_bytes=micro.stat().st_size if micro.is_file() else None,
            arena_bytes=work.arena,
            latency_ms={name: one["slim"] for name, one in work.latency.items()},
        ),
        interpreters={
            name: InterpreterFacts(version=proof.version, ran=bool(proof.equal), error=proof.refused)
            for name, proof in work.proofs.items()
        },
        slim=SlimFacts(
            original_bytes=size,
            original_gzip_bytes=len(gzip.compress(work.content, 9)),
            original_sha256=hashlib.sha256(work.content).hexdigest(),
            saved_bytes={name: count for name, count in work.saved.items() if count},
            left_out=work.left_out,
            proof=work.proofs,
        ),
        sha256=checksums(work.bundle),
        seconds={"slim": seconds},
        verdict=verdict,
        warnings=work.notes,
    )


def _arrays(data: Any, options: DataOptions) -> list[np.ndarray]:
    """Returns the first samples of the data, one array per input."""
    read = as_data(data, *options.scaling, options.image_size)
    return read.judging.feeds(slice(SAMPLES))
