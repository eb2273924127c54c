"""The driver of `auto`: rounds of planning and training, judged on validation data, until limits and accuracy are met."""

from __future__ import annotations

import functools
import math
import pathlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic.arguments import keyword_only
from keras_xaic.compression import CompressedModel, apply
from keras_xaic.data import Array, Data, Samples
from keras_xaic.errors import EdgeError, ExportError, XaicError
from keras_xaic.models import channel_groups, remove_branches
from keras_xaic.models.costs import macs
from keras_xaic.output_tasks import AnyTask
from keras_xaic.pipeline.attributing import attribute_by
from keras_xaic.pipeline.filter_order import most_alike
from keras_xaic.pipeline.judging import FEW, Judge, judge_count, judging_parts
from keras_xaic.pipeline.pacing import Pace
from keras_xaic.pipeline.reasons import Reasons
from keras_xaic.pipeline.rounds import Round, Standard
from keras_xaic.pipeline.run_settings import RunSettings
from keras_xaic.pipeline.size_fitting import LATE, SizeFitter
from keras_xaic.planning import Budget, Plan
from keras_xaic.planning.storages import Activations
from keras_xaic.progress import Progress
from keras_xaic.recipes import Recipe
from keras_xaic.relevance import Relevance
from keras_xaic.settings import Training
from keras_xaic.tflite import UNFINISHED, Finish
from keras_xaic.training import predict
from keras_xaic.training.explanations import Taught, explain

if TYPE_CHECKING:
    from keras_xaic._keras import Model

LEAST_MINUTES = 1e-6
"""What a round gets where no time is left."""
FIRST = 0.75
"""Share of the effort that the first round gets under a limit of bytes, in whole epochs, rounded up (`docs/decisions/013`); the
rest corrects what it got wrong."""
ROUNDS = 3
"""Most rounds under limits."""
MARGIN = 0.025
"""Share of the download limit that the first round leaves free: few epochs were seen to make files up to 2.2 % larger."""
ROOM = 0.005
"""Share of the flash that is kept free while filters go: planned again without them, sizes are predicted again, and a few bytes
too many would have kernels looked up."""
CORRECTION = 2 / 3
"""Share of the effort that is left which a correction gets, if it is not the last round."""
GENTLE = 0.25
"""Learning rate of a correction, as a multiple: it goes on from a model that is trained, in the few epochs that are left."""
SPARE = 0.03
"""A limit that is missed by less than this share is used up."""
SHRINKING = (0.5, 0.35, 0.25, 0.18, 0.13, 0.09, 0.065, 0.045)
"""Without limits: size of the rounds as shares of plain int8: of the download, for microcontrollers of flash, too. Each ends in
a model that is kept if it is good enough."""
PART = 1 / 3
"""Without limits: share of the effort that is left which the next round gets."""
DOWNLOAD = 0.6
"""Without limits: download of a round as a share of its flash."""
BITS_ONLY = 0.75
"""Without limits: bits, for microcontrollers flash, as a share of plain int8, of the round that keeps all filters, where no
smaller one is good enough."""


@keyword_only(after=8)
@dataclass
class Driver:
    """Compresses a model to a budget in rounds. Test data is never seen."""

    model: Model
    data: Data
    task: AnyTask
    settings: RunSettings
    relevance: Relevance
    samples: Samples
    directory: pathlib.Path
    progress: Progress
    wider: Sequence[Activations] = ()
    """Types of activations that may take the place of the recipe's where it cannot keep the accuracy, the cheapest first."""
    pace: Optional[Pace] = None
    """What limits of time mean; None: they are predicted alone."""
    finish: Finish = UNFINISHED
    """What files get for the programs that will run them."""

    def run(self) -> tuple[CompressedModel, list[Round]]:
        """Returns the best model and all rounds. Finished training is kept in `directory`; the same call continues there.

        Raises:
            EdgeError: If the interpreter that judges refuses the files of all types of activations; the first refusal.
            ExportError: If there is no file, likewise.
        """
        self.start = time.monotonic()
        self.directory.mkdir(parents=True, exist_ok=True)  # without training nothing else makes it
        self._call_judges()
        rounds: list[Round] = []
        types = (self.settings.recipe.plain_activations, *self.wider)
        refused: Optional[XaicError] = None
        try:
            for one in self._within_limits() if self._limited else self._ever_smaller():
                rounds.append(one)  # those before a refusal stay
        except (EdgeError, ExportError) as error:
            refused, types = error, types[1:]
        if not any(self.standard.is_safe(one) for one in rounds):
            rounds.extend(self._gentler(rounds, types))
        if refused is not None and not rounds:
            raise refused
        return max(rounds, key=self.standard.worth).small, rounds

    def _call_judges(self) -> None:
        """Sets the samples to train on, and those that judge."""
        count = judge_count(sum(macs(self.model).values()))
        self.train, held_back = judging_parts(self.data, self.settings, count)
        self.judges = [Judge.of(self.model, self.task, held_back)]
        if len(held_back) < FEW and self.settings.epochs > 0:
            self.judges.append(Judge.of(self.model, self.task, self.train.take(slice(FEW))))
        first = self.judges[0]
        limited = self.budget.min_similarity is not None
        self.reasons = Reasons.of(self.model, self.task, first.samples, first.outputs) if limited else None

    @property
    def standard(self) -> Standard:
        """What rounds are compared by."""
        return Standard(self.budget, self._packed)

    @property
    def budget(self) -> Budget:
        """What may be spent."""
        return self.settings.budget

    @property
    def _limited(self) -> bool:
        return self.budget.in_size

    def _within_limits(self) -> Iterator[Round]:
        fitter = self._fitter(self.model, self.relevance)
        fitter = self._faithful(fitter, self._for_removal())
        # Training changes no time: without a limit on the download there is nothing that another round could correct.
        first = 1.0 if self.budget.in_time and self.budget.download is None else FIRST
        epochs = math.ceil(self.settings.epochs * first)
        made = fitter.fitting(self._for_removal()).model_copy(update={"budget": self.budget})
        best = self._round(1, fitter.model, made, fitter.relevance, epochs, first)
        yield best
        grown = best.grown
        for number in range(2, ROUNDS + 1):
            following = self._following(best, self.settings.epochs - epochs, grown)
            if following is None:
                return
            is_last = number == ROUNDS or following.layers == best.small.plan.layers
            share = 1.0 if is_last else CORRECTION
            more = math.ceil(share * (self.settings.epochs - epochs))
            one = self._round(number, best.small.trainable, following, None, more, share, best.small.plan, GENTLE)
            yield one
            best, grown = max(best, one, key=self.standard.worth), max(grown, one.grown)
            if is_last:
                break
            epochs += more
        # Training is what overran the limit: without it, the size that is planned is the one that is written.
        following = self._following(best, 0, grown) if self.standard.overrun(best) > 1.0 else None
        if following is not None:
            yield self._round(number + 1, best.small.trainable, following, None, 0, 1.0, best.small.plan)

    def _ever_smaller(self) -> Iterator[Round]:
        fitter = self._fitter(self.model, self.relevance)
        plain = self._plain_bytes(fitter)
        before: Optional[Round] = None
        left = self.settings.epochs
        for number, share in enumerate(SHRINKING, 1):
            limits = self._share_of(plain, share)
            fitter = self._faithful(fitter, limits)
            made = fitter.fitting(limits)
            sizes = (made.predicted_flash_bytes, limits.flash_bytes), (made.predicted_download_bytes, limits.download_bytes)
            if before is not None and any(limit is not None and size > limit for size, limit in sizes):
                return
            removed, epochs = None if before is None else before.small.plan, math.ceil(left * PART)
            before = self._round(number, fitter.model, made, fitter.relevance, epochs, PART, removed)
            yield before
            left -= epochs
            if not self.standard.is_safe(before) or (left == 0 and self.settings.epochs > 0):
                return
            fitter = self._fitter(before.small.trainable)

    def _gentler(self, rounds: Sequence[Round], types: Sequence[Activations]) -> Iterator[Round]:
        """Where no round keeps the accuracy: all filters stay, then plain int8, then activations of more bits.

        What does not fit the limits is left out, and what was tried before. None but the first is trained.
        """
        untrained = [one.small.plan for one in rounds if one.epochs == 0]
        number, left = len(rounds), self.settings.epochs - sum(one.epochs for one in rounds)
        accurate = any(self.standard.is_accurate(one) for one in rounds)
        for activations in types:
            fitter = self._fitter(self.model, self.relevance, self.settings.recipe.changed(activations=activations))
            tries: list[tuple[Budget, int]] = [(self.budget if self._limited else Budget(mean_bits=8), 0)]
            if activations == self.settings.recipe.plain_activations and (left > 0 or not self._limited):
                plain = self._plain_bytes(fitter)
                free = Budget(flash=round(BITS_ONLY * plain)) if self._packed else Budget(mean_bits=8 * BITS_ONLY)
                tries.insert(0, (self._with_margin() if self._limited else free, max(0, left)))
            for limits, epochs in tries:
                try:
                    made = fitter.fitting(limits, filters=False).model_copy(update={"budget": self.budget})
                    if self._limited and not self._fits(made):
                        continue
                    if (epochs == 0 or not made.layers) and any(_does_the_same(made, one) for one in untrained):
                        continue
                    one = self._round(number + 1, self.model, made, fitter.relevance, epochs, 1.0)
                except (EdgeError, ExportError):  # not every layer exists with such activations; a wider type may do
                    continue
                number += 1
                untrained += [one.small.plan] if one.epochs == 0 else []
                yield one
                if self.standard.is_safe(one):
                    return
                accurate = accurate or self.standard.is_accurate(one)
            if accurate:  # wider activations change no reasons
                return

    def _share_of(self, plain: int, share: float) -> Budget:
        """Returns the limits of a round without limits: a share of the flash of plain int8, and what is downloaded of that.

        Flash itself is limited only for microcontrollers: elsewhere packing would cost time (see `PlanOptions.packed`).
        """
        flash = round(plain * share)
        return replace(self.budget, flash=flash if self._packed else None, download=round(DOWNLOAD * flash))

    @property
    def _packed(self) -> bool:
        return self.settings.device.target == "micro"

    @staticmethod
    def _plain_bytes(fitter: SizeFitter) -> int:
        """Returns the measured size of the model as plain int8: what the planner does not know has a size, too."""
        return fitter.fitting(Budget(mean_bits=8), filters=False).predicted_flash_bytes

    def _fits(self, made: Plan) -> bool:
        """Returns whether a plan that keeps all filters is within the limits."""
        sizes = (
            (made.predicted_flash_bytes, self.budget.flash_bytes),
            (made.predicted_download_bytes, self.budget.download_bytes),
            (made.predicted_ram_bytes, self.budget.ram_bytes),
            (sum(macs(self.model).values()), self.budget.macs_limit),
            (made.predicted_slowdown, self._slowest),
        )
        return all(limit is None or size is None or size <= limit for size, limit in sizes)

    @property
    def _slowest(self) -> Optional[float]:
        """The limit of time as a multiple of plain int8's, with what two measurements of one file differ by."""
        slowdown = self.budget.max_slowdown if self.pace is None else self.pace.slowdown(self.budget)
        return None if slowdown is None else slowdown * (1.0 + LATE)

    def _round(
        self,
        number: int,
        model: Model,
        made: Plan,
        relevance: Optional[Relevance],
        epochs: int,
        share: float,
        removed: Optional[Plan] = None,
        rate: float = 1.0,
    ) -> Round:
        start = time.perf_counter()
        small = apply(
            model,
            made,
            self.data,
            relevance=relevance,
            training=self._share(epochs, share, rate),
            teacher=self._answers if epochs and self.train.y is not None else self.model,
            replan=self._replan,
            calibration=len(self.samples),
            checkpoint=self.directory / f"round-{number}",
            progress=self.progress,
        )
        path = self.directory / f"round-{number}.tflite"
        one = Round.of(small, self.samples, path, self.judges, start, self.reasons, self.finish)
        return replace(one, small=replace(small, plan=in_original(small.plan, removed or Plan(), self.model)))

    def _share(self, epochs: int, share: float, rate: float) -> Training:
        """Returns how one round trains: with the seed of all rounds, so that they have the same validation data."""
        minutes = self.settings.training.minutes
        if minutes is not None:
            minutes = max(LEAST_MINUTES, share * (minutes - (time.monotonic() - self.start) / 60))
        rate, seed = rate * self.settings.training.learning_rate, self.settings.seed
        return replace(self.settings.training, epochs=epochs, minutes=minutes, seed=seed, learning_rate=rate)

    @functools.cached_property
    def _answers(self) -> Any:
        """What the original teaches about the training samples: the same in every round."""
        outputs: Array = predict(self.model, self.train)
        if self.settings.training.explanation_loss == 0.0:
            return outputs
        return Taught(outputs, explain(self.model, self.train, self.task, outputs))

    def _fitter(self, model: Model, relevance: Optional[Relevance] = None, recipe: Optional[Recipe] = None) -> SizeFitter:
        """Returns what plans `model` as it stands, by the recipe or a variant of it; for the original the same one again."""
        recipe = recipe or self.settings.recipe
        if model is self.model and recipe.plain_activations in self._fitters:
            return self._fitters[recipe.plain_activations]
        if relevance is None:
            relevance = attribute_by(self.settings.recipe, model, self.samples, self.task, self.settings.seed)
        how: dict[str, Any] = {"pace": self.pace, "packed": self._packed, "seed": self.settings.seed, "progress": self.progress}
        fitter = SizeFitter(model, relevance, recipe, self.data, self.samples, finish=self.finish, **how)
        if model is self.model:
            self._fitters[recipe.plain_activations] = fitter
        return fitter

    @functools.cached_property
    def _fitters(self) -> dict[Activations, SizeFitter]:
        """What plans the original, by types of activations: what bit-widths do to it is measured once."""
        return {}

    def _faithful(self, fitter: SizeFitter, budget: Budget) -> SizeFitter:
        """Returns the fitter whose order of filters leaves the reasons most alike, where these are limited."""
        if self.reasons is None:
            return fitter
        return most_alike(fitter, budget, self.reasons, self.samples, self.task)

    def _replan(self, model: Model, carried_out: Plan) -> Plan:
        """Returns bits and zeros for the model that is left when filters are gone and training has made up for them."""
        limits = self._with_margin() if self._limited else carried_out.budget  # those of the round
        made = self._fitter(model).fitting(limits, filters=False)
        return made.model_copy(update={**gone_with(carried_out), "budget": carried_out.budget})

    def _with_margin(self) -> Budget:
        limit = self.budget.download_bytes
        return self.budget if limit is None else replace(self.budget, download=round((1 - MARGIN) * limit))

    def _for_removal(self) -> Budget:
        limits, flash = self._with_margin(), self.budget.flash_bytes
        if flash is None or not self.settings.recipe.filters:
            return limits
        return replace(limits, flash=round((1 - ROOM) * flash))

    def _is_off(self, one: Round) -> bool:
        """Returns whether the download is to correct: it overruns its limit, or what it leaves could win something back.

        Flash needs no correction: it is measured before training, which does not change it.
        """
        limit = self.budget.download_bytes
        if limit is None or (limit * (1 - SPARE) <= one.download_bytes <= limit):
            return False
        return one.download_bytes > limit or self.standard.may_win(one)

    def _following(self, one: Round, left: int, grown: float = 1.0) -> Optional[Plan]:
        """Returns what another round is to carry out on the trained model, or None where none is worth it.

        That is bits and zeros again if the download is off and they bring it nearer to its limit; else what was planned, where
        something is lost (accuracy, or reasons that are limited) and epochs are `left`: then more training is all there is.
        Other bits without training make a trained model worse, however many bytes they are: without epochs they only serve a
        limit that is overrun, or a model that was not trained either. Where the limit is overrun, the plan is smaller by
        `grown`, the largest factor by which a round was larger than planned.
        """
        overrun = self.standard.overrun(one) > 1.0
        if self._is_off(one) and (left > 0 or overrun or one.epochs == 0):
            limit = self.budget.download_bytes or 0
            aim = limit * (1 - SPARE / 3) / (grown if one.download_bytes > limit else 1.0)
            made = self._fitter(one.small.trainable).fitting(replace(self.budget, download=round(aim)), filters=False)
            if (made.predicted_download_bytes < one.download_bytes) is (one.download_bytes > limit):
                return made.model_copy(update={**gone_with(Plan()), "budget": self.budget})
        if left == 0 or overrun or not self.standard.may_win(one):
            return None
        return one.small.plan.model_copy(update={**gone_with(Plan()), "filters": None})


def gone_with(plan: Plan) -> dict[str, Any]:
    """Returns the entries of a plan that say what is gone."""
    return {"branches": plan.branches, "remove": plan.remove}


def _does_the_same(made: Plan, other: Plan) -> bool:
    """Returns whether two plans make the same of the original without training."""
    removed = [{name: gone for name, gone in one.remove.items() if gone} for one in (made, other)]
    return removed[0] == removed[1] and all(
        getattr(made, name) == getattr(other, name) for name in ("layers", "branches", "rounded", "activations", "lookup")
    )


def in_original(plan: Plan, before: Plan, model: Model) -> Plan:
    """Returns the plan with all that went, by the plan `before` included, in the numbering of the original `model`."""
    branches, remove = {**before.branches, **plan.branches}, {}
    groups = channel_groups(remove_branches(model, branches) if branches else model)
    for name in {**before.remove, **plan.remove}:
        if name not in groups:  # it went with a branch
            continue
        gone = before.remove.get(name, [])
        left = np.setdiff1d(np.arange(groups[name].size), gone)
        remove[name] = sorted([*gone, *left[plan.remove.get(name, [])].tolist()])
    return plan.model_copy(update={"branches": branches, "remove": remove, "filters": None})
