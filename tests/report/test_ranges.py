"""Values at the ends of their ranges: what Report.load accepts can be worded and drawn."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from keras_xaic.errors import DataError
from keras_xaic.metrics import METRICS
from keras_xaic.report import Report, budget_misses, comparison_table, render_html, summary_line, verdict
from keras_xaic.report.console import layer_table
from tests.report.conftest import facts

SCHEMA = Report.model_json_schema(by_alias=True)
OUTPUTS = [
    {"name": "digit", "task": "classification", "metric": "accuracy", "original": 0.9, "compressed": 0.8, "drop": 10.0},
    {"name": "box", "task": "regression", "metric": "mse", "original": 2.0, "compressed": 2.1, "baselines": {"int8": 2.05}},
]
USUAL = Report.model_validate({**facts(), "outputs": OUTPUTS}).model_dump(mode="json", by_alias=True)
EXTREMES = (0, 1, -1, 2**63 - 1, -(2**63), 5e-324, 1e-300, 1e100, -1e100, 0.5, None)
TEXTS = ("", "accuracy", "mse", "r2", "keras", "auto-magnitude", "magnitude", "a/b~c", "\u202e<b>", "x" * 300, None)


def choices(schema: dict[str, Any], value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], list[Any]]]:
    """Yields every place of a report with the values that its schema allows there; without a range, what JSON files hold."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    schemas = {one.get("type", "object"): one for one in schema.get("anyOf", [schema])}
    for kind, one in schemas.items():
        if "$ref" in one:
            yield from choices(one, value, way)
        elif kind in ("integer", "number"):
            low, high = one.get("minimum", -(10**400)), one.get("maximum", 10**400)
            numbers = {low, high, *(extreme for extreme in EXTREMES if extreme is not None and low <= extreme <= high)}
            fitting = [number for number in numbers if abs(number) < 2**1000 and (kind == "number" or number == int(number))]
            yield way, fitting + ([None] if "null" in schemas else [])
        elif kind == "string":
            yield way, list(one.get("enum", TEXTS[: None if "null" in schemas else -1]))
        elif kind == "boolean":
            yield way, [True, False]
        elif isinstance(value, list):
            yield way, [[], value * 3]
            for number, entry in enumerate(value):
                yield from choices(one["items"], entry, (*way, number))
        elif isinstance(value, dict):
            for key, inner in one.get("properties", {}).items():
                if key != "schema":
                    yield from choices(inner, value.get(key), (*way, key))
            if isinstance(one.get("additionalProperties"), dict):
                yield way, [{}, dict.fromkeys(TEXTS[:-1], next(iter(value.values())))] if value else [{}]
                for key in value:
                    yield from choices(one["additionalProperties"], value[key], (*way, key))


PLACES = list(choices(SCHEMA, USUAL))


def replaced(changes: dict[tuple[Any, ...], Any]) -> dict[str, Any]:
    """Returns the usual report with other values in some places."""
    made = copy.deepcopy(USUAL)
    for way, value in sorted(changes.items(), key=lambda one: -len(one[0])):
        holder = made
        for key in way[:-1]:
            holder = holder[key]
        holder[way[-1]] = value
    return made


def load(content: dict[str, Any], place) -> Report | None:
    (place / "report.json").write_text(json.dumps(content))
    try:
        return Report.load(place)
    except DataError:
        return None


def check_words(report: Report, changes: Any) -> None:
    try:
        texts = [verdict(report), summary_line(report), *budget_misses(report)]
        for table in (comparison_table(report), layer_table(report)):
            texts += [str(cell) for column in table.columns for cell in column.cells]
    except Exception as error:
        raise AssertionError(f"{changes}: {error!r}") from error
    assert not [text for text in texts if re.search(r"\b(nan|inf)\b", text)], changes


def test_what_was_accepted_can_be_worded(tmp_path):
    """Every place at every end of its range, and many places at once."""
    assert len(PLACES) > 120
    rng = random.Random(0)
    several = [{way: rng.choice(values) for way, values in rng.sample(PLACES, rng.randint(2, 8))} for _ in range(300)]
    accepted = 0
    for changes in [*({way: value} for way, values in PLACES for value in values), *several]:
        report = load(replaced(changes), tmp_path)
        if report is not None:
            accepted += 1
            check_words(report, changes)
    assert accepted > 700


def test_what_was_accepted_can_be_drawn(tmp_path):
    rng = random.Random(1)
    reports = [load(replaced({way: rng.choice(values) for way, values in rng.sample(PLACES, 9)}), tmp_path) for _ in range(20)]
    accepted = [report for report in reports if report is not None]
    assert len(accepted) > 3
    for report in accepted[:6]:
        assert "</html>" in render_html(report)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"compressed": {"edge_accuracy": 1.7}}, r"compressed\.edge_accuracy"),
        ({"compressed": {"agreement": -0.1}}, r"compressed\.agreement"),
        ({"compressed": {"flash_bytes": 0}}, r"compressed\.flash_bytes"),
        ({"compressed": {"samples": -5}}, r"compressed\.samples"),
        ({"compressed": {"sparsity": 2}}, r"compressed\.sparsity"),
        ({"compressed": {"explanation_similarity": -3}}, r"compressed\.explanation_similarity"),
        ({"compressed": {"edge_metric": 84.0}}, r"compressed\.edge_metric is 84, accuracy is 0 to 1"),
        ({"original": {"keras_metric": -1.0}, "metric": {"name": "mse"}}, r"original\.keras_metric is -1, mse is 0 to inf"),
        ({"interpreters": {"tflm": {"metric": 2.0}}}, r"interpreters\.tflm\.metric"),
        ({"layers": [{"name": "a", "relevance": -0.5}]}, r"layers\.0\.relevance"),
        ({"layers": [{"name": "a", "filters_kept": -1}]}, r"layers\.0\.filters_kept"),
        ({"rounds": [{"seconds": -1}]}, r"rounds\.0\.seconds"),
        ({"budget": {"max_drop_pp": -2}}, r"budget\.max_drop_pp"),
        ({"seed": -1}, "seed"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_refused_by_name(tmp_path, change, said):
    (tmp_path / "report.json").write_text(json.dumps({"schema": 2, **change}))
    with pytest.raises(DataError, match=said) as caught:
        Report.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_every_number_of_the_schema_has_a_range():
    def bare(schema: dict[str, Any], way: str) -> list[str]:
        found = [way] if schema.get("type") in ("integer", "number") and not {"minimum", "maximum"} <= set(schema) else []
        for key, inner in schema.items():
            for name, one in inner.items() if key in ("properties", "$defs") else [(key, inner)]:
                for entry in one if isinstance(one, list) else [one]:
                    found += bare(entry, f"{way}/{name}") if isinstance(entry, dict) else []
        return found

    assert bare({"type": "integer", "minimum": 0}, "x") == ["x"]
    assert bare(SCHEMA, "") == []


def test_overflowed_values_are_null_and_limits_of_metrics_are_those_of_their_formulas():
    made = Report(compressed={"drop_pp": 3e200, "edge_metric": float("inf")})
    assert (made.compressed.drop_pp, made.compressed.edge_metric) == (None, None)
    limits = {name: metric.limits for name, metric in METRICS.items()}
    infinite = float("inf")
    assert limits.pop("r2") == (-infinite, 1)
    assert {name for name, (low, high) in limits.items() if (low, high) == (0, infinite)} == {"mae", "mse", "rmse"}
    assert all(pair in ((0, 1), (0, infinite)) for pair in limits.values())
