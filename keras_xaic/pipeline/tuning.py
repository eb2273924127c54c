"""Which attribution rule should decide? The one whose order does least damage when it is followed without training.

The protocol follows Hatefi et al. 2024, arXiv 2408.12568: few reference samples; one rule everywhere, then composites with a
rule for each third of the depth and for dense layers; relevance with and without its sign; judged by the area under the curve
of what is lost. Damage is measured on validation data, apart from the samples that are explained. Test data is never seen.
"""

from __future__ import annotations

import functools
import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic.data import Data, arrays_of
from keras_xaic.errors import ModelError
from keras_xaic.files import write_atomic
from keras_xaic.json_files import read_json
from keras_xaic.metrics import NoValue
from keras_xaic.models import channel_groups, remove_channels, weighted_kernels
from keras_xaic.models.costs import macs
from keras_xaic.output_tasks import AnyTask
from keras_xaic.pipeline.following import Rounding, without_filters, without_weights
from keras_xaic.pipeline.judging import GROUPS, judge_count
from keras_xaic.planning.plan import Score
from keras_xaic.progress import Progress, silent
from keras_xaic.relevance import Relevance, attribute
from keras_xaic.relevance.choices import Reduce
from keras_xaic.relevance.composites import THIRDS, as_composite
from keras_xaic.relevance.program import Program
from keras_xaic.relevance.tried import USES, Tried, Use
from keras_xaic.training import predict
from keras_xaic.training.predicting import traced_once

if TYPE_CHECKING:
    from keras_xaic._keras import Model

USUAL = "lrp.epsilon"
"""What is taken where no rule does clearly less damage."""
CONTROL = "magnitude"
"""Tried in every use, and never chosen: it looks at no data."""
EVERYWHERE = ("lrp.gamma", "lrp.z_plus", "lrp.epsilon:0.25", "deeplift.rescale", "gradient_x_input", "taylor")
"""Tried as they are, after `USUAL`."""
IN_PARTS = ("lrp.epsilon", "lrp.gamma", "lrp.z_plus")
"""Rules that each part of a composite may get."""
STEPS: dict[Use, tuple[float, ...]] = {
    "filters": (0.05, 0.1, 0.2, 0.3),
    "weights": (0.3, 0.5, 0.7, 0.85),
    "bits": (5.0, 4.0, 3.0, 2.5),
}
"""How far an order is followed: shares of all filters, shares of all weights, mean bits of a weight."""
REFERENCE = 128
"""Samples that are explained: about ten of each of ten classes."""
JUDGING = 1000
"""Most validation samples that judge."""
WORST = 100.0
"""No damage counts more, in percentage points or per cent: a ruined model is ruined."""


@dataclass(frozen=True)
class Tuned:
    """What was found.

    Attributes:
        tried: Every candidate in every use.
    """

    tried: tuple[Tried, ...]

    def best(self, use: Use) -> tuple[str, Reduce]:
        """Returns rule and reduction for a use; the usual ones where the model has nothing to use them for."""
        found = next((one for one in self.tried if one.use == use and one.chosen), None)
        return (USUAL, "mean_abs") if found is None else (found.rule, found.reduce)  # type: ignore[return-value]

    @property
    def entries(self) -> dict[str, Any]:
        """What a recipe gets in place of the rule ``auto``."""
        (rule, reduce), (filters, filter_reduce), (bits, _) = self.best("weights"), self.best("filters"), self.best("bits")
        return {
            "rule": rule,
            "reduce": reduce,
            "filter_rule": filters,
            "filter_reduce": filter_reduce,
            "bits_rule": bits,
        }

    def save(self, path: pathlib.Path) -> None:
        """Writes it as JSON."""
        write_atomic(path, json.dumps([one.facts() for one in self.tried]))

    @classmethod
    def load(cls, path: pathlib.Path) -> Tuned:
        """Reads what `save` wrote."""
        return cls(tuple(map(Tried.of, read_json(path))))


@dataclass(frozen=True)
class _Curve:
    """Damage at every step, for all samples and without each group of them: (steps,) and (steps, groups)."""

    whole: np.ndarray
    without: np.ndarray


def search_rules(
    model: Model,
    data: Data,
    task: AnyTask,
    *,
    score: Score = "geometric_mean",
    also: Sequence[str] = (),
    seed: int = 0,
    progress: Progress = silent,
) -> Tuned:
    """Tries attribution rules in every use, and says which does least damage.

    A rule takes the place of `USUAL` only where it does less damage by more than the standard error of the difference. At most
    about thirty candidates are attributed; one that has lost more than the best after some steps is given up.

    Args:
        model: The trained model.
        data: Its data; training samples are explained, validation data judges.
        task: What the model does.
        score: What ranks weights (see `keras_xaic.planning.weight_score`).
        also: Further rules to try.
        seed: Chooses samples.
        progress: Told how far the work is.

    Raises:
        ModelError: If no rule takes the model.
    """
    search = _Search(model, data, task, "geometric_mean" if score == "magnitude" else score, seed, progress)
    usual = search.reduce
    with traced_once(search.flat), traced_once(search.rounding.model):
        for rule in dict.fromkeys((USUAL, CONTROL, *also, *EVERYWHERE)):
            search.add(rule, usual, control=rule == CONTROL)
        for use in search.uses:
            search.compose(use)
        for use in search.uses:
            if use != "bits" and search.tells(use):  # rounding is weighed by squares, without signs
                search.add(search.leader(use).rule, "mean", only=use)
    return Tuned(tuple(search.finished()))


@dataclass
class _Search:
    """The candidates of one model, as far as they are tried."""

    model: Model
    data: Data
    task: AnyTask
    score: Score
    seed: int
    progress: Progress
    found: list[tuple[Tried, Optional[_Curve]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.flat = remove_channels(self.model, {})
        train, held_back = self.data.split(seed=self.seed)
        self.reference = Data(train, None, self.data.name).calibration(REFERENCE, self.seed)
        few = held_back.take(slice(min(JUDGING, judge_count(sum(macs(self.flat).values())))))
        outputs = predict(self.flat, few)
        self.judging, self.outputs = self.task.labelled(few, outputs), outputs
        ways: dict[Use, Callable[[Relevance], Callable[[float], Any]]] = {}
        groups = channel_groups(self.flat)
        if groups.removable:
            ways["filters"] = functools.partial(without_filters, self.flat, groups, self.reference, self.judging)
        kernels = [one for one in weighted_kernels(self.flat) if one.kind != "depthwise"]
        if kernels:
            ways["weights"] = functools.partial(without_weights, self.flat, kernels, self.score, self.judging)
        self.rounding = Rounding(self.flat, self.judging)
        if len(self.rounding.kernels) > 1:
            ways["bits"] = self.rounding.along
        self.ways = ways
        self.most = 2 + len(EVERYWHERE) + len(ways) * (1 + len(IN_PARTS) * (len(THIRDS) + 1))

    @property
    def reduce(self) -> Reduce:
        """How samples are brought together: with signs where the score of weights looks at them."""
        return "mean" if self.score == "signed_relevance" else "mean_abs"

    def tells(self, use: Use) -> bool:
        """Whether there is any damage yet that another candidate could do less of."""
        return self._least(use) > 0.0

    @property
    def uses(self) -> list[Use]:
        """What the model can use an order for."""
        return [use for use in USES if use in self.ways]

    def add(self, rule: str, reduce: Reduce, only: Optional[Use] = None, control: bool = False) -> None:
        """Tries a rule in all uses, or in one; rules that do not take the model are left out."""
        uses = [use for use in self.uses if only in (None, use) and not self._known(use, rule, reduce)]
        if not uses:
            return
        self.progress("tune", min(len(self.found) // max(1, len(self.ways)), self.most - 1), self.most, rule)
        try:
            relevance = attribute(
                self.flat,
                self.reference,
                self.reference.labels,
                rule=rule,
                reduce=reduce,
                target=self.task.explained(self.reference),
                allow_approximate=True,
                seed=self.seed,
            )
        except ModelError:
            if rule == USUAL:
                raise
            return
        for use in uses:
            self.found.append(self._try(use, relevance, rule, reduce, control))

    def _known(self, use: Use, rule: str, reduce: str) -> bool:
        return any((one.use, one.rule, one.reduce) == (use, rule, reduce) for one, _ in self.found)

    def _try(self, use: Use, relevance: Relevance, rule: str, reduce: str, control: bool) -> tuple[Tried, Optional[_Curve]]:
        """Follows an order, the farthest step first: it tells most, and what is hopeless is given up after it."""
        steps, along = STEPS[use], self.ways[use](relevance)
        shares, limit = _shares(use), self._least(use)
        curves: dict[int, tuple[float, np.ndarray]] = {}
        for number in reversed(range(len(steps))):
            curves[number] = self._damage(along(steps[number]))
            known = sum(shares[one] * max(0.0, whole) for one, (whole, _) in curves.items())
            if known > limit + 1e-3 and not control and number:
                break
        damage = tuple(round(curves[number][0], 4) if number in curves else None for number in range(len(steps)))
        if len(curves) < len(steps):
            return Tried(use, relevance.rule, reduce, steps, damage, None), None
        curve = _Curve(*(np.array([curves[number][part] for number in range(len(steps))]) for part in (0, 1)))
        return Tried(use, relevance.rule, reduce, steps, damage, round(float(shares @ curve.whole), 4), False, control), curve

    def _damage(self, outputs: Any) -> tuple[float, np.ndarray]:
        """Returns what is lost on the samples that judge, and without each group of them."""
        targets = self.judging.y
        group = np.arange(len(self.judging)) % GROUPS
        lost = [self._lost(outputs, targets, chosen) for chosen in (slice(None), *(group != one for one in range(GROUPS)))]
        whole, *without = (WORST if math.isnan(lost[0]) else lost[0], *lost[1:])
        return whole, np.array([whole if math.isnan(one) else one for one in without])

    def _lost(self, outputs: Any, targets: Any, chosen: Any) -> float:
        if not all(np.isfinite(one).all() for one in arrays_of(outputs)) or not len(targets[chosen]):
            return WORST
        task: Any = self.task
        try:
            own, given = (task.score(values[chosen], targets[chosen]) for values in (self.outputs, outputs))
        except NoValue:
            return math.nan
        lost = task.drop(own, given, targets[chosen])
        return WORST if lost is None or not math.isfinite(lost) else float(min(WORST, lost))

    def _candidates(self, use: Use) -> list[tuple[Tried, _Curve]]:
        return [(one, curve) for one, curve in self.found if one.use == use and curve is not None and not one.control]

    def _least(self, use: Use) -> float:
        return min((one.area for one, _ in self._candidates(use) if one.area is not None), default=math.inf)

    def leader(self, use: Use) -> Tried:
        """Returns the candidate with the least area so far; the first of equals."""
        return min(self._candidates(use), key=lambda pair: pair[0].area or 0.0)[0]

    def compose(self, use: Use) -> None:
        """Tries composites, part by part from the output on; the better rule of each part stays."""
        program = Program(self.flat)
        thirds = set(program.thirds().values())
        parts = [one for one in reversed(THIRDS) if one in thirds]
        kinds = {program.kind(path) for path in program.maps}
        if "dense" in kinds and len(kinds) > 1:
            parts.insert(0, "dense")
        of_lrp = [one for one, _ in self._candidates(use) if one.rule in IN_PARTS]
        if len(parts) < 2 or not of_lrp or not self.tells(use):
            return
        start = min(of_lrp, key=lambda one: one.area or 0.0)
        rules, least = dict.fromkeys(parts, start.rule), start.area or 0.0
        for part in parts:
            for rule in IN_PARTS:
                mixed = {**rules, part: rule}
                if len(set(mixed.values())) == 1:
                    continue
                self.add(_named(mixed), self.reduce)
                area = next((one.area for one, _ in self._candidates(use) if one.rule == _named(mixed)), None)
                if area is not None and area < least:
                    rules, least = mixed, area

    def finished(self) -> list[Tried]:
        """Returns all that was tried, the best of every use first."""
        rows: list[Tried] = []
        for use in self.uses:
            shares, mine = _shares(use), self._candidates(use)
            usual = next(curve for one, curve in mine if (one.rule, one.reduce) == (USUAL, self.reduce))
            best, chosen = -math.inf, mine[0][0]
            for one, curve in mine:
                gain = float(shares @ (usual.whole - curve.whole))
                each = shares @ (usual.without - curve.without)
                doubt = math.sqrt((GROUPS - 1) * float(each.var()))
                if gain > max(best, doubt if curve is not usual else -math.inf):
                    best, chosen = gain, one
            named = [replace(one, chosen=one is chosen) for one, _ in self.found if one.use == use]
            rows += sorted(named, key=lambda one: (not one.chosen, math.inf if one.area is None else one.area))
        return rows


def _named(rules: Mapping[str, str]) -> str:
    """Returns the name of a composite, which `attribute` takes: what most parts have goes for all that is not named."""
    given = list(rules.values())
    most = max(given, key=given.count)
    return as_composite({**{part: rule for part, rule in rules.items() if rule != most}, "*": most}).name


def _shares(use: Use) -> np.ndarray:
    """Returns what each step counts in the mean height of the curve, which begins at no damage and nothing done."""
    done = np.array([0.0, *((8.0 - one) / 8.0 if use == "bits" else one for one in STEPS[use])])
    widths = np.diff(done)
    counts = np.append((widths[:-1] + widths[1:]) / 2, widths[-1] / 2)
    return np.asarray(counts / done[-1])
