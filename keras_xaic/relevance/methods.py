"""Names of attribution rules -> the engines that carry them out."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING

from keras_xaic.errors import ModelError, choices, require_one
from keras_xaic.relevance.choices import ENGINES, EngineName
from keras_xaic.relevance.composites import BEGIN, COMPOSITES, Composite, RuleLike, as_composite
from keras_xaic.relevance.rules import RULES, Rule
from keras_xaic.relevance.tried import AUTO

if TYPE_CHECKING:
    from keras_xaic.relevance.engine import Engine
    from keras_xaic.relevance.program import Program

_OTHERS = {
    "deeplift.rescale": "deeplift.DeepLift",
    "deeplift.reveal_cancel": "deeplift.DeepLift",
    "gradient_x_input": "gradients.Gradient",
    "taylor": "gradients.Taylor",
    "integrated_gradients": "gradients.IntegratedGradients",
}
"""Name -> its engine; loaded when it is used, since names are needed without TensorFlow."""

RULE_NAMES: tuple[str, ...] = (*dict.fromkeys([*RULES, *COMPOSITES]), *_OTHERS, "magnitude")
"""Every rule that `attribute` knows by name."""


def check_rule(rule: object) -> None:
    """Refuses what is not the name of a rule, with parameters if it takes any, a rule, or a composite of rules.

    Raises:
        ModelError: Naming the nearest rule, or the parameter and why it makes no sense.
    """
    if not isinstance(rule, (str, Rule, Composite, Mapping)):
        raise ModelError(f"rule is a {type(rule).__name__}", "the name of a rule, a rule, or a mapping of layers to rules")
    if not isinstance(rule, str) or rule.startswith(BEGIN):
        as_composite(rule)
        return
    if rule == AUTO:
        raise ModelError(
            "rule 'auto' where there is no data to judge rules by",
            f"one of {', '.join(RULE_NAMES)}",
            "`xaic explain --rule auto` and `xaic compress --rule auto` search for one",
        )
    name, colon, _ = rule.partition(":")
    if name not in RULE_NAMES:
        raise ModelError(f"there is no attribution rule {rule!r}", choices(name, RULE_NAMES))
    if name in RULES:
        as_composite(rule)
    elif colon:
        raise ModelError(f"rule {rule!r} has parameters", f"{name}, which takes none")


def make_engine(
    program: Program, rule: RuleLike, engine: EngineName, allow_approximate: bool
) -> tuple[Engine, EngineName, str]:
    """Returns the engine for a rule, its name (never ``auto``), and the name of the rule.

    Raises:
        ModelError: If there is no such rule or engine, or the model has layers that the rule cannot treat.
    """
    require_one("engine", engine, ENGINES, ModelError)
    check_rule(rule)
    if isinstance(rule, str) and rule in _OTHERS:
        if engine == "innvestigate":
            raise ModelError(f"iNNvestigate 2 has no {rule}", "an LRP rule", "Use {engine=native}")
        module, _, name = _OTHERS[rule].partition(".")
        made = getattr(importlib.import_module(f"keras_xaic.relevance.{module}"), name)
        return made(program, *([rule, allow_approximate] if module == "deeplift" else [])), "native", rule
    composite = as_composite(rule)
    if engine == "innvestigate":
        if importlib.util.find_spec("innvestigate") is None:
            raise ModelError(
                "iNNvestigate is not installed; the native engine works without it",
                "",
                "pip install --no-deps --ignore-requires-python 'innvestigate>=2.1.2,<2.2'",
            )
        from keras_xaic.relevance.engine_innvestigate import InnvestigateEngine  # imports the library only when asked for

        return InnvestigateEngine(program, composite, allow_approximate), "innvestigate", composite.name
    from keras_xaic.relevance.engine_native import NativeEngine

    return NativeEngine(program, composite, allow_approximate), "native", composite.name
