"""What `xaic export` does: the bundle of a model that is compressed already, proved."""

from __future__ import annotations

import os
import pathlib
import shutil
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional, Union, get_args

from keras_xaic import tflite
from keras_xaic.arguments import a_source, an, as_names, checked, one_of, one_of_these
from keras_xaic.bundle import Bundle
from keras_xaic.compression import CompressedModel
from keras_xaic.data import as_data
from keras_xaic.edge.bundle_facts import BundleFacts
from keras_xaic.edge.installed import judge
from keras_xaic.edge.interpreters import get_interpreter
from keras_xaic.errors import EdgeError, ExportError, XaicWarning
from keras_xaic.files import PathLike, tells_machine_errors
from keras_xaic.models import fitted, infer_task, weighted_kernels
from keras_xaic.models.columns import CODES, GRIDS, evened
from keras_xaic.ownership import output
from keras_xaic.pipeline.inputs import load_fitted
from keras_xaic.pipeline.proving import prove as prove_bundle
from keras_xaic.pipeline.workspace import run_fingerprint
from keras_xaic.settings import TARGETS, DataOptions, FileOptions, Target
from keras_xaic.tasks import with_task
from keras_xaic.usual import in_usual_keras

if TYPE_CHECKING:
    from keras_xaic._keras import Model
    from keras_xaic.planning.plan import Plan


@tells_machine_errors
@checked(
    options=an(DataOptions), file=an(FileOptions), calibration=a_source, precision=one_of_these(get_args(tflite.Precision))
)
@in_usual_keras
def export(
    model: Union[Model, CompressedModel, Bundle, PathLike],
    out: PathLike,
    *,
    calibration: Any,
    target: Target = "both",
    precision: Optional[tflite.Precision] = None,
    float_layers: Sequence[str] = (),
    file: Optional[FileOptions] = None,
    prove: bool = True,
    options: Optional[DataOptions] = None,
    overwrite: bool = False,
) -> Bundle:
    """Writes the bundle of a model that is compressed already, and proves it on the interpreters that are installed.

    Args:
        model: What `keras_xaic.apply` returned, a Keras model or its path, or a bundle, whose grids are kept.
        out: Directory of the bundle.
        calibration: Anything that `as_data` takes, or a path; its training part calibrates activation ranges.
        target: ``mobile``, ``micro`` or ``both``.
        precision: What the files compute with (see `keras_xaic.tflite.Precision`); None: what the plan says.
        float_layers: Weight keys that stay float32 in an int8 or weight-only file.
        file: How ``model.tflite`` is written for the programs that will run it.
        prove: Whether the files are run; False marks the bundle as unverified.
        options: How data and model are read.
        overwrite: Replace a bundle that is there already.

    Returns:
        The bundle. What a user should know, e.g. why ``micro/`` is not there, is a `XaicWarning`.

    Raises:
        EdgeError: If an interpreter refuses, crashes, hangs or disagrees. The bundle stays, marked as unverified.
        XaicError: Of the kind that fits what is wrong, before anything is written.
    """
    options, file = options or DataOptions(), file or FileOptions()
    one_of("target", target, TARGETS)
    if file.int2:
        _check_int2(target, prove)
    float_layers = as_names("float_layers", float_layers)
    model = model.path if isinstance(model, Bundle) else model
    with output(out, "bundle", overwrite=overwrite, inputs=[model, calibration]) as place:
        source = _bundle_at(model)
        scaling = options.scaling if source is None else BundleFacts(source).scaling(options.scale, options.offset)
        data = as_data(calibration, *scaling, options.image_size)
        small, data = _compressed(model, options, data)
        loaded = small.model if isinstance(small, CompressedModel) else small
        for name in float_layers:
            one_of("float_layers", name, [kernel.key for kernel in weighted_kernels(loaded)])
        data = with_task(data, infer_task(loaded, data, options.task, options.metric, options.output_weights))
        planned = small.plan.activations if isinstance(small, CompressedModel) else "int8"
        if (precision or planned) == "int8":
            hindered = CODES if file.io in ("uint8", "int8") else "" if loaded is small else GRIDS
            columns = evened(loaded, data.train, data.calibration(options.calibration, _seed_of(small)), hindered)
            small, loaded = (small, loaded) if hindered else (columns.model, columns.model)
            for said in (*columns.left, *columns.said):
                _warn(said)
        settings = ["export", target, precision, list(float_layers), file, prove, options, _grids_of(small)]
        if place.start(run_fingerprint(loaded, data, settings)):
            return _published(place.target)
        shutil.rmtree(place.work / "bundle", ignore_errors=True)  # of an attempt that was interrupted
        samples, classes = (
            data.calibration(options.calibration, _seed_of(small)),
            data.classes or (source.class_names() if source is not None else ()),
        )
        bundle = tflite.export(
            small,
            place.work / "bundle",
            calibration=samples,
            target=target,
            file=file,
            precision=precision,
            float_layers=float_layers,
            warn=_warn,
        )
        bundle.name_classes(classes)
        tflite.Finish.of(file, loaded, samples, classes).write(bundle)
        try:
            if prove:
                prove_bundle(bundle, target, _warn)
            else:
                bundle.mark("It was not run: prove=False.")
        except EdgeError:
            place.publish(bundle.path)  # it is there to be looked at
            raise
        place.publish(bundle.path)
    return Bundle(pathlib.Path(out))


def _check_int2(target: Target, prove: bool) -> None:
    """Refuses INT2 for interpreters that do not know it, and where one of them would judge the file."""
    if target != "mobile":
        raise ExportError(f"int2 with the target {target}", "the target mobile", "Only LiteRT 2.3 or newer runs INT2 weights")
    if prove and not get_interpreter(judge()).knows_int2:
        raise ExportError(
            f"int2 where {judge()} judges files, which does not know INT2",
            "an environment with LiteRT alone, as Python 3.12 and newer have it",
            "Or write the bundle unproved, and run its check/ on the device",
        )


def _bundle_at(model: Any) -> Optional[Bundle]:
    """Returns the bundle that a path leads to; None if it leads to none."""
    found = Bundle(pathlib.Path(model)) if isinstance(model, (str, os.PathLike)) else None
    return found if found is not None and found.keras_model.is_file() else None


def _compressed(
    model: Union[Model, CompressedModel, PathLike], options: DataOptions, data: Any
) -> tuple[Union[Model, CompressedModel], Any]:
    """Returns the model, and the data in the order of its inputs and outputs."""
    bundle = _bundle_at(model)
    model = model if bundle is None else CompressedModel.load(bundle)
    if isinstance(model, CompressedModel):
        return model, fitted(model.model, data)
    return load_fitted(model, options, data)


def _seed_of(small: Any) -> int:
    """Returns the seed that chose the calibration samples before, so that the same files are written again."""
    return small.plan.seed if isinstance(small, CompressedModel) else 0


def _grids_of(small: Union[Model, CompressedModel]) -> Optional[Plan]:
    """Returns what tells two compressed models with equal Keras weights apart."""
    return small.plan if isinstance(small, CompressedModel) else None


def _published(path: pathlib.Path) -> Bundle:
    said = Bundle(path).why_unverified()
    if said is not None:
        raise EdgeError(said)
    return Bundle(path)


def _warn(text: str) -> None:
    warnings.warn(text, XaicWarning, stacklevel=3)
