"""The table of README's first screen, from the rows of bench/compare.py.

    python bench/headline.py        writes it into README.md

Only methods that trained in one and the same schedule are compared: `auto` beside TFMOT's quantization-aware training to int8,
and beside its control, which is the same without relevance.
Longer training of `auto` has no int8 beside it that trained as long, so it stands below the table. Times on LiteRT are those of
files that were made in the same schedule, and timed in turn with the original; docs/benchmarks.md has the command.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Optional

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench.comparison import NAMES, Line, summarize  # noqa: E402

ROWS = ROOT / "bench" / "results" / "compare.jsonl"
TIMES = ROWS.with_name("times.jsonl")
OURS, BLIND, INT8, FLOAT = "auto", "auto-magnitude", "tfmot-qat", "tflite-float32"
PLACE = re.compile(r"(<!-- made by bench/headline.py -->\n).*?(<!-- end -->)", re.S)


def read() -> list[Line]:
    """Returns all rows, brought together over seeds."""
    return summarize([json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()])


def read_times() -> list[Line]:
    """Returns the rows that were timed on LiteRT; a separate file, because their version may be another."""
    return summarize([json.loads(line) for line in TIMES.read_text(encoding="utf-8").splitlines()])


def table(lines: Sequence[Line], timed: Sequence[Line] = ()) -> str:
    """Returns Markdown: a row for each model on which both trained in the same schedule, and one sentence about longer runs."""
    rows, longer = [], []
    for model in NAMES:
        mine = [line for line in lines if line.model == model and line.measured]
        original = next((line for line in mine if line.method == FLOAT), None)
        ours = next((line for line in mine if line.label == OURS), None)
        int8 = next((line for line in mine if line.method == INT8), None)
        if original and ours and int8 and ours.training == int8.training:
            blind = next((line for line in mine if line.method == BLIND and line.training == ours.training), None)
            rows.append(_row(original, int8, ours, blind, _times(timed, ours)))
            longer += [_longer(line) for line in mine if line.method == OURS and line.label != OURS]
    head = "| model | float32 | int8, trained (TFMOT) | `auto` | without relevance | bytes, int8 : ours "
    head += "| LiteRT time, int8 : ours | training of all |"
    said = "These schedules are short and lose accuracy. Trained longer, with all samples, "
    said += f"`{OURS}` reaches\n" + ";\n".join(longer) + ".\nNo int8 model was trained that long.\n"
    return "\n".join([head, "|---|---:|---:|---:|---:|---:|---:|---:|", *rows]) + "\n" + (f"\n{said}" if longer else "")


def _times(timed: Sequence[Line], ours: Line) -> str:
    """Returns the ratio of both times, each as a multiple of the original's, and the size of our file that was timed."""
    found = {
        line.method: line for line in timed if line.model == ours.model and line.training == ours.training and line.measured
    }
    if not {INT8, OURS} <= found.keys():
        return "-"
    times = {method: line.mean("litert_ms") / line.mean("litert_original_ms") for method, line in found.items()}
    return f"{times[INT8] / times[OURS]:.1f} : 1 ({found[OURS].mean('flash_bytes') / 1000:,.0f} kB)"


def _row(original: Line, int8: Line, ours: Line, blind: Optional[Line], times: str) -> str:
    ratio = int8.mean("flash_bytes") / ours.mean("flash_bytes")
    control = "-" if blind is None else _value(blind)
    values = [_value(original), _value(int8), f"**{_value(ours)}**", control]
    cells = [NAMES[ours.model], *values, f"{ratio:.1f} : 1", times, _training(ours)]
    return f"| {' | '.join(cells)} |"


def _longer(line: Line) -> str:
    short = NAMES[line.model].partition(" ")[0].rstrip(",")
    return f"{_value(line)} in {line.rows[0]['epochs']} epochs ({short})"


def _value(line: Line) -> str:
    return f"{line.mean('flash_bytes') / 1000:,.0f} kB, {_metric(line)}"


def _metric(line: Line) -> str:
    return f"error {line.figure:.4f}" if line.is_error else f"{line.figure:.1%}"


def _training(line: Line) -> str:
    epochs, samples = line.rows[0]["epochs"], line.rows[0]["samples"]
    return f"{epochs} epochs of {'all' if samples is None else f'{samples:,}'} samples"


def fill(text: str, made: Optional[str] = None) -> str:
    """Returns README's text with the table of now."""
    return PLACE.sub(lambda place: place[1] + (table(read(), read_times()) if made is None else made) + place[2], text)


if __name__ == "__main__":
    file = ROOT / "README.md"
    file.write_text(fill(file.read_text(encoding="utf-8")), encoding="utf-8")
