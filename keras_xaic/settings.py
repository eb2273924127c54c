"""What the user says about a run, in groups: how to train, where it will run, how the inputs are read.

`Budget`, what may be spent, is the fourth group (`keras_xaic.planning.budget`). Every group is frozen and validates itself
before any work. Fields that the command line offers are declared by `option`; its help panels are made from them.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Literal, Optional, get_args

from keras_xaic.errors import PlanError, choices

Target = Literal["mobile", "micro", "both"]
TARGETS: tuple[Target, ...] = get_args(Target)


def option(default: Any, text: str, *, flag: str = "", kind: Any = None, values: Sequence[str] = ()) -> Any:
    """Returns a field of a group that the command line offers as an option.

    Args:
        default: Its default.
        text: Its help.
        flag: Name of the option where it is not the field's.
        kind: Type on the command line, where it is not that of the default; text where the default is None.
        values: What shells complete.
    """
    return dataclasses.field(default=default, metadata={"help": text, "flag": flag, "kind": kind, "values": tuple(values)})


def require(name: str, value: Any, expected: str, holds: Callable[[Any], bool], whole: bool = False) -> None:
    """Refuses a number that is none, is not finite, or of which `holds` is false.

    Raises:
        PlanError: Naming the setting, what was found and what is expected.
    """
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value) or not holds(value):
        raise PlanError(f"{name} is {value!r}", expected)


def as_names(name: str, value: Any) -> tuple[str, ...]:
    """Returns names as a tuple; one text is one name.

    >>> as_names("protect", "stem"), as_names("protect", ["a", "b"])
    (('stem',), ('a', 'b'))

    Raises:
        PlanError: If there is something else among them.
    """
    found = (value,) if isinstance(value, str) else value
    if not isinstance(found, (tuple, list)) or not all(isinstance(one, str) and one for one in found):
        raise PlanError(f"{name} is {value!r}", "a name, or several")
    return tuple(found)


@dataclass(frozen=True)
class Training:
    """How the model is trained to live within its plan.

    >>> Training(epochs=5).batch_size
    64

    Attributes:
        epochs: Passes over the training data, all stages together; 0 compresses without training; None: 10, or as many as fit
            `minutes`.
        minutes: Time that training may take on this machine, baselines not counted; the same seed then no longer gives the same
            bytes.
        seed: One seed in, the same bytes out on the same machine.
        batch_size: Samples a step.
        learning_rate: First learning rate; it falls along a cosine.
        optimizer: Name of a Keras optimizer, or one that is set up; its own learning rate counts then.
        loss: Takes the place of the task's own loss of the labels beside distillation: a Keras loss, its name, or a function
            ``(labels, outputs)``; labels of classes come one-hot.
        distillation: Weight of the original's outputs in the loss, 0 to 1.
        patience: A stage ends after this many epochs in a row that are no better on validation data; None never ends it early.
        callbacks: Your own Keras callbacks, e.g. `keras.callbacks.TensorBoard`.

    Raises:
        PlanError: Naming the setting that is not usable.
    """

    epochs: Optional[int] = option(
        None, "Passes over the training data, all stages together; default: 10, or what fits --minutes.", kind=int
    )
    minutes: Optional[float] = option(None, "Time that training may take.", kind=float)
    seed: int = option(0, "One seed in, the same bytes out.")
    batch_size: int = 64
    learning_rate: float = 1e-3
    optimizer: Any = "adam"
    loss: Any = None
    distillation: float = 0.7
    patience: Optional[int] = None
    callbacks: Sequence[Any] = ()

    def __post_init__(self) -> None:
        if self.epochs is not None:
            require("epochs", self.epochs, "a whole number, 0 or more", lambda n: n >= 0, whole=True)
        if self.minutes is not None:
            require("minutes", self.minutes, "more than 0", lambda n: n > 0)
        require("seed", self.seed, "a whole number from 0 to 4,294,967,295", lambda n: 0 <= n < 2**32, whole=True)
        require("batch_size", self.batch_size, "a whole number, 1 or more", lambda n: n >= 1, whole=True)
        require("learning_rate", self.learning_rate, "more than 0", lambda n: n > 0)
        require("distillation", self.distillation, "a share from 0 to 1", lambda n: 0 <= n <= 1)
        if self.patience is not None:
            require("patience", self.patience, "a whole number, 1 or more", lambda n: n >= 1, whole=True)
        given = self.callbacks if isinstance(self.callbacks, (tuple, list)) else (self.callbacks,)
        object.__setattr__(self, "callbacks", tuple(given))

    def effort(self, default: int, most: int) -> int:
        """Returns the epochs: those that are given, else `default`, or with a limit of minutes at most `most`."""
        if self.epochs is not None:
            return self.epochs
        return default if self.minutes is None else most


@dataclass(frozen=True)
class Device:
    """Where the model will run, and what it is measured on and compared with there.

    Attributes:
        target: ``mobile`` (phones, Linux boards), ``micro`` (TensorFlow Lite Micro) or ``both``.
        interpreters: Edge interpreters to verify on: names, ``auto`` for the judge alone, or ``all`` that are installed.
        baselines: Recipes to compare with on the same data.

    Raises:
        PlanError: Naming the setting that is not usable.
    """

    target: Target = option("both", "mobile, micro or both.", values=TARGETS)
    interpreters: Sequence[str] = option(
        ("auto",), "Interpreter to verify on: auto, all, or a name of `xaic doctor`.", flag="--interpreter"
    )
    baselines: Sequence[str] = option(("int8", "magnitude"), "Comparisons to run, separated by commas; '' for none.", kind=str)

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise PlanError(f"target is {self.target!r}", choices(self.target, TARGETS))
        object.__setattr__(self, "interpreters", as_names("interpreters", self.interpreters) or ("auto",))
        object.__setattr__(self, "baselines", as_names("baselines", self.baselines) if self.baselines else ())


@dataclass(frozen=True)
class DataOptions:
    """How data and model are read.

    Attributes:
        scale: The model sees ``x * scale + offset``.
        offset: See `scale`.
        calibration: Number of training samples for relevance and activation ranges.
        allow_unsafe: Load models with Lambda layers or pickled code. Only if you trust the file.

    Raises:
        PlanError: Naming the setting that is not usable.
    """

    scale: float = option(1.0, "The model sees x * SCALE + OFFSET.")
    offset: float = option(0.0, "See --scale.")
    calibration: int = option(256, "Training samples for relevance and activation ranges.")
    allow_unsafe: bool = option(False, "Load models with Lambda layers or pickled code. Only if you trust the file.")

    def __post_init__(self) -> None:
        require("scale", self.scale, "a number other than 0", lambda n: n != 0)
        require("offset", self.offset, "a number", lambda n: True)
        require("calibration", self.calibration, "a whole number, 1 or more", lambda n: n >= 1, whole=True)
