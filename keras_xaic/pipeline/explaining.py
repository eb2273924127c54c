"""What `xaic explain` does: relevance, tables and pictures in a directory."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Optional, Union

from keras_xaic.arguments import an, checked, shown
from keras_xaic.bundle import cached
from keras_xaic.cluster import Cluster, joined
from keras_xaic.data import Samples
from keras_xaic.errors import PlanError
from keras_xaic.files import PathLike, tells_machine_errors, write_atomic
from keras_xaic.json_files import read_json
from keras_xaic.ownership import output
from keras_xaic.pipeline.attributing import Choice, attribute_each
from keras_xaic.pipeline.inputs import load_both, moved, travelling
from keras_xaic.pipeline.tuning import Tuned, search_rules
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
from keras_xaic.relevance.choices import Reduce
from keras_xaic.relevance.tried import AUTO, USES, Use
from keras_xaic.settings import AttributionOptions, DataOptions
from keras_xaic.usual import in_usual_keras

if TYPE_CHECKING:
    from keras_xaic._keras import Model

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

    def _repr_html_(self) -> str:
        """What notebooks show: the layers with their scores as bars."""
        return self.relevance._repr_html_()


@tells_machine_errors
@checked(attribution=an(AttributionOptions), options=an(DataOptions))
@in_usual_keras
def explain(
    model: Union[Model, PathLike],
    data: Any,
    out: PathLike,
    *,
    attribution: Optional[AttributionOptions] = None,
    options: Optional[DataOptions] = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Explanation:
    """Attributes a model and writes ``relevance.npz``, ``layers.csv``, ``layers.png`` and pictures of a few inputs.

    An interrupted call continues when it is repeated.

    Args:
        model: A `keras.Model`, or the path of one.
        data: Anything that `as_data` takes, or a path.
        out: Directory to write.
        attribution: How relevance is computed; None: LRP-epsilon.
        options: How data and model are read.
        seed: Seed of the choice of samples.
        overwrite: Replace what is in `out`.
        progress: Told how far the work is.

    Returns:
        The relevance, its table by layer, and what was compared; the same is written to `out`.

    Raises:
        XaicError: Naming what is wrong.
    """
    how, options = attribution or AttributionOptions(), options or DataOptions()
    if how.cluster is not None:
        _check_paths(model=model, data=data)
    searching = how.tune or how.rule == AUTO
    is_file = how.rule.endswith(".json")
    with output(out, "explanation", overwrite=overwrite, inputs=[model, data, how.rule if is_file else None]) as place:
        given = data
        loaded, data, task = load_both(model, data, options, progress)
        samples = data.calibration(options.calibration, seed)
        chosen: Any = read_json(how.rule) if is_file else how.rule
        target = task.explained(samples) if how.target is None else how.target
        settings: dict[str, Any] = {"target": target, "start": how.start, "reference": how.reference}
        if place.start(run_fingerprint(loaded, data, ["explain", chosen, how, options, seed])):
            return _published(place.target, loaded)
        found: Optional[Tuned] = None
        if searching:
            also = [] if how.rule == AUTO or is_file else [how.rule]
            search = functools.partial(search_rules, loaded, data, task, also=also, seed=seed, progress=progress)
            found = cached(place.work / "rules.json", search, Tuned.save, Tuned.load)
            chosen = found.best("weights")[0]
        if how.cross_check:
            Attribution(loaded, rule=chosen, engine="innvestigate")  # raises what it would raise after the work
        best: dict[Use, Choice] = {use: (chosen, how.reduce) if found is None else found.best(use) for use in USES}

        spread = how.cluster is not None and any(rule != "magnitude" for rule, _ in best.values())
        files = travelling(model, given, options) if spread else {}

        def by(rule: Any, reduce: Reduce, nodes: Optional[Cluster]) -> Relevance:
            first = (rule, reduce) == best["weights"]
            own = replace(how, reduce=reduce)
            if not first:
                own = replace(own, engine="auto", per_class=False)
            if nodes is not None and rule != "magnitude":
                return _spread(nodes, _Asked(rule, own, options, seed, target), loaded, len(samples), progress)
            return attribute(
                loaded,
                samples,
                rule=rule,
                reduce=reduce,
                engine=own.engine,
                per_class=own.per_class,
                checkpoint=place.work / "attribution.npz" if first else None,
                batch_size=how.batch_size,
                seed=seed,
                allow_approximate=not options.strict,
                progress=progress,
                **settings,
            )

        with joined(str(how.cluster), files) if spread else contextlib.nullcontext() as nodes:
            here = functools.partial(by, nodes=nodes)
            relevance = attribute_each(here, best["weights"], best["filters"], best["bits"])
        if found is not None:
            relevance = replace(relevance, tried=found.tried)
        differences: list[Difference] = []
        if how.cross_check:
            differences = cross_check(
                loaded, samples, rule=chosen, progress=functools.partial(progress, "cross-check"), reduce=how.reduce, **settings
            )
        rows = layer_rows(loaded, relevance)
        with place.fresh() as scratch:
            relevance.save(scratch / "relevance.npz")
            write_atomic(scratch / "layers.csv", as_csv(rows))
            save_figure(plot_layers(relevance), scratch / "layers.png")
            if differences:
                write_atomic(scratch / _DIFFERENCES, json.dumps([asdict(one) for one in differences], indent=1) + "\n")
            if how.pictures and chosen != "magnitude":
                some: Samples = data.judging.take(slice(0, how.pictures))
                drawn = Attribution(loaded, rule=chosen, engine=how.engine, allow_approximate=not options.strict)
                if target == "true" and some.y is None:
                    settings["target"] = "predicted"
                save_pictures(drawn, some, out=scratch / "pictures", count=how.pictures, **settings)
    return Explanation(relevance, rows, differences)


@dataclass(frozen=True)
class _Asked:
    """What parts on nodes have in common."""

    rule: Any
    how: AttributionOptions
    options: DataOptions
    seed: int
    target: Any


def _check_paths(**given: Any) -> None:
    for name, path in given.items():
        if not isinstance(path, (str, os.PathLike)):
            raise PlanError(f"{name} is {shown(path)}", "its path: every node of a cluster reads it")


def _spread(nodes: Cluster, asked: _Asked, model: Model, samples: int, progress: Progress) -> Relevance:
    """Returns the relevance to which the nodes of a cluster add up their parts."""
    how = asked.how
    count = min(nodes.size, -(-samples // how.batch_size))
    progress("attribute", 0, 1, f"{count} parts")
    parts = nodes.map(f"{__name__}:{part_of.__name__}", [(asked, number, count) for number in range(count)])
    progress("attribute", 1, 1)
    attribution = Attribution(model, rule=asked.rule, engine=how.engine, allow_approximate=not asked.options.strict)
    return attribution.whole(parts, target=asked.target, start=how.start, seed=asked.seed)


def part_of(places: dict[str, str], asked: _Asked, number: int, parts: int) -> Any:
    """Returns the sums over one part of the samples (see `Attribution.part`); on a node, where the files lie at `places`."""
    how, options = asked.how, moved(asked.options, places)
    model, data, _ = load_both(places["model"], places["data"], options)
    samples = data.calibration(options.calibration, asked.seed)
    return Attribution(model, rule=asked.rule, engine=how.engine, allow_approximate=not options.strict).part(
        samples,
        number=number,
        parts=parts,
        target=asked.target,
        reduce=how.reduce,
        start=how.start,
        reference=how.reference,
        batch_size=how.batch_size,
        per_class=how.per_class,
    )


def _published(directory: pathlib.Path, model: Model) -> Explanation:
    """Returns the explanation whose command was ended between giving it its name and cleaning up."""
    relevance, kept = Relevance.load(directory), directory / _DIFFERENCES
    differences = [Difference(**one) for one in read_json(kept)] if kept.is_file() else []
    return Explanation(relevance, layer_rows(model, relevance), differences)
