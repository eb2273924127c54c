"""What Arm's compiler Vela expects of a file on an Ethos-U processor: an estimate, nothing is executed."""

from __future__ import annotations

import csv
import importlib.util
import pathlib
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from keras_xaic.edge.interpreters import MissingInterpreter
from keras_xaic.edge.process import words
from keras_xaic.errors import EdgeError
from keras_xaic.files import PathLike
from keras_xaic.temporary import temporary_directory


@dataclass(frozen=True)
class NpuEstimate:
    """Vela's performance estimate.

    Attributes:
        accelerator: The processor that was assumed.
        weight_bytes: Weights as they are.
        encoded_weight_bytes: Weights in the processor's own compression; few different values and zeros shrink them.
        flash_bytes: What lies in flash.
        sram_bytes: RAM at the most.
        cycles: Of one inference.
        inference_ms: Time of one inference.
    """

    accelerator: str
    weight_bytes: int
    encoded_weight_bytes: int
    flash_bytes: int
    sram_bytes: int
    cycles: int
    inference_ms: float

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


def estimate_npu(path: PathLike, accelerator: str = "ethos-u55-128", timeout: float = 300.0) -> NpuEstimate:
    """Lets Vela compile a file with int8 weights and activations and reads its summary.

    Args:
        path: The .tflite file. Weights have to be int8: Vela compresses them itself, and takes no int4.
        accelerator: A name of ``vela --accelerator-config``.
        timeout: Seconds.

    Raises:
        EdgeError: If Vela is missing, refuses the file or hangs.
    """
    if importlib.util.find_spec("ethosu") is None:
        raise MissingInterpreter("ethos-u-vela is not installed", "", "pip install 'keras-xaic[npu]' (Python 3.10 or newer)")
    file = pathlib.Path(path).resolve()
    with temporary_directory() as place:
        scratch = str(place)
        command = [sys.executable, "-m", "ethosu.vela", "--accelerator-config", accelerator, "--output-dir", scratch]
        try:
            done = subprocess.run(
                [*command, str(file)], capture_output=True, text=True, timeout=timeout, check=False, cwd=scratch
            )
        except subprocess.TimeoutExpired:
            raise EdgeError(f"vela did not finish within {timeout:g} s on {file.name}", "", "Allow more time") from None
        summaries = sorted(pathlib.Path(scratch).glob("*_summary_*.csv"))
        if done.returncode != 0 or not summaries:
            said = words(f"{done.stdout}\n{done.stderr}")
            raise EdgeError(f"vela refused {file.name}: {said!r}", "int8 weights and activations")
        with summaries[0].open(encoding="utf-8", newline="") as table:
            row = next(csv.DictReader(table))
    return NpuEstimate(
        accelerator=accelerator,
        weight_bytes=int(float(row["total_original_weights"])),
        encoded_weight_bytes=int(float(row["total_npu_encoded_weights"])),
        flash_bytes=round(1024 * float(row["off_chip_flash_memory_used"])),
        sram_bytes=round(1024 * float(row["sram_memory_used"])),
        cycles=int(float(row["cycles_total"])),
        inference_ms=1e3 * float(row["inference_time"]),
    )
