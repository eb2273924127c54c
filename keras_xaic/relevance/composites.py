"""Which rule each weighted layer gets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, Union

from keras_xaic.errors import ModelError, choices
from keras_xaic.relevance.rules import RULES, Alpha2Beta1, Epsilon, Flat, Rule, ZBox, ZPlus

LayerKind = Literal["conv", "depthwise", "conv_transpose", "dense", "recurrent", "attention"]
KINDS: tuple[LayerKind, ...] = ("conv", "depthwise", "conv_transpose", "dense")
"""Kinds of weighted layers that a composite can name, beside ``first``, `THIRDS`, ``*`` and patterns of layer names.

Recurrent and attention layers have no choice of rules: see docs/layers.md.
"""
THIRDS = ("low", "middle", "high")
"""Thirds of the convolutions by depth; where there are none, of the dense layers."""


@dataclass(frozen=True)
class Composite:
    """An ordered choice: the first entry that matches a layer gives its rule.

    Attributes:
        name: What it is called in results.
        choices: (matcher, rule) pairs. A matcher is ``"first"`` (weighted layers that see an input of the model through no
            other weighted layer), a kind of `KINDS`, one of `THIRDS`, or a pattern of layer names such as ``block1/*``;
            ``"*"`` matches all.
    """

    name: str
    choices: tuple[tuple[str, Rule], ...]

    def idle(self, paths: Collection[str]) -> tuple[str, ...]:
        """Returns the patterns of layer names that match none of the weighted layers at `paths`."""
        patterns = [matcher for matcher, _ in self.choices if matcher not in ("first", "*", *KINDS, *THIRDS)]
        return tuple(pattern for pattern in patterns if not any(fnmatchcase(path, pattern) for path in paths))

    def rule_for(self, path: str, kind: LayerKind, first: bool, third: str = "") -> Rule:
        """Returns the rule of the layer at `path`, which lies in one of the `THIRDS` or in none.

        Raises:
            ModelError: If nothing matches.
        """
        for matcher, rule in self.choices:
            named = matcher in KINDS or matcher in THIRDS
            if (matcher == "first" and first) or matcher in (kind, third) or (not named and fnmatchcase(path, matcher)):
                return rule
        raise ModelError(
            f"the composite {self.name!r} has no rule for layer {path!r} ({kind})",
            "an entry for every weighted layer",
            'End it with an entry "*", for example "*": "lrp.epsilon"',
        )


_CONVOLUTIONS = ("conv", "depthwise", "conv_transpose")

COMPOSITES: dict[str, Composite] = {
    composite.name: composite
    for composite in (
        # Kohlbrenner et al. 2020, "Towards best practice in explaining neural network decisions with LRP"
        Composite("lrp.epsilon_plus", (*((kind, ZPlus()) for kind in _CONVOLUTIONS), ("*", Epsilon()))),
        Composite("lrp.epsilon_plus_flat", (("first", Flat()), *((kind, ZPlus()) for kind in _CONVOLUTIONS), ("*", Epsilon()))),
        Composite(
            "lrp.epsilon_alpha2_beta1_flat",
            (("first", Flat()), *((kind, Alpha2Beta1()) for kind in _CONVOLUTIONS), ("*", Epsilon())),
        ),
    )
}
"""Composites by their standard names."""

BEGIN = "composite("
"""How the name of a composite begins that has none of its own."""

RuleLike = Union[str, Rule, Composite, Mapping[str, Any]]


def as_composite(rule: RuleLike) -> Composite:
    """Accepts a rule's name, with a parameter if need be, a rule, a composite, its name, or a mapping of matchers to rules.

    >>> as_composite("lrp.gamma:0.5").choices
    (('*', Gamma(gamma=0.5, epsilon=1e-06)),)
    >>> as_composite({"first": "lrp.z_box", "conv": "lrp.z_plus", "*": Epsilon(0.01)}).rule_for("fc", "dense", False)
    Epsilon(epsilon=0.01)
    >>> as_composite("composite(dense=lrp.epsilon:0.25, *=lrp.gamma)").choices
    (('dense', Epsilon(epsilon=0.25)), ('*', Gamma(gamma=0.25, epsilon=1e-06)))

    Raises:
        ModelError: If there is no such rule.
    """
    if isinstance(rule, Composite):
        return rule
    if isinstance(rule, Rule):
        return Composite(_label(rule), (("*", rule),))
    if isinstance(rule, Mapping):
        entries = tuple((str(matcher), _as_rule(one)) for matcher, one in rule.items())
        if not entries:
            raise ModelError("a composite has no entries", 'rules by layer, e.g. {"*": "lrp.epsilon"}')
        label = ", ".join(f"{matcher}={_label(one)}" for matcher, one in entries)
        return Composite(f"{BEGIN}{label})", entries)
    if not isinstance(rule, str):
        raise ModelError(f"a rule is {rule!r}", "the name of a rule, or a mapping of layers to names")
    if rule in COMPOSITES:
        return COMPOSITES[rule]
    if rule.startswith(BEGIN) and rule.endswith(")"):  # as results are called
        pairs = [entry.rpartition("=") for entry in rule[len(BEGIN) : -1].split(", ")]
        return as_composite({matcher: one for matcher, _, one in pairs})
    one = _as_rule(rule)
    if isinstance(one, ZBox):  # bounds are known at the input only: deep Taylor decomposition, Montavon et al. 2017
        return Composite(rule, (("first", one), ("*", ZPlus())))
    return Composite(rule, (("*", one),))


def _as_rule(rule: object) -> Rule:
    if isinstance(rule, Rule):
        return rule
    if not isinstance(rule, str):
        raise ModelError(f"a rule is {rule!r}", "the name of a rule, e.g. lrp.epsilon")
    name, colon, text = rule.partition(":")
    if name not in RULES:
        raise ModelError(f"there is no LRP rule {rule!r} for single layers", choices(name, RULES))
    if not colon:
        return RULES[name]
    names, values = RULES[name].parameters(), text.split(",")
    if len(values) > len(names):
        expected = f"at most {name}:{','.join(names)}" if names else f"{name}, which takes none"
        raise ModelError(f"rule {rule!r} has {len(values)} {'parameter' if len(values) == 1 else 'parameters'}", expected)
    try:
        given = dict(zip(names, map(float, values)))
    except ValueError:
        raise ModelError(f"rule {rule!r} has parameters that are no numbers", f"{name}:{','.join(names)}") from None
    return replace(RULES[name], **given)


def _label(rule: Rule) -> str:
    values = [getattr(rule, field.name) for field in fields(rule)]
    if rule == RULES.get(rule.name):
        return rule.name
    return rule.name + ":" + ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
