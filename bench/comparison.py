"""Rows of bench/compare.py, brought together over seeds, and as tables."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

NAMES = {
    "resnet8": "ResNet-8, CIFAR-10",
    "cnn": "CNN, Fashion-MNIST",
    "mlp": "784-512-256-10, Fashion-MNIST",
    "ad01": "Auto-encoder of MLPerf Tiny, random inputs",
    "dscnn": "DS-CNN, scikit-learn's digits",
    "digits": "small CNN, scikit-learn's digits",
}
FORMS = ("filters", "weights", "codebook", "mixed")
"""Of deeplift-..., a recipe each."""
PAIR = ("auto", "auto-magnitude")
"""The method, and its control without relevance."""
LIMITS = {"flash": "flash_bytes", "download": "download_bytes", "max_drop": "drop_pp", "max_error": "error"}
"""Budget -> figure of a row."""
SETTINGS = ("epochs", "samples", "minutes", "budget")


@dataclass(frozen=True)
class Line:
    """All seeds of a method on a model, with the same settings.

    Attributes:
        model: Name of the model.
        method: Name of the method.
        rows: One for each seed.
        label: What pictures call it: with its epochs, where it trained longer or shorter than most methods on the model.
    """

    model: str
    method: str
    rows: Sequence[dict[str, Any]]
    label: str

    @property
    def measured(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if "failed" not in row]

    @property
    def budget(self) -> dict[str, float]:
        return self.rows[0]["budget"]

    @property
    def training(self) -> str:
        """Epochs and training samples in each."""
        epochs, samples = self.rows[0]["epochs"], self.rows[0]["samples"]
        return f"{epochs} x {'all' if samples is None else f'{samples:,}'}" if epochs else "none"

    @property
    def ours(self) -> bool:
        return self.rows[0]["ours"]

    @property
    def is_error(self) -> bool:
        """Whether figures are errors: less is better."""
        return "max_error" in self.budget

    @property
    def figures(self) -> list[float]:
        """Accuracies, or errors where nothing is classified."""
        return [row["error" if self.is_error else "edge_accuracy"] for row in self.measured]

    @property
    def figure(self) -> float:
        return statistics.mean(self.figures)

    @property
    def original(self) -> Optional[float]:
        """Accuracy of the float32 original on the same interpreter."""
        return next((row["original_accuracy"] for row in self.measured if not self.is_error), None)

    def mean(self, key: str) -> float:
        return statistics.mean(row[key] for row in self.measured)

    @property
    def time(self) -> str:
        """Time of one inference as a multiple of the original's."""
        return f"{self.mean('median_ms') / self.mean('original_ms'):.1f} x"

    def misses_of(self, row: dict[str, Any]) -> list[str]:
        """Which limits a row misses."""
        return [name for name, key in LIMITS.items() if name in self.budget and row[key] > self.budget[name]]

    @property
    def misses(self) -> list[str]:
        """Which limits at least one seed misses."""
        return [name for name in LIMITS if any(name in self.misses_of(row) for row in self.measured)]

    @property
    def verdict(self) -> str:
        good = sum(not self.misses_of(row) for row in self.measured)
        said = "no" if good == 0 else f"{good} of {len(self.measured)} seeds"
        return f"{said}: {', '.join(name.removeprefix('max_') for name in self.misses)}" if self.misses else "**yes**"

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts the best first: by the number of limits that are missed, then by accuracy."""
        if not self.measured:
            return (len(LIMITS), 0.0)
        return (len(self.misses), self.figure if self.is_error else -self.figure)


def summarize(rows: Sequence[dict[str, Any]]) -> list[Line]:
    """Returns a line for every method and its settings on every model.

    Files of others are downloaded as what is smaller: our container, or the best of the general compressors.
    """
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if not row["ours"] and "failed" not in row:
            row = {**row, "download_bytes": min(row["download_bytes"], row["general_bytes"])}
        settings = json.dumps([row.get(key) for key in SETTINGS])
        found.setdefault((row["model"], row["method"], settings), []).append(row)
    usual = {name: _usual([mine for (model, *_), mine in found.items() if model == name]) for name in NAMES}
    lines = []
    for (model, method, _), mine in found.items():
        epochs = mine[0]["epochs"]
        same = epochs == 0 or (epochs, mine[0]["samples"]) == usual[model]
        lines.append(Line(model, method, mine, method if same else f"{method}, {epochs} epochs"))
    models = list(NAMES)
    return sorted(lines, key=lambda line: (models.index(line.model), *line.order))


def _usual(lines: Sequence[Sequence[dict[str, Any]]]) -> Optional[tuple[int, Optional[int]]]:
    """Returns the epochs and samples that most methods trained with, those that train."""
    times = Counter((rows[0]["epochs"], rows[0]["samples"]) for rows in lines if rows[0]["epochs"])
    return times.most_common(1)[0][0] if times else None


def table(lines: Sequence[Line]) -> str:
    """Returns Markdown: a table for every model, the best method first."""
    parts = []
    for model in dict.fromkeys(line.model for line in lines):
        mine = [line for line in lines if line.model == model]
        budget, error = mine[0].budget, mine[0].is_error
        limit = f"error at most {budget['max_error']:g}" if error else f"at most {budget['max_drop']:g} points lost"
        known = [line.original for line in mine if line.original is not None]
        origin = f", original {known[0]:.2%}" if known else ""
        parts.append(
            f"**{NAMES[model]}**{origin}; budget: flash {budget['flash']:,} B, download {budget['download']:,} B, {limit}\n\n"
            f"| method | {'error' if error else 'accuracy'} | seeds | training | flash | download | time | within budget |\n"
            "|---|---:|---:|---:|---:|---:|---:|---|\n" + "\n".join(map(_cells, mine)) + "\n"
        )
    return "\n".join(parts)


def _cells(line: Line) -> str:
    name = f"**{line.method}**" if line.ours else line.method
    name += " (on LiteRT)" if any(row.get("runtime") for row in line.rows) else ""
    if not line.measured:
        return f"| {name} | - | {len(line.rows)} | {line.training} | - | - | - | {_reason(line)} |"
    form = "{:.4f}" if line.is_error else "{:.2%}"
    figure = form.format(line.figure)
    if len(line.figures) > 1:
        figure += f" ({form.format(min(line.figures))} to {form.format(max(line.figures))})"
    cells = [
        name,
        figure,
        len(line.measured),
        line.training,
        f"{line.mean('flash_bytes'):,.0f}",
        f"{line.mean('download_bytes'):,.0f}",
        "-" if any(row["median_ms"] is None for row in line.measured) else line.time,
        line.verdict,
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _reason(line: Line) -> str:
    text = line.rows[-1]["failed"].replace("|", "\\|").replace("<", "&lt;")
    return f"failed: {text[:120]}{'...' if len(text) > 120 else ''}"


def control_table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns Markdown: `auto` beside its control in every schedule that both had, and the difference seed by seed."""
    lines = [
        "| model | training | auto | auto-magnitude | auto is ahead by, seed by seed | mean | download | likeness of maps |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    cases: dict[tuple[Any, ...], dict[str, dict[int, dict[str, Any]]]] = {}
    for row in rows:
        if row["method"] in PAIR and "failed" not in row and not row.get("entries"):
            schedule = (row["epochs"], row["samples"] or 0, row["versions"]["keras-xaic"])
            settings = (list(NAMES).index(row["model"]), -row["budget"]["download"], *schedule)
            cases.setdefault(settings, {name: {} for name in PAIR})[row["method"]].setdefault(row["seed"], row)
    for (model, limit, epochs, samples, version), found in sorted(cases.items()):
        seeds = sorted(set(found[PAIR[0]]) & set(found[PAIR[1]]))
        if not seeds:
            continue
        both = [[found[name][seed] for seed in seeds] for name in PAIR]
        is_error = "error" in both[0][0]
        form = ".4f" if is_error else ".2f"
        ours, blind = ([_figure(row) for row in part] for part in both)
        ahead = [(two - one if is_error else one - two) for one, two in zip(ours, blind)]
        figures = [f"{statistics.mean(part):{form}}{'' if is_error else ' %'}" for part in (ours, blind)]
        download = " and ".join(f"{statistics.mean(row['download_bytes'] for row in part):,.0f}" for part in both)
        download += f" of {-limit:,}"
        cells = [
            NAMES[list(NAMES)[model]] + ("" if version.startswith("0.2") else f" (version {version})"),
            f"{epochs} x {f'{samples:,}' if samples else 'all'}",
            *figures,
            ", ".join(f"{one:+{form}}" for one in ahead),
            f"**{statistics.mean(ahead):+{form}}**",
            download,
            " and ".join(_likeness(part) for part in both),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _likeness(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the mean rank correlation of the maps of original and compressed model, where it was kept."""
    known = [row["similarity"]["spearman"] for row in rows if row.get("similarity")]
    return f"{statistics.mean(known):.2f}" if known else "-"


def _figure(row: dict[str, Any]) -> float:
    """Returns the error of a row, or its accuracy in per cent."""
    return float(row["error"]) if "error" in row else 100.0 * float(row.get("edge_accuracy", row.get("compressed", 0.0)))


def papers_table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns Markdown: every published method at its sizes, beside itself without relevance, seeds as means."""
    cases: dict[tuple[Any, ...], dict[bool, list[dict[str, Any]]]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("model", "recipe", "limit", "of", "times", "epochs", "samples"))
        cases.setdefault(key, {False: [], True: []})[row["control"]].append(row)
    lines = [
        "| model | recipe | limit | training | lost | without relevance | zeros | bits | bytes | bytes without relevance |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for key, both in sorted(cases.items(), key=lambda case: _place(*case[0])):
        model, recipe, limit, of, times, epochs, samples = key
        mine = both[False]
        if not mine:
            continue
        most = "1 point" if limit == "max_drop" else f"{limit} of {of} / {times:.3g}: {mine[0]['limit_bytes']:,}"
        cells = [
            NAMES[model],
            f"`{recipe}`",
            most,
            f"{epochs} x {f'{samples:,}' if samples else 'all'}",
            *(_lost(part) for part in both.values()),
            f"{statistics.mean(row['zeros'] for row in mine):.0%}",
            f"{statistics.mean(row['mean_bits'] or 8 for row in mine):.1f}",  # 0: the converter makes plain int8
            *(_size(part, "download" if limit == "download" else "flash", times) for part in both.values()),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _place(model: str, recipe: str, limit: str, of: str, times: float, epochs: int, samples: Optional[int]) -> tuple[Any, ...]:
    recipes = ("lrp-mixed", "ecqx", *(f"deeplift-{form}" for form in FORMS))
    return list(NAMES).index(model), recipes.index(recipe), limit == "max_drop", times, epochs, samples or 0


def _size(rows: Sequence[dict[str, Any]], bytes_of: str, times: float) -> str:
    """Returns the bytes of files, and how many times that is less than the file that counts."""
    if not rows:
        return "-"
    size = statistics.mean(row[f"{bytes_of}_bytes"] for row in rows)
    whole = statistics.mean(row.get("whole_bytes") or row["limit_bytes"] * times for row in rows)
    return f"{size:,.0f} (/ {whole / size:.3g})"


def _lost(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the points that are lost, as mean and range over seeds."""
    lost = [100 * (row["original_accuracy"] - row["edge_accuracy"]) for row in rows]
    if not lost:
        return "-"
    spread = f" ({min(lost):.2f} to {max(lost):.2f})" if len(lost) > 1 else ""
    return f"{statistics.mean(lost):.2f}{spread}"
