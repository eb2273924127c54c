"""A recipe is data: it validates itself, is read from a file, and single entries can be others."""

from __future__ import annotations

import json
import pathlib

import pytest
from typer.testing import CliRunner

import keras_xaic as xaic
from keras_xaic.cli.app import app
from keras_xaic.cli.options import MethodOptions
from keras_xaic.errors import DataError, PlanError
from keras_xaic.recipes import RECIPES, Recipe, get_baselines, get_recipe

OWN = pathlib.Path(__file__).parents[2] / "examples" / "own_recipe.json"


@pytest.mark.parametrize("name", RECIPES)
def test_a_published_recipe_survives_its_file(name, tmp_path):
    RECIPES[name].save(tmp_path / "r.json")
    assert get_recipe(str(tmp_path / "r.json")) == RECIPES[name]


@pytest.mark.parametrize("name", RECIPES)
def test_what_the_command_prints_is_the_recipe(name, tmp_path):
    printed = CliRunner().invoke(app, ["recipes", name, "--json"])
    assert printed.exit_code == 0
    (tmp_path / "r.json").write_text(printed.stdout)
    assert Recipe.load(tmp_path / "r.json") == RECIPES[name]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"bit": [4]}, ("'bit'", "'bits'", "mine.json")),
        ({"bits": [1]}, ("bits", "2 to 8", "mine.json")),
        ({"grid": "round"}, ("grid", "uniform", "mine.json")),
        ({"sparsity": 1.5}, ("sparsity", "mine.json")),
        ({"rule": None}, ("rule", "mine.json")),
        ({"name": "a/b"}, ("name", "mine.json")),
        ({"steps": 0}, ("steps", "mine.json")),
    ],
)
def test_a_wrong_entry_is_named_with_its_file(tmp_path, entries, words):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"name": "mine", "rule": "taylor", **entries}))
    with pytest.raises(PlanError) as error:
        get_recipe(path)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_what_is_no_recipe_at_all_is_said(tmp_path):
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(PlanError, match="list"):
        get_recipe(tmp_path / "list.json")
    with pytest.raises(DataError, match="does not exist"):
        get_recipe("nowhere.json")
    with pytest.raises(PlanError, match="'ecqx'"):
        get_recipe("ecqz")
    with pytest.raises(PlanError, match="a float"):
        get_recipe(3.0)  # type: ignore[arg-type]


def test_options_change_single_entries():
    method = MethodOptions("taylor", "4,8", ["head*=8"], ["stem"], ["dense*=2:4"], protect=["stem"])
    entries = method.entries()
    made = RECIPES["auto"].changed(**entries)
    assert (made.rule, made.bits, made.pin, made.float_layers) == ("taylor", (4, 8), {"head*": 8}, ("stem",))
    assert (made.zeros, made.protect, made.align) == ({"dense*": "2:4"}, ("stem",), RECIPES["auto"].align)
    assert made.changed() == made
    with pytest.raises(PlanError, match="--pin head"):
        MethodOptions(pin=["head"]).entries()
    with pytest.raises(PlanError, match="--bits four"):
        MethodOptions(bits="four").entries()


def test_the_example_is_a_recipe_that_is_not_ours():
    own = Recipe.load(OWN)
    assert own.name not in RECIPES
    assert own.rule == "taylor"
    assert own.filter_rule == "lrp.z_plus"


def test_all_baselines_are_every_recipe_that_can_be_compared_with():
    names = [one.name for one in get_baselines(xaic.Device(baselines="all").baselines)]
    assert names == [name for name, one in RECIPES.items() if one.comparable]
    assert {"int8", "magnitude", "cluster", "auto-magnitude"} <= set(names)
    assert xaic.Device().baselines == ("int8",), "others train as long as the recipe itself"
