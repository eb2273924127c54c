"""What `xaic explain` does: relevance, tables and pictures in a directory."""

from __future__ import annotations

import functools
import json
import pathlib
from dataclasses import asdict, dataclass
from typing import Any, Optional, Union

from keras_xaic.data import Samples, as_data
from keras_xaic.files import PathLike, tells_machine_errors, write_atomic
from keras_xaic.json_files import read_json
from keras_xaic.models import infer_task
from keras_xaic.ownership import output
from keras_xaic.pipeline.inputs import load
from keras_xaic.pipeline.workspace import run_fingerprint
from keras_xaic.progress import Progress, silent
from keras_xaic.relevance import (
    Attribution,
    Difference,
    LayerRow,
    Relevance,
    as_csv,
    attribute,
    cross_check,
    layer_rows,
    plot_layers,
    save_figure,
    save_pictures,
)
from keras_xaic.tasks import with_task

_DIFFERENCES = "cross_check.json"


@dataclass(frozen=True)
class Explanation:
    """What was found.

    Attributes:
        relevance: Relevance of weights, filters and layers.
        rows: One row per layer.
        differences: Native against iNNvestigate engine, kernel by kernel; empty unless asked for.
    """

    relevance: Relevance
    rows: list[LayerRow]
    differences: list[Difference]


@tells_machine_errors
def explain(
    model: Any,
    data: Any,
    out: PathLike,
    *,
    rule: str = "lrp.epsilon",
    engine: str = "auto",
    target: Union[str, int, None] = None,
    start: str = "one",
    reduce: str = "mean_abs",
    reference: str = "mean",
    calibration: int = 256,
    batch_size: int = 64,
    per_class: bool = False,
    pictures: int = 4,
    check: bool = False,
    seed: int = 0,
    scale: float = 1.0,
    offset: float = 0.0,
    task: Optional[str] = None,
    allow_approximate: bool = False,
    overwrite: bool = False,
    allow_unsafe: bool = False,
    progress: Progress = silent,
) -> Explanation:
    """Attributes a model and writes ``relevance.npz``, ``layers.csv``, ``layers.png`` and pictures of a few inputs.

    An interrupted call continues when it is repeated.

    Args:
        model: A `keras.Model`, or the path of one.
        data: Anything that `as_data` takes, or a path.
        out: Directory to write.
        rule: An attribution rule, or the path of a JSON file with a composite (see `attribute`).
        engine: ``auto``, ``native`` or ``innvestigate``.
        target: See `attribute`; by default the true class, the predicted one without labels, all outputs for regression.
        start: See `attribute`.
        reduce: See `attribute`.
        reference: ``mean`` or ``zeros``, for DeepLIFT and integrated gradients.
        calibration: Number of training samples.
        batch_size: Samples at a time.
        per_class: Also keep the relevance of each class.
        pictures: Number of test samples to draw.
        check: Also run the other engine and compare.
        seed: Seed of the choice of samples.
        scale: The model sees ``x * scale + offset``.
        offset: See `scale`.
        task: Kind of the task (see `keras_xaic.compress`); None infers it.
        allow_approximate: Linearise layers that have no sound rule instead of refusing them.
        overwrite: Replace what is in `out`.
        allow_unsafe: Load models with Lambda layers or pickled code.
        progress: Told how far the work is.

    Raises:
        XaicError: Naming what is wrong.
    """
    given = [model, data, rule if rule.endswith(".json") else None]
    with output(out, "explanation", overwrite=overwrite, inputs=given) as place:
        data = as_data(data, scale, offset)
        loaded = load(model, allow_unsafe, data, progress)
        does = infer_task(loaded, data, task)
        data = with_task(data, does)
        progress("load", 1, 1)
        samples = data.calibration(calibration, seed)
        chosen: Any = read_json(rule) if rule.endswith(".json") else rule
        if target is None:
            target = does.explained(samples)
        settings: dict[str, Any] = {"target": target, "start": start, "reference": reference}
        how = {"reduce": reduce, "per_class": per_class, "seed": seed, "calibration": calibration, "pictures": pictures}
        asked = [chosen, engine, settings, how, batch_size, check, scale, offset, allow_approximate]
        if place.start(run_fingerprint(loaded, data, ["explain", *asked])):
            return _published(place.target, loaded)
        relevance = attribute(
            loaded,
            samples,
            rule=chosen,
            engine=engine,
            reduce=reduce,
            batch_size=batch_size,
            per_class=per_class,
            seed=seed,
            allow_approximate=allow_approximate,
            progress=functools.partial(progress, "attribute"),
            checkpoint=place.work / "attribution.npz",
            **settings,
        )
        differences: list[Difference] = []
        if check:
            differences = cross_check(
                loaded, samples, rule=chosen, progress=functools.partial(progress, "cross-check"), reduce=reduce, **settings
            )
        rows = layer_rows(loaded, relevance)
        with place.fresh() as scratch:
            relevance.save(scratch / "relevance.npz")
            write_atomic(scratch / "layers.csv", as_csv(rows))
            save_figure(plot_layers(relevance), scratch / "layers.png")
            if differences:
                write_atomic(scratch / _DIFFERENCES, json.dumps([asdict(one) for one in differences], indent=1) + "\n")
            if pictures and rule != "magnitude":
                shown: Samples = (data.test or data.train).take(slice(0, pictures))
                drawn = Attribution(loaded, rule=chosen, engine=engine, allow_approximate=allow_approximate)
                if target == "true" and shown.y is None:
                    settings["target"] = "predicted"
                save_pictures(drawn, shown, out=scratch / "pictures", count=pictures, **settings)
    return Explanation(relevance, rows, differences)


def _published(directory: pathlib.Path, model: Any) -> Explanation:
    """Returns the explanation whose command was ended between giving it its name and cleaning up."""
    relevance, kept = Relevance.load(directory), directory / _DIFFERENCES
    differences = [Difference(**one) for one in read_json(kept)] if kept.is_file() else []
    return Explanation(relevance, layer_rows(model, relevance), differences)
