"""What the user says about a run, in groups: how to train, where it will run, how the inputs are read.

`Budget`, what may be spent, is the fourth group (`keras_xaic.budget`). Every group is frozen and validates itself
before any work. Fields that the command line offers are declared by `option`; its help panels are made from them.
"""

from __future__ import annotations

import dataclasses
import numbers
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Optional, Union, get_args

from keras_xaic.arguments import a_path, as_names, keyword_only, one_of, require, settings, shown, two_sizes, yes_no
from keras_xaic.errors import PlanError
from keras_xaic.keras_metrics import metric_names
from keras_xaic.metrics import KINDS, METRICS
from keras_xaic.output_tasks import PerOutput, said_of_outputs
from keras_xaic.relevance.choices import ENGINES, STARTS, EngineName, Reduce, Start
from keras_xaic.relevance.choices import Target as Origin

InputOutput = Literal["uint8", "int8", "float32"]
Target = Literal["mobile", "micro", "both"]
TARGETS: tuple[Target, ...] = get_args(Target)
SYSTEMS = ("cmake", "arduino", "esp-idf", "zephyr")
"""Build systems that `xaic project` writes for."""
ORIGINS = ("true", "predicted", "all")
Reference = Literal["mean", "zeros"]
REFERENCES: tuple[Reference, ...] = get_args(Reference)
SHARED = "Share the samples among a Ray cluster: auto, or HOST:PORT."
"""Help of ``--cluster`` where it is not trials that are shared."""
Rounding = Literal["outputs", "nearest"]
Ranges = Literal["moving_average", "learned", "percentile"]


def option(default: Any, text: str, *, flag: str = "", kind: object = None, values: Sequence[str] = ()) -> Any:
    """Returns a field of a group that the command line offers as an option.

    Args:
        default: Its default.
        text: Its help.
        flag: Name of the option where it is not the field's.
        kind: Type on the command line, where it is not that of the default; text where the default is None.
        values: What shells complete.
    """
    return dataclasses.field(default=default, metadata={"help": text, "flag": flag, "kind": kind, "values": tuple(values)})


def cluster_address(given: object) -> str:
    """Returns the address of a Ray cluster.

    >>> cluster_address("auto"), cluster_address("10.0.0.1:6379")
    ('auto', '10.0.0.1:6379')

    Raises:
        PlanError: If it is none.
    """
    if isinstance(given, str) and re.fullmatch(r"auto|[\w.\[\]:-]+:[0-9]{1,5}", given):
        return given
    raise PlanError(f"cluster is {shown(given)}", "auto, or HOST:PORT of a Ray cluster, e.g. 10.0.0.1:6379")


@settings
@keyword_only(after=2)
@dataclass(frozen=True)
class Training:
    """How the model is fine-tuned under its plan.

    >>> Training(epochs=5).batch_size
    64

    Attributes:
        epochs: Passes over the training data, all stages together; 0 compresses without training; None: 10 (`apply`: 5,
            trials of a search: 2), or as many as fit `minutes`.
        minutes: Time that training may take on this machine, baselines not counted; the same seed then no longer gives the same
            bytes.
        seed: Random seed; the same seed gives the same bytes on the same machine; None: the plan's, else 0.
        batch_size: Samples a step.
        learning_rate: First learning rate; it falls along a cosine.
        optimizer: Name or class of a Keras optimizer, ``legacy`` ones included, or an instance, whose own learning rate is
            used.
        loss: Loss of the labels in place of the task's own; distillation is added to it: a Keras loss, its name, or a function
            ``(labels, outputs)``; labels of classes come one-hot. Of several outputs also a mapping by name.
        distillation: Weight of the original's outputs in the loss, 0 to 1.
        explanation_loss: How strongly training keeps the model's relevance maps close to the original's: the gradient of that
            loss gets this share of the length of the other losses' gradient; 0 leaves it out (see docs/theory.md, Training).
        patience: A stage ends after this many epochs in a row without a better value on validation data; None never ends it
            early.
        callbacks: Your own Keras callbacks, e.g. `keras.callbacks.TensorBoard`, or one alone. To them, each stage of training
            is one `fit`; logs hold ``loss``, ``accuracy`` (for values ``mse``), both with ``val_``, and ``lr``.
            `ReduceLROnPlateau`, `LearningRateScheduler` and others that set the learning rate replace the cosine. They do not
            decide which epoch is kept: that is the metric on validation data. In callbacks `self.model.predict` works as usual,
            `evaluate` does not, because the model is trained on labels and on the original's outputs.
        class_weight: Class, as labels call it -> how much its samples count; weights of single samples come with the data.
        train_frozen: Whether layers that are frozen in the model (``trainable=False``) are trained, too. Otherwise they are
            quantized and pruned as planned, and only the other layers are trained to compensate for it.
        refresh: Training steps between attributions; None: once an epoch while weights become zero under masks (see
            `keras_xaic.pruning.weights.prune_weights`), four times on the grids ``ecq`` and ``ecqx``.
        rounding: How weights that are not trained, such as those of frozen layers, are rounded: so that layer ``outputs``
            change least on calibration data (see `keras_xaic.quantization.round_by_outputs`), or each to its ``nearest`` level.
            Training rounds to nearest.
        activation_ranges: Trains with activations on grids, too (see `keras_xaic.quantization.quantize_activations`); None
            leaves them float until export.
        strategy: Shares every batch among several GPUs of this machine: ``mirrored`` takes all that there are, a
            `tf.distribute.MirroredStrategy` those that it names; None trains on one. `batch_size` is that of all together.

    Raises:
        PlanError: Naming the setting that is not usable.
    """

    epochs: Optional[int] = option(
        None,
        "Passes over the training data, all stages together; default: 10, for trials of a search 2, or what fits the minutes.",
        kind=int,
    )
    minutes: Optional[float] = option(None, "Time that training may take.", kind=float)
    seed: Optional[int] = option(None, "Random seed; the same seed gives the same bytes; default: 0, or the plan's.", kind=int)
    batch_size: int = 64
    learning_rate: float = 1e-3
    optimizer: Any = "adam"
    loss: Any = None
    distillation: float = 0.7
    explanation_loss: float = option(
        0.0, "How much the original's explanations teach beside its outputs, e.g. 0.5; costs training time."
    )
    patience: Optional[int] = None
    callbacks: Sequence[Any] = ()
    class_weight: Optional[Mapping[int, float]] = None
    train_frozen: bool = option(False, "Also train layers that are frozen in the model.")
    refresh: Optional[int] = None
    rounding: Rounding = "outputs"
    activation_ranges: Optional[Ranges] = None
    strategy: Any = option(
        None, "mirrored: share every batch among all GPUs of this machine; default: one GPU.", kind=str, values=("mirrored",)
    )

    def __post_init__(self) -> None:
        checks: dict[str, Any] = {
            "epochs": ("a whole number, 0 or more", lambda n: n >= 0, True),
            "minutes": ("more than 0", lambda n: n > 0),
            "seed": ("a whole number from 0 to 4,294,967,295", lambda n: 0 <= n < 2**32, True),
            "batch_size": ("a whole number, 1 or more", lambda n: n >= 1, True),
            "learning_rate": ("more than 0", lambda n: n > 0),
            "distillation": ("a share from 0 to 1", lambda n: 0 <= n <= 1),
            "explanation_loss": ("a share from 0 to 10", lambda n: 0 <= n <= 10),
            "patience": ("a whole number, 1 or more", lambda n: n >= 1, True),
            "refresh": ("a whole number, 1 or more", lambda n: n >= 1, True),
        }
        for name, check in checks.items():
            if getattr(self, name) is not None or name in ("batch_size", "learning_rate", "distillation", "explanation_loss"):
                object.__setattr__(self, name, require(name, getattr(self, name), *check))
        one_of("rounding", self.rounding, get_args(Rounding))
        if self.activation_ranges is not None:
            one_of("activation_ranges", self.activation_ranges, get_args(Ranges))
            if self.explanation_loss > 0:  # TensorFlow derives the rounding of activations once, not twice
                raise PlanError("explanation_loss and activation_ranges, which do not train together", "one of both")
        kinds = [kind.__name__ for kind in type(self.strategy).__mro__]
        named = self.strategy is None or (isinstance(self.strategy, str) and self.strategy == "mirrored")
        if not named and "MirroredStrategy" not in kinds:
            raise PlanError(f"strategy is {shown(self.strategy)}", "mirrored, or a tf.distribute.MirroredStrategy")
        if self.class_weight is not None:
            object.__setattr__(self, "class_weight", _class_weight(self.class_weight))
        object.__setattr__(self, "train_frozen", yes_no("train_frozen", self.train_frozen))
        given = self.callbacks if isinstance(self.callbacks, (tuple, list)) else (self.callbacks,)
        for one in given:
            if isinstance(one, type) or not hasattr(one, "on_epoch_end") or not hasattr(one, "set_model"):
                raise PlanError(f"callbacks holds {shown(one)}", "Keras callbacks, e.g. keras.callbacks.EarlyStopping()")
        object.__setattr__(self, "callbacks", tuple(given))

    def effort(self, default: int, most: int) -> int:
        """Returns the epochs: those that are given, else `default`, or with a limit of minutes at most `most`."""
        if self.epochs is not None:
            return self.epochs
        return default if self.minutes is None else most


def _class_weight(given: object) -> dict[int, float]:
    if not isinstance(given, Mapping) or not given:
        raise PlanError(f"class_weight is {shown(given)}", "a weight for every class, e.g. {0: 1.0, 1: 5.0}")
    expected = "class numbers, each with a weight of 0 or more"
    found = {
        require("a class of class_weight", key, expected, lambda n: n >= 0, whole=True): require(
            f"class_weight of class {key}", weight, expected, lambda n: n >= 0
        )
        for key, weight in given.items()
    }
    if not any(found.values()):
        raise PlanError(f"class_weight is {shown(given)}", "a weight above 0 for one class or more")
    return found


@settings
@dataclass(frozen=True)
class FileOptions:
    """How ``model.tflite`` is written for the programs that will run it.

    >>> FileOptions(metadata=True).inputs
    'float32'

    Attributes:
        io: What the file takes and gives: ``uint8`` or ``int8`` codes, or ``float32`` values; None: what it computes with, with
            metadata float32 values. The file in ``micro/`` takes what it computes with.
        metadata: Writes TFLite metadata: names of inputs, outputs and classes, and how pixels become what the model sees.
            Android's model binding and MediaPipe Tasks need it. Codes of ``uint8`` images are then their pixels.
        lookup: Whether 2-bit weights may be packed four to a byte (see `keras_xaic.tflite.look_up`); delegates need them plain.
        int2: Writes 2-bit weights of dense layers as INT2: a few percent larger than packed four to a byte, and dozens of times
            as fast. Only LiteRT 2.3 or newer runs the file then, so the target has to be ``mobile``.

    Raises:
        PlanError: Naming the setting that is not usable.
    """

    io: Optional[InputOutput] = option(
        None,
        "uint8, int8 or float32: what model.tflite takes and gives; default: what it computes with, float32 with --metadata.",
        kind=str,
        values=get_args(InputOutput),
    )
    metadata: bool = option(False, "Write TFLite metadata: class names and normalization, for MediaPipe and Android.")
    lookup: bool = option(
        True,
        "Whether 2-bit weights may be packed four to a byte; not for GPUs and NPUs.",
        flag="--lookup/--no-lookup",
    )
    int2: bool = option(False, "Write 2-bit weights of dense layers as INT2: small and fast, for LiteRT 2.3 or newer alone.")

    def __post_init__(self) -> None:
        if self.io is not None:
            one_of("io", self.io, get_args(InputOutput))
        for name in ("metadata", "lookup", "int2"):
            object.__setattr__(self, name, yes_no(name, getattr(self, name)))

    @property
    def inputs(self) -> Optional[InputOutput]:
        """What the file takes and gives; None: what it computes with."""
        return "float32" if self.io is None and self.metadata else self.io


@settings
@dataclass(frozen=True)
class Device:
    """Where the model will run, and what it is measured on and compared with there.

    >>> Device(target="micro", baselines=()).interpreters
    ('auto',)

    Attributes:
        target: ``mobile`` (phones, Linux boards), ``micro`` (TensorFlow Lite Micro) or ``both``.
        interpreters: Edge interpreters to verify on: names, ``auto`` for the judge alone, or ``all`` that are installed.
        baselines: Recipes to compare with on the same data; ``all`` that there are, None or ``()`` for none. Those that train
            take as long as the recipe itself.
        file: What ``model.tflite`` takes and gives, and whether it has metadata; their bytes count against the budget. The
            other fields of `FileOptions` are for `keras_xaic.export` alone.

    Raises:
        PlanError: Naming the setting that is not usable.
    """

    target: Target = option("both", "mobile, micro or both.", values=TARGETS)
    interpreters: Sequence[str] = option(
        ("auto",), "Interpreter to verify on: auto, all, or a name of `xaic doctor`.", flag="--interpreter"
    )
    baselines: Sequence[str] = option(
        ("int8",), "Comparisons to run, separated by commas; all for every one, '' for none.", kind=str
    )
    file: FileOptions = dataclasses.field(default_factory=FileOptions)

    def __post_init__(self) -> None:
        one_of("target", self.target, TARGETS)
        if not isinstance(self.file, FileOptions):
            raise PlanError(f"file is {shown(self.file)}", "FileOptions, e.g. FileOptions(io='float32')")
        if self.file.int2 or not self.file.lookup:
            raise PlanError("a device's file with int2 or without lookup", "io and metadata", "Give the others to xaic.export")
        if self.target == "micro" and self.file != FileOptions():
            raise PlanError(
                "io or metadata for the target micro, whose file takes what it computes with",
                "the target mobile or both",
                "Leave them out",
            )
        object.__setattr__(self, "interpreters", as_names("interpreters", self.interpreters) or ("auto",))
        without = self.baselines is None or (isinstance(self.baselines, str) and not self.baselines)
        object.__setattr__(self, "baselines", () if without else as_names("baselines", self.baselines))

    @property
    def asked(self) -> Union[str, Sequence[str]]:
        """The interpreters: ``auto``, ``all``, or a tuple of names."""
        return self.interpreters[0] if tuple(self.interpreters) in (("auto",), ("all",)) else self.interpreters


def _sizes(given: object) -> tuple[int, ...]:
    """Returns a shape that is written as ``128,128,3`` or given as numbers."""
    parts = given.replace("x", ",").strip("()").split(",") if isinstance(given, str) else given
    texts = [str(part).strip() for part in parts if str(part).strip()] if isinstance(parts, (list, tuple)) else []
    if not texts or not all(text.isdigit() and int(text) > 0 for text in texts):
        raise PlanError(f"input_shape is {shown(given)}", "sizes without the batch, e.g. 128,128,3")
    return tuple(int(text) for text in texts)


@settings
@keyword_only(after=2)
@dataclass(frozen=True)
class DataOptions:
    """How data and model are read, and what is measured on them.

    >>> DataOptions(scale=1 / 255, task="classification").scaling
    (0.00392156862745098, 0.0)

    Attributes:
        scale: The model sees ``x * scale + offset``; None: 1, or what a bundle remembers.
        offset: See `scale`; None: 0, or what a bundle remembers.
        image_size: Height and width that images of a directory are resized to: ``(96, 96)`` or ``"96x96"``; None: they must all
            have the same.
        calibration: Number of training samples for relevance and activation ranges.
        task: Kind of the task, one of `keras_xaic.metrics.KINDS`; None: what the output, the model's loss and the targets say.
            Of several outputs by name, a mapping or ``"digit=classification,box=regression"``.
        metric: What chooses epochs and judges: a name of `keras_xaic.metrics.METRICS` or of Keras, or a class, an instance or
            a function of `keras.metrics`; None: the task's usual one. Of several outputs by name, like `task`. Also a function
            of your own of targets and outputs, or a `keras.metrics.Metric` of your own: better the higher it is, unless its
            name says error, loss, distance ..., or its attribute ``better`` says ``lower``. Drops are then in percent of the
            original's value, and if that is 0, any loss misses the limit; `verify` and the check on the device judge by it
            only where it is given to them.
        output_weights: How much each of several outputs counts in relevance, planning, training and the choice of epochs:
            a mapping, names (the others count 0), or ``"digit=1,box=0.5"``; None: all the same.
        input_shape: Sizes for the model's free dimensions in place of the data's, without the batch: ``(128, 128, 3)`` or
            ``"128,128,3"``; of several inputs those of the first.
        allow_unsafe: Load models with Lambda layers or pickled code. Only if you trust the file.
        custom_objects: A Python file with classes and functions that the model needs. Needs `allow_unsafe`.
        architecture: For weights without a model: a ``.json`` of `model.to_json`, or ``FILE.py:FUNCTION`` (needs
            `allow_unsafe`).
        strict: Refuse a model with layers that the attribution rule cannot treat, instead of passing relevance through them by
            the gradient, which the report says.

    Raises:
        PlanError: Naming the setting that is not usable.
    """

    scale: Optional[float] = option(
        None, "The model sees x * SCALE + OFFSET; default: 1, or what a bundle remembers.", kind=float
    )
    offset: Optional[float] = option(None, "See --scale; default: 0, or what a bundle remembers.", kind=float)
    image_size: Union[str, Sequence[int], int, None] = option(
        None, "Height and width that images of a directory are resized to, e.g. 96x96; default: all have the same.", kind=str
    )
    calibration: int = option(256, "Training samples for relevance and activation ranges.")
    task: PerOutput = option(
        None,
        f"{', '.join(KINDS)}, or OUTPUT=TASK,...; default: what output, loss and targets say, or a bundle remembers.",
        kind=str,
        values=KINDS,
    )
    metric: PerOutput = option(
        None,
        f"What chooses epochs and judges: {', '.join(METRICS)}, or OUTPUT=METRIC,...; default: the task's usual one, "
        "or what a bundle remembers.",
        kind=str,
        values=tuple(METRICS),
    )
    output_weights: PerOutput = option(
        None, "How much each of several outputs counts: OUTPUT=WEIGHT,... or names, the others not at all.", kind=str
    )
    input_shape: Union[str, Sequence[int], None] = option(
        None, "Sizes for the model's free dimensions, e.g. 128,128,3; default: the data's.", kind=str
    )
    allow_unsafe: bool = option(False, "Load models with Lambda layers or pickled code. Only if you trust the file.")
    custom_objects: Union[str, os.PathLike[str], None] = option(
        None, "FILE.py with classes and functions that the model needs; with --allow-unsafe.", kind=str
    )
    architecture: Optional[str] = option(
        None, "For weights alone: a .json of model.to_json(), or FILE.py:FUNCTION with --allow-unsafe.", kind=str
    )
    strict: bool = option(False, "Refuse layers that the attribution rule cannot treat; default: the gradient passes through.")

    def __post_init__(self) -> None:
        if self.scale is not None:
            object.__setattr__(self, "scale", require("scale", self.scale, "a number other than 0", lambda n: n != 0))
        if self.offset is not None:
            object.__setattr__(self, "offset", require("offset", self.offset, "a number", lambda n: True))
        if self.image_size is not None:
            object.__setattr__(self, "image_size", two_sizes("image_size", self.image_size))
        if self.input_shape is not None:
            object.__setattr__(self, "input_shape", _sizes(self.input_shape))
        for name in ("custom_objects", "architecture"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, a_path(name, getattr(self, name)))
        calibration = require("calibration", self.calibration, "a whole number, 1 or more", lambda n: n >= 1, whole=True)
        object.__setattr__(self, "calibration", calibration)
        for one in said_of_outputs(self.task):
            one_of("task", one, KINDS)
        object.__setattr__(self, "metric", metric_names(self.metric))
        for name in ("allow_unsafe", "strict"):
            object.__setattr__(self, name, yes_no(name, getattr(self, name)))

    @property
    def scaling(self) -> tuple[float, float]:
        """Scale and offset as numbers."""
        return 1.0 if self.scale is None else self.scale, 0.0 if self.offset is None else self.offset


@settings
@keyword_only(after=4)
@dataclass(frozen=True)
class AttributionOptions:
    """How relevance is computed; see `keras_xaic.attribute` for what the choices mean.

    Attributes:
        rule: An attribution rule, the path of a JSON file with a composite, or ``auto``: what `tune` finds.
        engine: ``auto``, ``native`` or ``innvestigate``.
        target: Where relevance starts: ``true``, ``predicted``, ``all`` or a class number; None: the true class, the predicted
            one without labels, all outputs of values.
        start: With how much: ``one``, ``logit`` or ``squared_error``.
        reduce: How samples are brought together: ``mean_abs``, ``rms``, ``mean``, ``sum`` or ``momentum``.
        reference: ``mean`` or ``zeros``, for DeepLIFT and integrated gradients.
        batch_size: Samples at a time; bounds memory.
        per_class: Also keep the relevance of each class.
        pictures: Number of test samples to draw.
        cross_check: Also run the other engine and compare.
        tune: Search for the rules that do least damage on validation data, beside `rule`, and keep what each of them did.
        cluster: A Ray cluster whose nodes share the samples: ``auto`` or HOST:PORT, as for `SearchOptions`; None: this machine.

    Raises:
        PlanError: Naming the setting that is not usable.
    """

    rule: str = option("lrp.epsilon", "Attribution rule, a JSON file with a composite, or auto, which searches for one.")
    engine: EngineName = option("auto", "auto, native or innvestigate.", values=ENGINES)
    target: Optional[Origin] = option(None, "true, predicted, all or a class number.", kind=str)
    start: Start = option("one", "one, logit or squared_error.", values=STARTS)
    reduce: Reduce = option("mean_abs", "mean_abs, rms, mean, sum or momentum over samples.", values=get_args(Reduce))
    reference: Reference = option("mean", "mean or zeros, for DeepLIFT and integrated gradients.", values=REFERENCES)
    batch_size: int = option(64, "Samples at a time; bounds memory.")
    per_class: bool = option(False, "Also keep the relevance of each class.")
    pictures: int = option(4, "Test samples to draw.")
    cross_check: bool = option(False, "Run both engines and print the largest difference per layer.")
    tune: bool = option(False, "Try rules on validation data, print what each does, and take the best: takes minutes.")
    cluster: Optional[str] = option(None, SHARED, kind=str)

    def __post_init__(self) -> None:
        if isinstance(self.target, str) and self.target.lstrip("-").isdigit():
            object.__setattr__(self, "target", int(self.target))
        check_rule_text(self.rule)
        for name, known in (
            ("engine", ENGINES),
            ("start", STARTS),
            ("reduce", get_args(Reduce)),
            ("reference", REFERENCES),
        ):
            one_of(name, getattr(self, name), known)
        if self.target is not None and (isinstance(self.target, bool) or not isinstance(self.target, numbers.Integral)):
            one_of("target", self.target, ORIGINS)
        require("batch_size", self.batch_size, "a whole number, 1 or more", lambda n: n >= 1, whole=True)
        require("pictures", self.pictures, "a whole number, 0 or more", lambda n: n >= 0, whole=True)
        if self.cluster is not None:
            object.__setattr__(self, "cluster", cluster_address(self.cluster))
        for name in ("per_class", "cross_check", "tune"):
            object.__setattr__(self, name, yes_no(name, getattr(self, name)))


def check_rule_text(rule: object) -> None:
    """Refuses what is not a text; which rules there are, relevance knows.

    Raises:
        PlanError: Naming what was found.
    """
    if not isinstance(rule, str) or not rule or "\0" in rule:
        raise PlanError(
            f"rule is {shown(rule)}", "the name of an attribution rule, or the path of a JSON file with a composite"
        )
