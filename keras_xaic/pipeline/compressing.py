"""The whole way in one call: attribute, plan, apply, export, verify, report; every finished step is kept."""

from __future__ import annotations

import glob
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional, Union
from warnings import warn

from keras_xaic import tflite
from keras_xaic.arguments import an, checked
from keras_xaic.bundle import Bundle
from keras_xaic.data import Samples
from keras_xaic.edge.interpreters import check_interpreters
from keras_xaic.errors import EdgeError, PlanError, XaicWarning
from keras_xaic.files import PathLike, tells_machine_errors
from keras_xaic.models.columns import CODES, Evened, evened
from keras_xaic.models.frozen import said_of_frozen, thawed
from keras_xaic.models.losses import try_loss
from keras_xaic.models.unlike import unlike_heads
from keras_xaic.output_tasks import AnyTask
from keras_xaic.ownership import Output, output
from keras_xaic.pipeline.activations import chosen_activations, wider_activations
from keras_xaic.pipeline.inputs import check_judged, check_names, load_both
from keras_xaic.pipeline.job import Job
from keras_xaic.pipeline.micro_check import known_target
from keras_xaic.pipeline.pacing import check_pace
from keras_xaic.pipeline.process_state import seeded
from keras_xaic.pipeline.reasons import check_reasons
from keras_xaic.pipeline.run_settings import RunSettings
from keras_xaic.pipeline.workspace import Shared, Workspace, run_fingerprint
from keras_xaic.planning import Budget, Plan, check_plan
from keras_xaic.progress import Progress, silent
from keras_xaic.recipes import RECIPES, Recipe, RecipeLike, get_baselines, get_recipe, recipe_file
from keras_xaic.relevance import Attribution
from keras_xaic.relevance.tried import AUTO
from keras_xaic.report import Report
from keras_xaic.settings import DataOptions, Device, Training
from keras_xaic.training import check_training, predict, sample_weights
from keras_xaic.training.explanations import check_explanations
from keras_xaic.usual import in_usual_keras

if TYPE_CHECKING:
    from keras_xaic._keras import Model


@tells_machine_errors
@checked(
    budget=an(Budget, words="a Budget, e.g. Budget(flash='48kB')"),
    training=an(Training),
    device=an(Device),
    options=an(DataOptions),
)
@in_usual_keras
def compress(
    model: Union[Model, PathLike],
    data: Any,
    *,
    out: PathLike = "compressed",
    budget: Optional[Budget] = None,
    recipe: Union[RecipeLike, Plan] = "auto",
    training: Optional[Training] = None,
    device: Optional[Device] = None,
    options: Optional[DataOptions] = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Report:
    """Compresses a model to a budget, writes the bundle and proves it on an edge interpreter.

    Finished steps are kept in ``OUT.partial``; the same call after an interruption continues there. While it runs, the seeds of
    Python, NumPy and Keras and TensorFlow's op determinism are set for the whole process; afterwards they are as before. Calls
    in several threads take turns; for several at once, use processes.

    Args:
        model: A `keras.Model`, or the path of one.
        data: Anything that `as_data` takes, or a path. Test data is never used to choose anything.
        out: Directory of the bundle.
        budget: What may be spent.
        recipe: The name of a recipe, a `Recipe`, or the path of one in JSON; or a `Plan`, perhaps edited, that is carried out
            as it is.
        training: How to train; None: 10 epochs.
        device: Where the model will run; None: phones, boards and microcontrollers.
        options: How data and model are read.
        overwrite: Replace a bundle that is there already.
        progress: Told how far the work is.

    Returns:
        What `report.json` holds.

    Raises:
        XaicError: Of the kind that fits what is wrong, before any long work where that is possible.
    """
    training, device, options = training or Training(), device or Device(), options or DataOptions()
    check_training(training)
    check_interpreters(device.asked)
    check_pace(budget or Budget(), device)
    plan = recipe if isinstance(recipe, Plan) else None
    chosen = _recipe_of(plan) if plan is not None else get_recipe(recipe)  # type: ignore[arg-type]
    settings = RunSettings(chosen, budget or Budget(), training, device, options, get_baselines(device.baselines), plan)
    files = [model, data, *map(recipe_file, (recipe, *device.baselines))]
    with output(out, "bundle", overwrite=overwrite, inputs=files) as place:
        return carry_out(model, data, settings, place, progress)


def carry_out(
    model: Union[Model, PathLike],
    data: Any,
    settings: RunSettings,
    place: Output,
    progress: Progress = silent,
    shared: Optional[Shared] = None,
) -> Report:
    """Does what the settings say, in a directory that is held.

    Args:
        model: A `keras.Model`, or the path of one.
        data: Anything that `as_data` takes, or a path.
        settings: Everything that was asked for.
        place: Where the bundle goes.
        progress: Told how far the work is.
        shared: What this run shares with others on the same model and data.

    Raises:
        XaicError: As `compress` does.
    """
    chosen, plan, training = settings.recipe, settings.plan, settings.training
    device, options = settings.device, settings.options
    known = None if shared is None else shared.loaded
    loaded, samples_of, task = load_both(model, data, options, progress) if known is None else known
    frozen = said_of_frozen(loaded, training.train_frozen)
    loaded = thawed(loaded) if training.train_frozen else loaded
    if not loaded.trainable_weights:
        settings = replace(settings, training=replace(training, epochs=0))  # there is nothing that training could move
    check_names(loaded, chosen)
    check_judged(task, samples_of, settings.seed)
    try_loss(loaded, task, samples_of.train, training.loss)
    if settings.epochs > 0:
        sample_weights(samples_of.split(seed=settings.seed)[0], training.class_weight)  # said before any long work
    activations = chosen_activations(plan, chosen, settings.budget, device)
    if plan is not None:
        check_plan(plan, loaded)
    if chosen.rule not in (None, "magnitude"):
        # Names layers that the rule cannot treat, before any long work.
        rule = "lrp.epsilon" if chosen.rule == AUTO else chosen.rule
        Attribution(loaded, rule=rule, allow_approximate=not options.strict)
    if settings.training.explanation_loss > 0 and settings.epochs > 0:
        check_explanations(loaded, task, samples_of.train)
    check_reasons(loaded, task, samples_of.judging, settings.budget)
    precision, samples = tflite.PRECISION_OF[activations], samples_of.calibration(options.calibration, settings.seed)
    columns = Evened(loaded)
    if activations == "int8":
        columns = evened(loaded, samples_of.train, samples, CODES if device.file.io in ("uint8", "int8") else "")
        loaded = columns.model
    for said in columns.left:
        warn(said, XaicWarning, stacklevel=2)
    finish = tflite.Finish.of(device.file, loaded, samples, samples_of.classes)
    progress("micro", 0, 1, "can TensorFlow Lite Micro run it?")
    reachable, warning = known_target(device.target, loaded, samples, precision, required="tflm" in device.interpreters)
    progress("micro", 1, 1)
    if place.start(run_fingerprint(loaded, samples_of, settings)):
        return _published(Bundle(place.target))
    with seeded(settings.seed):
        chosen, unlike = _with_float_heads(chosen, loaded, samples, task) if plan is None else (chosen, None)
        if unlike is not None and device.file.io in ("uint8", "int8"):
            raise PlanError(f"outputs of {device.file.io}. {unlike}", "outputs that 8 bits can hold", "Choose {io=float32}")
        wider = wider_activations(chosen, settings.budget, replace(device, target=reachable))
        settings = replace(settings, recipe=chosen.changed(activations=activations))
        if shared is not None:
            shared.identity = run_fingerprint(loaded, samples_of, None)
        job = Job(loaded, samples_of, task, settings, Workspace(place.work, progress, shared=shared), wider, finish=finish)
        job.warnings = [one for one in (warning, frozen, unlike, *columns.left, *columns.said) if one is not None]
        return job.run(place, reachable)


def _with_float_heads(recipe: Recipe, model: Model, samples: Samples, task: AnyTask) -> tuple[Recipe, Optional[str]]:
    """Returns the recipe, with the layers float whose outputs one scale of 8 bits would ruin, and what to say of it.

    A recipe that names its activations or its float layers is left as it is.
    """
    if recipe.rule is None or recipe.activations != "auto" or recipe.float_layers:
        return recipe, None
    heads = unlike_heads(model, predict(model, samples), task)
    if not heads:
        return recipe, None
    said = (
        f"Layers that stay in float32: {', '.join(heads)}. Values of that output have very different sizes, and with one 8-bit "
        "scale for all of them the small ones would be lost. For a file of integers only, scale the targets alike, or give "
        "each value its own output."
    )
    return recipe.changed(float_layers=[glob.escape(key) for key in heads]), said


def _recipe_of(plan: Plan) -> Recipe:
    """Returns the recipe that a plan names; `auto` where that is no recipe that takes plans."""
    found = RECIPES.get(plan.recipe)
    return RECIPES["auto"] if found is None or found.rule is None else found


def _published(bundle: Bundle) -> Report:
    """Returns the report of a bundle whose command was ended between giving it its name and cleaning up."""
    said = bundle.why_unverified()
    if said is not None:
        raise EdgeError(said)
    return Report.load(bundle.report)
