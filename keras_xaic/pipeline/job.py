"""One run of a recipe: the steps and what each hands to the next."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Optional
from warnings import warn

from keras_xaic import edge, tflite
from keras_xaic.arguments import keyword_only
from keras_xaic.bundle import Bundle
from keras_xaic.compression import CompressedModel, apply
from keras_xaic.data import Data, Samples
from keras_xaic.errors import EdgeError, PlanError, XaicWarning
from keras_xaic.files import write_atomic
from keras_xaic.keras_metrics import value_if_any
from keras_xaic.output_tasks import AnyTask
from keras_xaic.ownership import Output
from keras_xaic.pipeline.attributing import attribute_by
from keras_xaic.pipeline.baselines import equal_download_sparsity, run_baseline
from keras_xaic.pipeline.comparing import compare_models
from keras_xaic.pipeline.driver import Driver
from keras_xaic.pipeline.easing import Easing, said_of_easing
from keras_xaic.pipeline.judging import check_numbers_of, column_drops
from keras_xaic.pipeline.measuring import COMPRESSED, ORIGINAL, PLAIN, Measuring, race_files, timed
from keras_xaic.pipeline.original import FILE, measure_original
from keras_xaic.pipeline.pacing import Pace
from keras_xaic.pipeline.proving import (
    MicroProof,
    add_expected_outputs,
    check_agreement,
    measure_micro_arena,
    prove_micro,
    state_warning,
)
from keras_xaic.pipeline.reporting import Outcome, build_report, metric_facts
from keras_xaic.pipeline.rounds import Round
from keras_xaic.pipeline.run_settings import RunSettings
from keras_xaic.pipeline.size_fitting import SizeFitter
from keras_xaic.pipeline.tuning import Tuned, search_rules
from keras_xaic.pipeline.workspace import Workspace
from keras_xaic.planning import Plan
from keras_xaic.planning.storages import Activations
from keras_xaic.recipes import Recipe
from keras_xaic.relevance import Relevance, attribute
from keras_xaic.relevance.tried import AUTO, Tried
from keras_xaic.report import Evidence, Report, write_html
from keras_xaic.settings import DataOptions
from keras_xaic.training import predict

if TYPE_CHECKING:
    from keras_xaic._keras import Model


RUINED = 5.0
"""Per cent of its variance by which one value of an output may always be worse before that is said."""


@keyword_only(after=6)
@dataclass
class Job:
    """One run of a recipe on a model, step by step; every step finds what it did before in the workspace."""

    model: Model
    data: Data
    task: AnyTask
    settings: RunSettings
    work: Workspace
    wider: Sequence[Activations] = ()
    """Types of activations that the driver may choose where the recipe's cannot keep the accuracy."""
    warnings: Sequence[str] = ()
    """What a user should know, found out before the run."""
    rounds: Sequence[Round] = ()
    """What the driver did, where the recipe has one."""
    tried: tuple[Tried, ...] = ()
    """Attribution rules that were tried, where they were searched for."""
    eased: Optional[str] = None
    """What to say where a recipe without limits was not carried out as it is."""
    finish: tflite.Finish = tflite.UNFINISHED
    """What `model.tflite` gets for the programs that will run it."""
    added: tflite.Added = tflite.NOTHING_ADDED
    """The bytes of that."""

    @functools.cached_property
    def pace(self) -> Pace:
        """What limits of time mean."""
        samples = self.data.calibration(self.settings.options.calibration, self.settings.seed)
        return Pace(self.model, samples, self.work.path / f"{PLAIN}.tflite")

    @property
    def test(self) -> Samples:
        """The samples that judge."""
        return self.data.judging

    @property
    def measuring(self) -> Measuring:
        """What runs files on the samples that judge."""
        return Measuring(self.test, self.task, self.work.progress)

    def run(self, out: Output, target: tflite.Target) -> Report:
        """Does every step that is not done yet for what can be reached of the target, and moves the bundle to `out`.

        Where an interpreter refuses the bundle, the next type of activations is tried before that is an error.
        """
        self._find_rules()
        work, seed, recipe = self.work, self.settings.seed, self.settings.recipe
        samples = self.data.calibration(self.settings.options.calibration, seed)
        rows = self.data.calibration_rows(self.settings.options.calibration, seed)
        check_numbers_of(predict(self.model, samples), rows, "x_train")
        original = work.timed("original", lambda: measure_original(self.model, self.data, self.task, work))
        for doubt in original.doubts:
            warn(doubt, XaicWarning, stacklevel=2)
        relevance = None
        if recipe.rule is not None:
            relevance = work.timed("attribute", lambda: self.attribute(samples))
        small = work.timed("compress", lambda: self.compress(recipe, relevance, samples))
        warnings = list(self.warnings)
        bundle = work.timed("export", lambda: self.export(small, samples, target, warnings.append))
        if relevance is not None:
            relevance.save(bundle.relevance)
        try:
            micro, verification, agreement = self.proved(bundle, target, original.outputs)
        except EdgeError as error:
            another = self._with_wider(small.plan.activations, error)
            if another is not None:
                return another.run(out, target)
            bundle.mark(str(error))
            out.publish(bundle.path, keep_work=True)  # it is there to be looked at
            raise
        assert verification.outputs is not None
        outputs = (original.outputs, verification.outputs)
        changes = work.timed(
            "compare",
            lambda: compare_models(self.model, small.model, self.test, self.task, *outputs, seed=seed, progress=work.progress),
        )
        if changes.explanations is not None:
            changes.explanations.save(bundle.explanations)
        measured = self.baselines(small, samples, warnings.append)
        raced = work.timed("race", lambda: self.race(bundle, measured))
        measured = {name: timed(facts, raced.get(name, {})) for name, facts in measured.items()}
        about_files = (*warnings, micro.warning, state_warning(bundle))
        ruined = self.ruined(*outputs)
        cut = edge.said_of_cut(bundle.model, self.test)
        if cut is not None:
            warn(cut, XaicWarning, stacklevel=2)
        about_data = (*original.doubts, original.fault, cut)
        notes = (*about_data, *about_files, ruined, self.widened(small), self.eased, _approximated(relevance))
        outcome = Outcome(
            original=timed(original.facts, raced.get(ORIGINAL, {})),
            reference="edge" if original.fault is None else "keras",
            outputs=outputs,
            small=small,
            bundle=bundle,
            added=self.added,
            relevance=relevance,
            verification=verification,
            raced=raced.get(COMPRESSED, {}),
            agreement=agreement,
            arena_bytes=micro.arena_bytes,
            changes=changes,
        )
        report = build_report(
            self.model,
            self.data,
            self.task,
            self.settings,
            outcome,
            baselines=measured,
            warnings=list(dict.fromkeys(filter(None, notes))),
            seconds=work.seconds,
            rounds=[one.facts() for one in self.rounds],
        )
        report.save(bundle.report)
        bundle.mark(None if verification.error is None else str(verification.error))
        write_html(report, bundle.html, Evidence.read(bundle))
        out.publish(bundle.path)
        if verification.error is not None:
            raise verification.error
        return report

    def _find_rules(self) -> None:
        """Puts the rules that do least damage on validation data in place of the rule ``auto``."""
        recipe, settings = self.settings.recipe, self.settings
        if recipe.rule != AUTO or settings.plan is not None:
            return
        how: dict[str, Any] = {"score": recipe.score, "seed": settings.seed, "progress": self.work.progress}
        found = self.work.timed(
            "tune",
            lambda: self.work.cached(
                "rules.json",
                lambda: search_rules(self.model, self.data, self.task, **how),
                Tuned.save,
                Tuned.load,
                of=["rules", recipe.score, settings.seed],
            ),
        )
        self.tried = found.tried
        self.settings = replace(settings, recipe=recipe.changed(**found.entries))

    def _with_wider(self, refused: Activations, error: EdgeError) -> Optional[Job]:
        """Returns the job with the next type of activations after one whose bundle was refused; None where there is none."""
        recipe, order = self.settings.recipe, (self.settings.recipe.plain_activations, *self.wider)
        left = order[order.index(refused) + 1 :] if recipe.rounds and refused in order else ()
        if not left:
            return None
        said = (
            f"Activations are {left[0]}: the file with {refused} activations was refused ({error.found}). "
            f"The recipe's entry activations={refused} insists on them."
        )
        settings = replace(self.settings, recipe=recipe.changed(activations=left[0]))
        return replace(self, settings=settings, wider=left[1:], warnings=[*self.warnings, said], rounds=(), eased=None)

    def proved(
        self, bundle: Bundle, target: tflite.Target, reference: Any
    ) -> tuple[MicroProof, edge.Verification, dict[str, edge.Agreement]]:
        """Runs the bundle on the interpreters; `reference` are the original's outputs.

        Raises:
            EdgeError: If one refuses, crashes, hangs or disagrees.
        """
        work = self.work
        micro = work.timed("micro", lambda: prove_micro(bundle, target))
        verification = work.timed(
            "verify",
            lambda: edge.verify(
                bundle,
                self.data,
                interpreters=edge.with_judge(bundle, self.settings.device.asked),
                reference=reference,
                options=DataOptions(metric=self.task.own_metrics()),
                progress=work.progress,
            ),
        )
        add_expected_outputs(bundle)
        agreement = work.timed("agreement", lambda: check_agreement(bundle))
        agreement.update({} if micro.agreement is None else {micro.agreement.interpreter: micro.agreement})
        return micro, verification, agreement

    def attribute(self, samples: Samples) -> Relevance:
        """Computes the relevance that the recipe asks for."""
        recipe = self.settings.recipe
        made = self.work.cached(
            "relevance.npz",
            lambda: attribute_by(recipe, self.model, samples, self.task, self.settings.seed, self.work.progress),
            lambda made, path: made.save(path),
            Relevance.load,
            of=[
                *(recipe.rule, recipe.filter_rule, recipe.bits_rule, recipe.reduce, recipe.filter_reduce),
                *(self.settings.options, self.settings.seed),
            ],
        )
        return replace(made, tried=self.tried) if self.tried else made

    def compress(self, recipe: Recipe, relevance: Optional[Relevance], samples: Samples) -> CompressedModel:
        """Runs a recipe; training continues from its checkpoints."""
        settings, checkpoint = self.settings, self.work.path / "train" / recipe.name
        if recipe.baseline is not None:
            how = {"epochs": settings.epochs, "seed": settings.seed, "checkpoint": checkpoint, "progress": self.work.progress}
            return run_baseline(recipe.baseline, self.model, self.data, **how)
        if relevance is None:
            raise PlanError(f"recipe {recipe.name!r} has no attribution rule", "a rule, or a baseline")
        if recipe.rounds and settings.plan is None:
            driver = Driver(
                self.model,
                self.data,
                self.task,
                replace(settings, recipe=recipe),
                relevance,
                samples,
                directory=checkpoint,
                progress=self.work.progress,
                wider=self.wider if recipe is settings.recipe else (),
                pace=self.pace,
                finish=self.finish,
            )
            small, rounds = driver.run()
            self.rounds = rounds if recipe is settings.recipe else self.rounds
            return small
        if settings.plan is None and not settings.budget.in_size:
            scores = relevance
            easing = Easing(
                self.model,
                self.data,
                self.task,
                settings,
                samples,
                self.work,
                lambda one: self.plan(one, scores, samples),
                self.finish,
            )
            tries = easing.run(recipe, relevance)
            if recipe is settings.recipe:
                self.rounds = tries if len(tries) > 1 else ()
                self.eased = said_of_easing(recipe, tries, settings.budget.max_drop)
            return min(tries, key=lambda one: max(one.drop, settings.budget.max_drop)).small
        made = settings.plan or self.work.cached(
            "plan.json", lambda: self.plan(recipe, relevance, samples), Plan.save, Plan.load
        )
        return apply(
            self.model,
            made,
            self.data,
            relevance=relevance,
            training=replace(settings.training, epochs=settings.epochs, seed=settings.seed),
            calibration=settings.options.calibration,
            checkpoint=checkpoint,
            progress=self.work.progress,
        )

    def plan(self, recipe: Recipe, relevance: Relevance, samples: Samples) -> Plan:
        """Returns a plan whose file is measured to fit."""
        packed = self.settings.device.target == "micro"
        how: dict[str, Any] = {"pace": self.pace, "packed": packed, "seed": self.settings.seed, "progress": self.work.progress}
        fitter = SizeFitter(self.model, relevance, recipe, self.data, samples, finish=self.finish, **how)
        return fitter.fitting(self.settings.budget)

    def widened(self, small: CompressedModel) -> Optional[str]:
        """Returns what is said where the driver took other activations than the recipe's."""
        chosen, first = small.plan.activations, self.settings.recipe.plain_activations
        if not self.rounds or self.settings.plan is not None or chosen == first:
            return None
        return (
            f"Activations are {chosen}: no file with {first} activations kept accuracy within the limit on validation data. "
            f"The recipe's entry activations={first} insists on them."
        )

    def ruined(self, before: Any, after: Any) -> Optional[str]:
        """Returns what is said where one of several values side by side is lost, which the mean over them does not show."""
        if self.test.y is None:
            return None
        worst = max(column_drops(self.task, after, before, self.test.y), default=None)
        if worst is None or worst.lost <= max(RUINED, self.settings.budget.max_drop):
            return None
        return (
            f"{worst.name[0].upper()}{worst.name[1:]} is worse by {worst.lost:.0f} % of its variance, which "
            f"{self.task.metric_name} over all values hardly shows. Give the model an output for each value, targets of the "
            "same size, or more bytes."
        )

    def export(self, small: CompressedModel, samples: Samples, target: tflite.Target, warn: Callable[[str], None]) -> Bundle:
        """Writes the bundle; weights in ``micro/`` stay unpacked where unpacking them would overrun the RAM."""

        def write(**how: Any) -> Bundle:
            place = self.work.path / "bundle"
            shutil.rmtree(place, ignore_errors=True)  # an attempt before, with files that were added to it
            return tflite.export(small, place, calibration=samples, target=target, warn=warn, **how)

        self.work.progress("export", 0, 1, "converting, measuring ranges")
        bundle = write()
        if self.settings.budget.ram_bytes is not None:
            with contextlib.suppress(EdgeError):  # it is proved later
                arena = measure_micro_arena(bundle)
                if arena is not None and arena > self.settings.budget.ram_bytes:
                    bundle = write(largest_decoded=0)
        self.added = self.finish.write(bundle)
        bundle.name_classes(self.data.classes)
        self.work.progress("export", 1, 1)
        return bundle

    def baselines(self, small: CompressedModel, samples: Samples, warn: Callable[[str], None]) -> dict[str, Mapping[str, Any]]:
        """Returns the facts of every baseline's file, those left out that no interpreter runs."""
        measured = {}
        for recipe in self.settings.baselines:
            step = functools.partial(self.baseline, recipe, small, samples)
            try:
                measured[recipe.name] = self.work.timed(f"baseline {recipe.name}", step)
            except EdgeError as error:  # what others make of the model may not run; ours does
                warn(f"Baseline {recipe.name} is left out: {error.found}.")
        return measured

    def baseline(self, recipe: Recipe, small: CompressedModel, samples: Samples) -> Mapping[str, Any]:
        """Runs another method with the same data and effort, and measures its file."""
        return self.work.cached(
            f"baseline-{recipe.name}.json",
            lambda: self._measured_baseline(recipe, small, samples),
            lambda facts, path: write_atomic(path, json.dumps(facts)),
            lambda path: dict(json.loads(path.read_text())),
        )

    def _measured_baseline(self, recipe: Recipe, small: CompressedModel, samples: Samples) -> dict[str, Any]:
        if recipe.baseline is None:
            model = self.compress(
                recipe, attribute(self.model, samples, rule=recipe.rule or "magnitude", allow_approximate=True), samples
            )
            content = self.finish(tflite.build_tflite(model, samples))
        else:
            model = run_baseline(
                recipe.baseline,
                self.model,
                self.data,
                epochs=self.baseline_epochs(small),
                seed=self.settings.seed,
                sparsity=equal_download_sparsity(self.model, small),
                checkpoint=self.work.path / "train" / f"baseline-{recipe.name}",
                progress=self.work.progress,
            )
            content = tflite.int8_twin(model.model, samples)  # as the converter writes it, without our slimming
        path = self.work.path / f"baseline-{recipe.name}.tflite"
        write_atomic(path, content)
        return {
            "flash_bytes": len(content),
            "download_bytes": len(tflite.pack_download(content)),
            **metric_facts(self.task, "keras", value_if_any(self.task, predict(model.model, self.test), self.test)),
            **self.measuring.facts(self.measuring.run(path, f"baseline {recipe.name}")),
        }

    def race(self, bundle: Bundle, baselines: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Times the original, the baselines that run and the bundle (see `race_files`)."""
        work = self.work.path
        paths = {ORIGINAL: work / FILE, COMPRESSED: bundle.model}
        paths.update({name: work / f"baseline-{name}.tflite" for name in baselines})
        if PLAIN not in paths and self.settings.budget.in_time:
            paths[PLAIN] = self.pace.written()
        return race_files(paths)

    def baseline_epochs(self, small: CompressedModel) -> int:
        """Returns how long a baseline trains: as long as `small` did where minutes said how long that was."""
        if self.settings.training.minutes is None:
            return self.settings.epochs
        if self.rounds:
            return sum(one.epochs for one in self.rounds)
        return sum(len(stage) for stage in small.history.values())


def _approximated(relevance: Optional[Relevance]) -> Optional[str]:
    """What the report says where relevance has no rule for a layer."""
    if relevance is None or not relevance.approximate:
        return None
    named = ", ".join(relevance.approximate)
    return f"No rule of relevance covers {named}: relevance passes there by the gradient, and is only approximate before it."
