"""Relevance as pictures: heat maps for images, lines for sequences, bars for tables and layers."""

from __future__ import annotations

import pathlib
from dataclasses import replace
from typing import Any, Optional

import numpy as np

from keras_xaic.arguments import a_path, an, checked, shown, whole
from keras_xaic.data import check_values, real_numbers
from keras_xaic.errors import DataError, PlanError
from keras_xaic.files import PathLike, expanded, telling, writing
from keras_xaic.output_tasks import PerOutput
from keras_xaic.relevance.attribution import Attribution
from keras_xaic.relevance.choices import Start, Target
from keras_xaic.relevance.container import Relevance
from keras_xaic.relevance.heat import AGAINST, FOR, as_drawn, blank_figure, heat_image, input_image, kind_of
from keras_xaic.relevance.inputs import as_inputs

_MANY_BARS = 40
_FOR, _AGAINST = (tuple(value / 255 for value in colour) for colour in (FOR, AGAINST))


def _values(name: str, value: object) -> np.ndarray:
    """The check of arrays that can be drawn."""
    array = real_numbers(name, value)
    check_values(array, name)
    if array.size == 0:
        raise DataError(f"{name} is empty (shape {array.shape})", "the values of one sample")
    return array


@checked(attribution=an(Attribution), count=whole(1))
def save_pictures(
    attribution: Attribution,
    x: Any,
    y: Any = None,
    *,
    out: PathLike,
    count: int = 4,
    target: Target = "true",
    start: Start = "one",
    outputs: PerOutput = None,
    reference: Any = None,
) -> list[pathlib.Path]:
    """Writes one PNG for each of the first samples: the input beside the relevance of its values.

    Images give heat maps of the relevance summed over channels, red for and blue against the target; sequences
    (time, channels) give lines, everything else bars.

    Args:
        attribution: The model, made ready for a rule.
        x: See `attribute`.
        y: See `attribute`.
        out: Directory; it is made if it does not exist.
        count: How many samples.
        target: See `attribute`.
        start: See `attribute`.
        outputs: See `attribute`.
        reference: See `attribute`.

    Returns:
        The files written: ``sample-000.png`` and so on, with the input's name added where there are several inputs.
    """
    inputs = as_inputs(attribution.model, x, y)
    count = min(count, len(inputs))
    where = expanded(out)
    with telling():
        where.mkdir(parents=True, exist_ok=True)
    some = [replace(part.take(slice(0, count)), task=inputs.task) for part in inputs.parts]
    some_y = None if inputs.y is None else [None if one is None else one[:count] for one in inputs.y]
    given = some_y[0] if some_y is not None and len(some_y) == 1 else some_y
    how: Any = {"target": target, "start": start, "outputs": outputs, "reference": reference}
    found = attribution.input_relevance(some, given, batch_size=count, **how)
    written = []
    for i in range(count):
        for name, part, relevance in zip(attribution.model.input_names, some, found):
            ending = f"-{name.replace('/', '_')}" if len(some) > 1 else ""
            path = where / f"sample-{i:03d}{ending}.png"
            title = f"sample {i}, {attribution.rule_name}, target {target}"
            save_figure(plot_sample(part.inputs(slice(i, i + 1))[0], relevance[i], title), path)
            written.append(path)
    return written


@checked(relevance=an(Relevance))
def plot_layers(relevance: Relevance) -> Any:
    """Returns a matplotlib figure with one bar per layer, in network order.

    Args:
        relevance: What to show.
    """
    names = list(relevance.layers)
    figure = blank_figure((7.0, 1.0 + 0.22 * len(names)))
    axes = figure.add_subplot()
    axes.barh(range(len(names)), [relevance.layers[name] for name in names], color="#2b6cb0")
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("relevance of the layer (1 = all that starts)", fontsize=8)
    axes.set_title(f"{relevance.rule}, {relevance.samples} samples", fontsize=9)
    return figure


@checked(path=a_path)
def save_figure(figure: Any, path: PathLike) -> None:
    """Writes a figure as PNG atomically."""
    if not hasattr(figure, "savefig"):
        raise PlanError(f"figure is {shown(figure)}", "a figure of matplotlib")
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=120)


@checked(sample=_values, relevance=_values, title=an(str, words="a text"))
def plot_sample(sample: np.ndarray, relevance: np.ndarray, title: str = "") -> Any:
    """Returns a matplotlib figure with an input beside the relevance of its values.

    Args:
        sample: One input without the batch axis, as the model sees it.
        relevance: Relevance of its values (see `Attribution.input_relevance`), same shape.
        title: Above the picture.

    Raises:
        DataError: If these are no finite numbers, or of two shapes.
    """
    if sample.shape != relevance.shape:
        found = f"sample has the shape {sample.shape}, relevance {relevance.shape}"
        raise DataError(found, "those of one sample", "Take the first of several: relevance[0]")
    sample, relevance = as_drawn(sample), as_drawn(relevance)
    figure = blank_figure((7.0, 3.4))
    figure.suptitle(title, fontsize=9)
    kind = kind_of(sample)
    if kind == "image":
        _image(figure, sample, relevance)
    elif kind == "lines":
        _lines(figure, sample, relevance)
    else:
        _bars(figure, sample.reshape(-1), relevance.reshape(-1))
    return figure


def _image(figure: Any, sample: np.ndarray, relevance: np.ndarray) -> None:
    left, right = figure.subplots(1, 2)
    left.imshow(input_image(sample))
    right.imshow(heat_image(sample, relevance))
    for axes, name in ((left, "input"), (right, "relevance (red for, blue against)")):
        axes.set_title(name, fontsize=8)
        axes.set_axis_off()


def _lines(figure: Any, sample: np.ndarray, relevance: np.ndarray) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(sample, linewidth=0.8)
    upper.set_ylabel("input", fontsize=8)
    total = relevance.sum(-1)
    steps = np.arange(len(total))
    lower.fill_between(steps, np.maximum(total, 0), color=_FOR, step="mid")
    lower.fill_between(steps, np.minimum(total, 0), color=_AGAINST, step="mid")
    lower.set_ylabel("relevance", fontsize=8)
    lower.set_xlabel("step", fontsize=8)


def _bars(figure: Any, sample: np.ndarray, relevance: np.ndarray) -> None:
    axes = figure.add_subplot()
    shown = np.arange(len(relevance))
    label: Optional[str] = "input value"
    if len(relevance) > _MANY_BARS:
        shown = np.sort(np.argsort(-np.abs(relevance))[:_MANY_BARS])
        label = f"input value ({_MANY_BARS} most relevant of {len(relevance)})"
    colors = [_FOR if value > 0 else _AGAINST for value in relevance[shown]]
    axes.bar(range(len(shown)), relevance[shown], color=colors)
    axes.set_xticks(range(len(shown)), [str(i) for i in shown], rotation=90, fontsize=6)
    axes.set_xlabel(label, fontsize=8)
    axes.set_ylabel("relevance", fontsize=8)
