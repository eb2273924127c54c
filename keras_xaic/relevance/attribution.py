"""`attribute`: relevance of a model's weights, filters and layers over any number of samples."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Optional, Union, cast

import numpy as np

from keras_xaic._keras import Model, tf
from keras_xaic.arguments import checked, whole
from keras_xaic.data import Data, as_data
from keras_xaic.errors import DataError, ModelError, XaicWarning
from keras_xaic.files import PathLike
from keras_xaic.identity import digest_of
from keras_xaic.models.given import as_model
from keras_xaic.models.losses import carried_losses
from keras_xaic.models.ports import ports_of
from keras_xaic.output_tasks import PerOutput, Tasks, output_weights
from keras_xaic.progress import Progress as WholeProgress
from keras_xaic.relevance.checkpoint import Checkpoint, attribution_fingerprint
from keras_xaic.relevance.choices import Details, EngineName, Reduce, RunDetails, Start, Statistic, Target
from keras_xaic.relevance.composites import Composite, RuleLike, as_composite
from keras_xaic.relevance.container import Relevance, layer_scores
from keras_xaic.relevance.engine import Step
from keras_xaic.relevance.inputs import Inputs, as_inputs, find_reference
from keras_xaic.relevance.magnitude import magnitude
from keras_xaic.relevance.methods import make_engine
from keras_xaic.relevance.program import Program
from keras_xaic.relevance.reduce import Sums, check_reduction, reduce_samples, sample_weights
from keras_xaic.relevance.targets import BatchTargets, Targets, check_start, find_targets, tasks_of
from keras_xaic.usual import in_usual_keras

if TYPE_CHECKING:
    from typing_extensions import Unpack

Progress = Callable[[int, int], None]

PartSums = dict[Optional[int], Sums]
"""Class, or None for all samples -> sums."""
Wanted = Literal["signed", "absolute", "squared", "inputs"]
_CHECKED = 64  # samples that are looked at before work begins


@checked(Details)
@in_usual_keras
def attribute(
    model: Union[Model, PathLike],
    x: Any,
    y: Any = None,
    *,
    rule: RuleLike = "lrp.epsilon",
    target: Target = "true",
    reduce: Reduce = "mean_abs",
    allow_approximate: bool = False,
    progress: Optional[WholeProgress] = None,
    checkpoint: Optional[PathLike] = None,
    **details: Unpack[Details],
) -> Relevance:
    """Returns how much every weight, filter and layer of a model matters.

    Let R_ij,p[n] be the relevance that sample n sends through weight ij at position p of the layer's output, and R_c,p[n] the
    relevance of output channel c there. Positions are summed first, ``R_ij[n] = sum_p R_ij,p[n]`` and
    ``R_c[n] = sum_p R_c,p[n]`` (over all calls where a layer is shared), then the N samples are brought together by `reduce`:

    * ``mean_abs``: ``1/N sum_n |R[n]|`` (default; what ranks filters best), ``rms``: ``sqrt(1/N sum_n R[n]^2)``,
    * ``mean``: ``1/N sum_n R[n]``, ``sum``: ``sum_n R[n]`` (signed, for recipes that prune what is negative),
    * ``momentum``: ``sum_n m^(N-1-n) R[n] / sum_n m^(N-1-n)`` with m = 0.99, a moving average in the samples' order.

    >>> from keras_xaic._keras import keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax", name="out")])
    >>> relevance = attribute(model, np.ones((4, 3), "float32"), np.array([0, 1, 0, 1]))
    >>> relevance.weights["out"].shape, relevance.filters["out"].shape
    ((3, 2), (2,))

    Args:
        model: A built functional or sequential Keras model, which is not changed, or the path of one.
        x: Inputs (N, ...), of several inputs a list in the model's order or a dictionary by name, `Samples`; or `Data`, a path
            or a `tf.data` dataset, of which the training part counts (see `keras_xaic.as_data`).
        y: Labels (N,), one-hot labels, or target values (N, ...); of several outputs as with inputs. Not needed with `Samples`.
        rule: One of `RULE_NAMES`; with parameters as in ``lrp.epsilon:0.01`` (see `keras_xaic.relevance.rules`); or a composite
            (see `as_composite`).
        target: ``true`` (the class in y; all outputs where there are no classes), ``predicted``, a class number, or ``all``.
        reduce: How samples are brought together, see above.
        allow_approximate: Linearise layers without a sound rule instead of refusing them; they are listed in the result.
        progress: Told after every batch how many samples are done, as stage ``attribute``.
        checkpoint: File that keeps what is done; an interrupted call that is repeated with the same file continues. It is
            removed at the end.
        **details: Further keywords:

            * ``engine``: ``native``, ``innvestigate`` (its rule classes; LRP only), or ``auto`` (default), which is ``native``.
            * ``outputs``: where a model with several outputs starts: the name of one, several names, or a weighting
              (``{"digit": 1, "box": 0.5}``); None: at all, with the weights that `Samples` carry, else 1 each.
            * ``start``: ``one`` (default): relevance 1 at the target; over all outputs their values, scaled to a total of 1 in
              absolute terms. ``logit``: the value of the target before softmax or sigmoid. ``squared_error``:
              ``(f_j - y_j)^2`` at every output j (y, or the input itself for auto-encoders). DeepLIFT and the gradient rules
              explain the target's value in either of the first two cases.
            * ``reference``: What DeepLIFT and integrated gradients compare with: ``"mean"`` of the samples (default),
              ``"zeros"``, or an array of one sample's shape (a list of them for several inputs).
            * ``batch_size`` (64): Samples at a time. It bounds memory and does not change the result.
            * ``per_class`` (False): Also keep the relevance of each class's samples, in `Relevance.per_class`.
            * ``seed`` (0): Kept with the result; nothing here is random.

    Returns:
        The relevance, signed or absolute according to `reduce`, under the user's layer names.

    Raises:
        ModelError: Naming every layer the rule cannot treat soundly; or an unknown rule or engine.
        DataError: If data does not fit the model.
    """
    engine = details.pop("engine", "auto")
    rest = cast("RunDetails", details)
    model = as_model(model)
    if isinstance(x, (str, os.PathLike, Data)) or hasattr(x, "element_spec"):
        x = as_data(x).train
    if isinstance(rule, str) and rule == "magnitude":
        how = _Details(**rest)
        check_start(target, how.start)
        check_reduction(reduce)
        return magnitude(model, how.seed)
    attribution = Attribution(model, rule=rule, engine=engine, allow_approximate=allow_approximate)
    told = None if progress is None else functools.partial(progress, "attribute")
    return attribution.run(x, y, target=target, reduce=reduce, progress=told, checkpoint=checkpoint, **rest)


@dataclass(frozen=True)
class _Details:
    """`RunDetails` with their defaults."""

    start: Start = "one"
    outputs: PerOutput = None
    reference: Any = None
    batch_size: int = 64
    seed: int = 0
    per_class: bool = False


@dataclass(frozen=True)
class _Work:
    """What is attributed: inputs, what relevance starts from, what inputs are compared with, and samples in a batch."""

    inputs: Inputs
    targets: Targets
    references: Sequence[np.ndarray]
    size: int

    def batches(self, per_class: bool) -> list[tuple[Optional[int], np.ndarray]]:
        """Returns class or None, and samples, of every batch; of one class each where they are kept apart."""
        return _batches(len(self.inputs), self.size, _classes(self.targets) if per_class else None)


class Attribution:
    """A model made ready for one rule; for callers that attribute again and again while weights change.

    Args:
        model: See `attribute`. Of a Keras 3 model, the weights are those of now.
        rule: See `attribute`; not ``magnitude``, which needs no preparation.
        engine: See `attribute`.
        allow_approximate: See `attribute`.

    Raises:
        ModelError: See `attribute`.
    """

    @checked()
    def __init__(
        self, model: Model, *, rule: RuleLike = "lrp.epsilon", engine: EngineName = "auto", allow_approximate: bool = False
    ) -> None:
        self.model = as_model(model)
        self.program = Program(self.model)
        self.engine, self.engine_name, self.rule_name = make_engine(self.program, rule, engine, allow_approximate)
        self._steps: dict[Any, Any] = {}
        idle = as_composite(rule).idle(self.program.maps) if isinstance(rule, (Composite, Mapping)) else ()
        if idle:
            named = ", ".join(map(repr, idle))
            warnings.warn(f"No layer with a choice of rules fits the composite's entries {named}.", XaicWarning, stacklevel=3)

    def refresh(self) -> None:
        """Takes over the present weights of the model; much cheaper than preparing it again."""
        self.engine.refresh()
        if self.engine_name == "innvestigate":
            self._steps.clear()  # its rules hold copies of the weights

    @checked(RunDetails)
    def run(
        self,
        x: Any,
        y: Any = None,
        *,
        target: Target = "true",
        reduce: Reduce = "mean_abs",
        progress: Optional[Progress] = None,
        checkpoint: Optional[PathLike] = None,
        **details: Unpack[RunDetails],
    ) -> Relevance:
        """Returns the relevance over samples; see `attribute` for the arguments."""
        how = _Details(**details)
        statistic = check_reduction(reduce)
        work = self._work(x, y, target, how.start, how.outputs, how.reference, how.batch_size)
        inputs, targets = work.inputs, work.targets
        batches = work.batches(how.per_class)
        sums = _sums(batches, reduce)
        settings = {
            "rule": (self.rule_name, self.engine_name, str(target), how.start, reduce),
            "batches": (work.size, how.per_class, len(inputs)),
            "seen": [(part.scale, part.offset) for part in inputs.parts],
            "targets": (targets.kinds, targets.weights, [digest_of(value) for value in targets.values]),
            "references": [digest_of(one) for one in work.references],
        }
        keeper = Checkpoint(
            checkpoint, "" if checkpoint is None else attribution_fingerprint(self.model, inputs.stored, settings)
        )
        done = keeper.load(sums)
        samples = sum(len(index) for _, index in batches[:done])
        whole = True  # no batch is half added
        try:
            for owner, index in batches[done:]:
                step = self._step(work, index, statistic, reduce)
                whole = False
                _add(sums, owner, step, len(index))
                done, samples, whole = done + 1, samples + len(index), True
                keeper.save(sums, done)
                if progress is not None:
                    progress(samples, len(inputs))
        except BaseException:
            if whole:
                keeper.save(sums, done, now=True)
            raise
        keeper.remove()
        return self.whole([sums], target=target, start=how.start, seed=how.seed)

    @checked(RunDetails, number=whole(0), parts=whole(1))
    def part(
        self,
        x: Any,
        y: Any = None,
        *,
        number: int,
        parts: int,
        target: Target = "true",
        reduce: Reduce = "mean_abs",
        **details: Unpack[RunDetails],
    ) -> PartSums:
        """Returns the sums over one of several parts of the samples; `whole` makes the relevance over all of them.

        Args:
            x: All samples: what inputs are compared with depends on them.
            y: See `attribute`.
            number: Of the part, from 0.
            parts: How many there are.
            target: See `attribute`.
            reduce: See `attribute`.
            **details: See `attribute`.
        """
        how = _Details(**details)
        statistic = check_reduction(reduce)
        work = self._work(x, y, target, how.start, how.outputs, how.reference, how.batch_size)
        batches = work.batches(how.per_class)
        mine = batches[len(batches) * number // parts : len(batches) * (number + 1) // parts]
        sums = _sums(mine, reduce)
        for owner, index in mine:
            _add(sums, owner, self._step(work, index, statistic, reduce), len(index))
        return sums

    def whole(self, parts: Sequence[PartSums], *, target: Target = "true", start: Start = "one", seed: int = 0) -> Relevance:
        """Returns the relevance over all samples from the sums over all parts, in order.

        Args:
            parts: What `part` returned for each of them.
            target: As it was given to `part`.
            start: As it was given to `part`.
            seed: Kept with the result.
        """
        sums = dict(parts[0])
        for later in parts[1:]:
            for owner, one in later.items():
                sums.setdefault(owner, Sums(one.reduce)).merge(one)
        facts = {"target": str(target), "start": start, "seed": seed}
        classes = {owner: self._relevance(sums[owner], facts, {}) for owner in sorted(one for one in sums if one is not None)}
        return self._relevance(sums[None], facts, classes)

    @checked()
    def input_relevance(
        self,
        x: Any,
        y: Any = None,
        *,
        target: Target = "true",
        start: Start = "one",
        outputs: PerOutput = None,
        reference: Any = None,
        batch_size: int = 64,
        progress: Optional[Progress] = None,
    ) -> list[np.ndarray]:
        """Returns the signed relevance of every input value, one array (N, ...) per input; meant for a few samples."""
        work = self._work(x, y, target, start, outputs, reference, batch_size)
        parts: list[list[np.ndarray]] = [[] for _ in work.inputs.parts]
        for _, index in _batches(len(work.inputs), work.size, None):
            arrays = [np.asarray(array)[: len(index)] for array in self._call("inputs", work, index, "sum")]
            self._check_finite({f"inputs/{number}": array for number, array in enumerate(arrays)}, work.inputs, index)
            for part, array in zip(parts, arrays):
                part.append(array)
            if progress is not None:
                progress(sum(map(len, parts[0])), len(work.inputs))
        return [np.concatenate(part) for part in parts]

    def _work(
        self, x: Any, y: Any, target: Target, start: Start, outputs: PerOutput, reference: object, batch_size: int
    ) -> _Work:
        inputs = as_inputs(self.model, x, y)
        targets, references = self._targets(inputs, target, start, outputs), self._references(inputs, reference)
        size = min(max(1, _checked_size(batch_size) // self.engine.copies), len(inputs))
        return _Work(inputs, targets, references, size)

    def _references(self, inputs: Inputs, reference: object) -> list[np.ndarray]:
        """What the engine compares with, if it does; a wrong one is refused in any case."""
        if self.engine.compares:
            return find_reference(inputs, reference)
        if reference is not None and not (isinstance(reference, str) and reference == "mean"):
            find_reference(inputs, reference)
        return []

    def _targets(self, inputs: Inputs, target: Target, start: Start, outputs: PerOutput) -> Targets:
        some = np.arange(min(len(inputs), _CHECKED))
        self.engine.check([tf.constant(array) for array in inputs.batch(some, len(some))])
        canonical = self.program.canonical
        shapes = [self.program.operations.shapes[key] for key in self.program.operations.outputs]
        names = ports_of(self.model).outputs
        tasks = tasks_of(inputs.y, inputs.parts, shapes, canonical.heads, carried_losses(self.model, names), inputs.task)
        own = inputs.task.weights if isinstance(inputs.task, Tasks) else ()
        weights = own if outputs is None else output_weights(outputs, names)
        needs_values = self.engine.needs_values
        return find_targets(target, start, inputs.y, inputs.parts, shapes, canonical.heads, tasks, needs_values, weights)

    def _step(self, work: _Work, index: np.ndarray, statistic: Statistic, reduce: Reduce) -> dict[str, np.ndarray]:
        found = {name: array.numpy() for name, array in self._call(statistic, work, index, reduce).items()}
        self._check_finite(found, work.inputs, index)
        return found

    def _check_finite(self, found: Mapping[str, np.ndarray], inputs: Inputs, index: np.ndarray) -> None:
        """Refuses relevance that is not finite, naming the layer at which it arises.

        Raises:
            ModelError: If the model's own values, or its relevance, exceed float32 or are not defined.
        """
        wrong = {name.partition("/")[2] for name, array in found.items() if not np.all(np.isfinite(array))}
        if not wrong:
            return
        tensors = self.program.forward([tf.constant(array) for array in inputs.batch(index, len(index))])
        for operation in self.program.operations:
            if not all(bool(tf.reduce_all(tf.math.is_finite(tf.cast(tensors[key], tf.float32)))) for key in operation.outputs):
                raise ModelError(
                    f"the values of layer {operation.path!r} exceed float32 or are not numbers",
                    "finite weights, and inputs in the range that the model was trained with",
                    "Check the weights and the scaling of the inputs",
                )
        paths = [operation.path for operation in self.program.operations]
        layer = [path for path in paths if any(name == path or name.startswith(f"{path}/") for name in wrong)]
        raise ModelError(
            f"{self.rule_name} gives relevance that is not finite{f', first at layer {layer[-1]!r}' if layer else ''}",
            "finite relevance",
            "Choose a rule that damps small sums: {rule=lrp.epsilon:0.01}; or one without them: {rule=lrp.z_plus}",
        )

    def _call(self, wanted: Wanted, work: _Work, index: np.ndarray, reduce: Reduce) -> Any:
        """Runs one padded batch; `wanted` is a statistic, or "inputs" for the relevance of the inputs."""
        targets, size = work.targets, work.size
        key = (wanted, size, targets.kinds, targets.start, targets.heads, targets.weights)
        if key not in self._steps:
            self._steps[key] = self._compiled(wanted, targets)
        padded = np.concatenate([index, np.full(size - len(index), index[-1])])
        xs = [tf.constant(array) for array in work.inputs.batch(index, size)]
        values = [tf.constant(value[padded]) for value in targets.values]
        weights = tf.constant(sample_weights(reduce, len(index), size))
        return self._steps[key](xs, values, weights, [tf.constant(one) for one in work.references])

    def _compiled(self, wanted: Wanted, targets: Targets) -> Any:
        engine = self.engine
        statistic = "signed" if wanted == "inputs" else wanted

        def call(xs: Any, values: Any, weights: Any, references: Any) -> Any:
            step: Step = engine.step(xs, BatchTargets(targets, values, weights), statistic, references)
            if wanted == "inputs":
                return step.inputs
            result = {f"weights/{name}": array for name, array in step.weights.items()}
            for part, arrays in (("filters", step.channels), ("biases", step.biases)):
                result.update({f"{part}/{name}": reduce_samples(array, statistic) for name, array in arrays.items()})
            result["start"] = tf.reduce_sum(tf.abs(step.start))
            return result

        return tf.function(call, autograph=False)

    def _relevance(self, sums: Sums, facts: dict[str, Any], per_class: dict[int, Relevance]) -> Relevance:
        found = sums.result()
        weights, filters = {}, {}
        for key, kernel in self.program.kernels.items():
            weights[key] = found.get(f"weights/{key}", np.zeros(kernel.shape, np.float32))
        for operation in self.program.operations:
            name = self.program.channels_key(operation.path)
            channels = self.program.operations.shapes[operation.outputs[0]][-1]
            if operation.path in self.program.maps or f"filters/{name}" in found:
                filters[name] = found.get(f"filters/{name}", np.zeros(channels or 0, np.float32))
        for name, array in found.items():  # kernels inside recurrent and attention layers
            if name.startswith("weights/"):
                weights.setdefault(name[len("weights/") :], array)
        biases = {name: found[f"biases/{name}"] for name in filters if f"biases/{name}" in found}
        unit = sums.arrays["start"] / (1.0 if sums.reduce == "sum" else sums.weight)
        return Relevance(
            weights=weights,
            filters=filters,
            layers=layer_scores(filters, float(unit)),
            biases=biases,
            rule=self.rule_name,
            engine=self.engine_name,
            reduce=sums.reduce,
            samples=sums.count,
            approximate=self.engine.approximate,
            gates=self.engine.gates,
            per_class=per_class,
            **facts,
        )


def _checked_size(batch_size: int) -> int:
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise DataError(f"batch_size is {batch_size!r}", "a number of samples, at least 1")
    return int(batch_size)


def _classes(targets: Targets) -> np.ndarray:
    if targets.classes is None:
        raise DataError("per_class needs one class per sample", 'target="true" with labels y of shape (N,)')
    return targets.classes


def _sums(batches: Sequence[tuple[Optional[int], np.ndarray]], reduce: Reduce) -> PartSums:
    return {owner: Sums(reduce) for owner in (None, *sorted({owner for owner, _ in batches if owner is not None}))}


def _add(sums: PartSums, owner: Optional[int], step: Mapping[str, np.ndarray], count: int) -> None:
    for one in {None, owner}:
        sums[one].add(step, count)


def _batches(count: int, size: int, classes: Optional[np.ndarray]) -> list[tuple[Optional[int], np.ndarray]]:
    """(class or None, indices) of every batch; batches of one class each where classes are kept apart."""
    groups: list[tuple[Optional[int], np.ndarray]] = [(None, np.arange(count))]
    if classes is not None:
        groups = [(int(number), np.flatnonzero(classes == number)) for number in np.unique(classes)]
    return [(owner, group[i : i + size]) for owner, group in groups for i in range(0, len(group), size)]
