from __future__ import annotations

import json

import pytest

from keras_xaic.budget import Budget
from keras_xaic.errors import PlanError
from keras_xaic.planning.plan import LayerPlan, Plan


def make_plan():
    layers = [
        LayerPlan(key="conv", kind="conv", weights=100, bits=8, granularity="channel", storage="int8", sparsity=0.5),
        LayerPlan(key="dense", kind="dense", weights=300, bits=4, granularity="tensor", storage="int4"),
    ]
    return Plan(recipe="auto", seed=7, budget=Budget("48kB", None, None, 2), layers=layers, remove={"conv": [1, 3]})


def test_a_plan_survives_its_file(tmp_path):
    plan = make_plan()
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert plan.mean_bits == 5.0
    assert plan.sparsity == 0.125
    assert "conv" in plan.describe()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda c: c["layers"][0].update(bits=9), "layers.0.bits"),
        (lambda c: c["layers"][1].update(storage="int5"), "layers.1.storage"),
        (lambda c: c.update(colour="red"), "colour"),
        (lambda c: c["layers"][0].update(sparsity=1.5), "layers.0.sparsity"),
        (lambda c: c["layers"][0].update(relevance=-0.5), "layers.0.relevance"),
        (lambda c: c["layers"][0].update(flash_bytes=-1), "layers.0.flash_bytes"),
        (lambda c: c.update(predicted_ram_bytes=-1), "predicted_ram_bytes"),
        (lambda c: c.update(seed=-1), "seed"),
        (lambda c: c.update(filters={"steps": 10**12}), "filters.steps"),
    ],
)
def test_a_plan_edited_wrongly_names_the_key(tmp_path, edit, said):
    path = tmp_path / "plan.json"
    make_plan().save(path)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(PlanError, match=said):
        Plan.load(path)


def test_budgets_that_are_none_are_named():
    assert Budget(flash="48kB").flash_bytes == 48_000
    with pytest.raises(PlanError, match="the flash budget is 'lots'"):
        Budget(flash="lots")
    with pytest.raises(PlanError, match="max_drop"):
        Budget(max_drop=-1)


def test_a_notebook_shows_a_table_of_layers():
    layer = LayerPlan(key="<stem>", kind="conv", weights=432, bits=4, granularity="channel", storage="int4", reason="fits")
    shown = Plan(layers=[layer], predicted_flash_bytes=1234)._repr_html_()
    assert shown.count("<tr>") == 2
    assert "<td>&lt;stem&gt;</td><td>432</td><td>4</td>" in shown
    assert "1,234 B flash" in shown


def test_a_budget_in_a_plan_that_is_none_names_the_file(tmp_path):
    path = tmp_path / "plan.json"
    make_plan().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "budget": {"download": "9" * 5000 + "kB"}}))
    with pytest.raises(PlanError, match=r"plan\.json: the download budget is '9999") as caught:
        Plan.load(path)
    assert len(str(caught.value)) < 400
