from __future__ import annotations

from rich.console import Console

from keras_xaic.report import Report, budget_misses, comparison_table, render, summary_line, verdict
from keras_xaic.report.wording import next_steps


def shown(what, width: int = 160) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"), color_system=None)  # noqa: SIM115
    console.print(what)
    return console.export_text()


def test_before_after_and_baselines_stand_side_by_side(report):
    lines = shown(comparison_table(report)).splitlines()
    header = next(line for line in lines if "original" in line)
    assert header.index("original") < header.index("int8") < header.index("magnitude") < header.index("lrp-mixed")
    cells = {line.strip("│ ").split("│")[0].strip(): [c.strip() for c in line.strip("│ ").split("│")[1:]] for line in lines}
    assert cells["flash (model.tflite)"] == ["318.4 kB", "95.4 kB", "61.0 kB", "61.2 kB"]
    assert cells["accuracy (edge)"] == ["84.49 %", "84.29 %", "82.50 %", "83.88 %"]
    assert cells["drop"] == ["-", "0.20 pp", "1.99 pp", "0.61 pp"]
    assert cells["on tflm"][-1] == "did not run"
    assert cells["on tflite-runtime 2.14.0, the judge"][-1] == "83.88 %"
    assert "RAM (TFLite Micro arena)" not in cells  # nobody measured it


def test_layer_names_are_text_not_markup(changed):
    report = changed(layers=[{"name": "[bold]x[/]"}], warnings=["[red]careful[/]"])
    text = shown(render(report))
    assert "[bold]x[/]" in text
    assert "! [red]careful[/]" in text
    outputs = [{"name": "[b]x", "metric": "f1[/macro]", "task": "[a]"}, {"name": "y"}]
    other = shown(render(Report(metric={"name": "f1[/macro]"}, outputs=outputs, compressed={"edge_metric": 0.5})))
    assert "f1[/macro] (edge)" in other
    assert "[b]x" in other
    assert "[a]" in other


def test_summary_line(report, changed):
    assert summary_line(report) == "flash 61.2 kB, download 33.4 kB, accuracy 83.88 %, drop 0.61 pp, budget met"
    small = dict(report.compressed.model_dump(), flash_bytes=70_000, drop_pp=2.0)
    missed = changed(compressed=small, budget={"flash_bytes": 64_000, "max_drop_pp": 1.5, "met": False})
    assert summary_line(missed).endswith(
        "budget missed: flash is 70.0 kB, the budget 64.0 kB; accuracy drops by 2.00 pp, at most 1.5 pp was allowed"
    )
    assert len(budget_misses(missed)) == 2
    assert summary_line(Report(compressed={"flash_bytes": 900, "agreement": 0.9})) == "flash 900 B, agreement 90.0 %"


def test_a_budget_that_nobody_measured_is_not_met(changed):
    report = changed(budget={"flash_bytes": 64_000, "ram_bytes": 50_000})
    assert budget_misses(report) == ["RAM was not measured, the budget is 50.0 kB"]
    assert "Budget not met: RAM was not measured" in verdict(report)


def test_a_miss_is_seen_however_small_it_is(changed):
    budget = {"flash_bytes": 48_000, "ram_bytes": 64_000, "max_drop_pp": 1.0, "max_slowdown": 0.01, "timed_on": "litert"}
    time = {"litert": {"median": 1.0, "ratio_to_int8": 0.0106}}
    small = {"flash_bytes": 48_010, "arena_bytes": 64_020, "edge_accuracy": 0.9, "drop_pp": 1.002, "latency_ms": time}
    assert budget_misses(changed(budget=budget, compressed=small)) == [
        "flash is 48,010 B, the budget 48,000 B",
        "RAM is 64,020 B, the budget 64,000 B",
        "time is 0.011 times plain int8's on litert, the budget 0.01 times",
        "accuracy drops by 1.002 pp, at most 1 pp was allowed",
    ]
    for agreement, said in ((0.99, []), (0.98996, ["agreement with the original is 98.996 %, at least 99 % was asked for"])):
        alike = Report(metric=None, budget={"max_drop_pp": 1.0}, compressed={"agreement": agreement})
        assert budget_misses(alike) == said


def test_a_drop_that_nobody_can_tell_is_not_kept():
    """Of an original without any error no percent can be lost."""
    own = {"name": "danger_error", "better": "lower", "unit": "that of a function of your own"}
    facts = {"metric": own, "budget": {"max_drop_pp": 1.0}, "original": {"edge_metric": 0.0}}
    (said,) = budget_misses(Report(**facts, compressed={"edge_metric": 0.08}))
    assert said == "danger error is 0.08, the original's 0, of which no drop in % can be told: at most 1 % was allowed"
    assert budget_misses(Report(metric=None, budget={"max_drop_pp": 1.0})) == [
        "agreement of values was not measured, at most 1 % was allowed"
    ]


def test_verdict_says_when_relevance_won(report):
    text = verdict(report)
    assert "5.2 times smaller" in text
    assert "accuracy 83.88 % on tflite-runtime" in text
    assert "Baseline magnitude is 1.4 points worse at the same size" in text
    assert "Baseline int8 is 0.4 points better at 1.56 times the size" in text
    assert "did not help" not in text


def test_verdict_says_when_relevance_did_not_help(report, changed):
    better = {"magnitude": {"flash_bytes": 61_000, "edge_accuracy": 0.85}}
    assert "Baseline magnitude is 1.1 points better at the same size - relevance did not help" in verdict(
        changed(baselines=better)
    )
    alike = {"magnitude": {"flash_bytes": 61_000, "edge_accuracy": 0.838}}
    assert "Baseline magnitude is as accurate at the same size - relevance did not help" in verdict(changed(baselines=alike))
    larger = {"magnitude": {"flash_bytes": 90_000, "edge_accuracy": 0.838}}
    assert "did not help" not in verdict(changed(baselines=larger))


def test_verdict_says_what_the_same_method_without_relevance_does(changed):
    for accuracy, words in (
        (0.80, "points worse at the same size - relevance helped"),
        (0.838, "as accurate at the same size"),
    ):
        control = {"auto-magnitude": {"flash_bytes": 61_000, "edge_accuracy": accuracy}}
        text = verdict(changed(baselines=control))
        assert "The same method without relevance" in text
        assert words in text
    assert "relevance did not help on this model" in text


def test_verdict_says_what_would_be_needed(changed):
    ours = {"flash_bytes": 10_000, "edge_accuracy": 0.80, "drop_pp": 4.0}
    report = changed(
        budget={"flash_bytes": 10_000, "max_drop_pp": 2.0},
        original={"edge_accuracy": 0.84, "tflite_fp32_bytes": 160_000},
        compressed=ours,
        baselines={"int8": {"flash_bytes": 40_000, "edge_accuracy": 0.84, "drop_pp": 0.0}},
    )
    assert "about 20.0 kB of flash (between this model and int8)" in verdict(report)  # half of the drop, half of the way to 4x
    assert "between this model and the original" in verdict(report.model_copy(update={"baselines": {}}))
    kept = changed(budget={"flash_bytes": 10_000, "max_drop_pp": 4.0}, compressed=ours)
    assert "Needed" not in verdict(kept)


def test_verdict_of_a_limit_on_the_download_speaks_of_downloads_and_of_the_least_there_is(changed):
    report = changed(
        budget={"download_bytes": 6_000, "max_drop_pp": 2.0},
        original={"edge_accuracy": 0.84, "tflite_fp32_bytes": 160_000, "tflite_fp32_gzip_bytes": 120_000},
        compressed={"flash_bytes": 30_000, "download_bytes": 8_000, "edge_accuracy": 0.80, "drop_pp": 4.0},
        baselines={"int8": {"flash_bytes": 60_000, "download_bytes": 32_000, "edge_accuracy": 0.84, "drop_pp": 0.0}},
        rounds=[{"predicted_download_bytes": 8_100}, {"predicted_download_bytes": 7_900}],
    )
    text = verdict(report)
    assert "No plan within this recipe was smaller than 7,900 B to download: raise that limit." in text
    assert "about 16.0 kB to download (between this model and int8)" in text
    assert "between this model and the original" in verdict(report.model_copy(update={"baselines": {}}))
    overran = report.model_copy(update={"rounds": [report.rounds[0].model_copy(update={"predicted_download_bytes": 5_900})]})
    assert "No plan" not in verdict(overran), "training is what made the file larger"


def test_verdict_says_what_time_would_be_needed_and_which_limits_are_kept(changed):
    def raced(ratio):
        return {"litert": {"median": 0.05, "ratio_to_int8": ratio}}

    facts = {
        "budget": {"max_slowdown": 0.5, "timed_on": "litert", "max_drop_pp": 2.0},
        "original": {"edge_accuracy": 0.84, "tflite_fp32_bytes": 160_000},
        "compressed": {"flash_bytes": 10_000, "edge_accuracy": 0.80, "drop_pp": 4.0, "latency_ms": raced(0.5)},
    }
    report = changed(**facts, baselines={"int8": {"edge_accuracy": 0.84, "drop_pp": 0.0, "latency_ms": raced(1.0)}})
    missed = "accuracy drops by 4.00 pp, at most 2 pp was allowed"
    assert f"Budget not met: {missed} (kept: time). Needed: more training, or about 0.71 times" in verdict(report)  # sqrt(1/2)
    assert "(between this model and int8)" in verdict(report)
    assert summary_line(report).endswith(f"budget missed: {missed}; kept: time")
    assert "about" not in verdict(changed(**facts, baselines={}))
    assert "more training, or more time" in verdict(changed(**facts, baselines={}))
    both = {**facts, "budget": {**facts["budget"], "flash_bytes": 9_000}}
    assert "more time, or more of what else is limited" in verdict(changed(**both))
    late = {**facts, "budget": {**facts["budget"], "max_drop_pp": 5.0, "max_slowdown": 0.4}}
    assert verdict(changed(**late)).count("(kept: accuracy)") == 1


def test_what_to_do_next_follows_from_what_was_measured(changed):
    device = "Copy check/ and model.tflite to the device, and run check/edge_check.py there."
    calm = {"compressed": {"flash_bytes": 61_200, "edge_accuracy": 0.84, "drop_pp": 0.5, "samples": 1000, "part": "test"}}
    calm |= {"classes": [], "interpreters": {}}
    assert next_steps(changed(**calm)) == [device]

    def step(begins, **changes):
        (found,) = next_steps(changed(**{**calm, **changes}))[:-1]
        assert found.startswith(begins)

    small = calm["compressed"]
    step("Train longer", budget={"max_drop_pp": 0.2}, original={"edge_accuracy": 0.845, "tflite_fp32_bytes": 300_000})
    step("Raise the limit that was missed", budget={"flash_bytes": 60_000})
    step("Take the recipe magnitude", baselines={"magnitude": {"flash_bytes": 61_000, "edge_accuracy": 0.95}})
    assert next_steps(changed(**calm, baselines={"magnitude": {"flash_bytes": 70_000, "edge_accuracy": 0.95}})) == [device]
    assert next_steps(changed(**calm, baselines={"magnitude": {"flash_bytes": 61_000, "edge_accuracy": 0.841}})) == [device]
    step("Give labels", metric=None, compressed={"flash_bytes": 61_200, "agreement": 0.99}, baselines={})
    step("Give test data", compressed={**small, "part": "train"})
    one = {"label": 0, "original_accuracy": 0.9, "accuracy": 0.8, "drop_pp": 10.0}
    step("Look at the classes", classes=[{**one, "samples": 1000}])
    assert next_steps(changed(**{**calm, "classes": [{**one, "samples": 10}]})) == [device]  # chance
    step("If time matters", layers=[{"name": "a", "slowdown": 3.0}])
    step("Look at the samples", compressed={**small, "explanation_similarity": 0.5})
    step("An interpreter did not run the file", interpreters={"tflm": {"ran": False, "error": "refused"}})


def test_mse_is_no_percentage(changed):
    report = changed(
        metric="mse",
        original={"edge_accuracy": 0.2, "tflite_fp32_bytes": 1000},
        compressed={"edge_accuracy": 0.25, "drop_pp": 25.0, "flash_bytes": 500},
        baselines={"int8": {"edge_accuracy": 0.5, "flash_bytes": 500}},
    )
    text = shown(render(report))
    assert "mse (edge)" in text
    assert "25.00 %" in text
    assert "150.00 %" in text
    assert "pp" not in text
    assert "Baseline int8 is 100.0 % worse at the same size" in verdict(report)


def test_values_without_labels_say_how_far_they_are_off():
    report = Report(metric=None, budget={"max_drop_pp": 1.0}, compressed={"flash_bytes": 900, "drop_pp": 0.25})
    assert verdict(report) == "900 B of flash, values that differ from the original's by 0.25 % of their variance."


def test_an_empty_report_can_be_shown():
    assert "compressed" in shown(render(Report()))
    assert summary_line(Report()) == "flash -"
