"""What training needs to go on after an interruption, and the weights that were best until then."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Optional

import numpy as np

from keras_xaic._keras import Model, tf
from keras_xaic.data import Samples
from keras_xaic.files import save_arrays, telling, write_atomic
from keras_xaic.identity import digest_of, facts_of
from keras_xaic.output_tasks import AnyTask
from keras_xaic.training.explanations import Taught
from keras_xaic.training.schedule import Epoch, Schedule


def identity_of(
    train: Samples,
    held_back: Samples,
    task: AnyTask,
    schedule: Schedule,
    teacher: Any,
    theirs: Sequence[Any],
) -> str:
    """What tells one training from another; of callbacks the user's, since ours follow from the plan."""
    data = [
        None if array is None else digest_of(array)
        for array in (train.x, train.y, train.weight, held_back.x, held_back.y, *Taught.of(teacher))
    ]
    seen = [(one.scale, one.offset, one.task) for one in (train, held_back)]
    return json.dumps(facts_of([replace(schedule, minutes=None), task, seen, data, theirs]), sort_keys=True)


SPACING = 1.0
"""Seconds of training that an interruption may cost: of epochs that are shorter not every one is kept."""


class State:
    """Everything needed to go on after an interruption, and the best weights so far.

    Args:
        model: The model that trains; it is compiled.
        directory: Where the state is kept; None keeps nothing.
        identity: See `identity_of`; a state of another training is not taken up.
    """

    def __init__(self, model: Model, directory: Optional[pathlib.Path], identity: str) -> None:
        self.model, self.directory = model, directory
        self.best: Optional[list[np.ndarray]] = None
        self.best_value = -np.inf
        self.identity, self.stopped = identity, False
        self._written = time.monotonic()
        self.checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)

    def restore(self) -> tuple[list[Epoch], list[dict[str, Any]]]:
        """Returns the epochs that are done and the state of callbacks, with the model as it was after them."""
        if self.directory is None or not (self.directory / "epochs.json").exists():
            return [], []
        saved = json.loads((self.directory / "epochs.json").read_text())
        if saved.get("identity") != self.identity:
            return [], []  # of other settings: training starts over, and its files take the place of these
        self.checkpoint.restore(str(self.directory / saved["checkpoint"])).expect_partial()
        self.best_value = saved["best_value"] if saved["best_value"] is not None else -np.inf
        if saved["best"] is not None:
            with np.load(self.directory / saved["best"]) as arrays:
                self.best = [arrays[f"{i:04d}"] for i in range(len(arrays.files))]
        self.stopped = saved.get("stopped", False)
        return [Epoch(**epoch) for epoch in saved["epochs"]], saved.get("callbacks", [])

    def save(self, history: list[Epoch], callbacks: Optional[list[dict[str, Any]]], stopped: bool, last: bool) -> None:
        """Keeps the model after an epoch.

        Args:
            history: The epochs that are done.
            callbacks: The states of the user's callbacks; None where there are none. What they record of an epoch is
                recorded once: with them every epoch is kept.
            stopped: Whether training ends here, with epochs left.
            last: Whether it ends here.
        """
        soon = callbacks is None and not last and time.monotonic() - self._written < SPACING
        if self.directory is None or soon:
            return
        with telling():
            self.directory.mkdir(parents=True, exist_ok=True)
            name, best = f"epoch-{len(history)}", None if self.best is None else f"best-{len(history)}.npz"
            if self.best is not None and best is not None:
                save_arrays(self.directory / best, {f"{i:04d}": value for i, value in enumerate(self.best)}, compressed=False)
            self.checkpoint.write(str(self.directory / name))
            value = None if self.best is None else float(self.best_value)
            epochs = [vars(epoch) for epoch in history]
            content = {"checkpoint": name, "best": best, "best_value": value, "epochs": epochs, "identity": self.identity}
            content.update({"callbacks": callbacks or [], "stopped": stopped})
            write_atomic(self.directory / "epochs.json", json.dumps(content))
            for stale in self.directory.glob("*-*.*"):  # epochs.json names others now
                if stale.stem.partition(".")[0] not in (name, f"best-{len(history)}"):
                    stale.unlink()
            self._written = time.monotonic()

    def consider(self, value: float) -> None:
        """Remembers the weights of now if no earlier ones were better."""
        if value < self.best_value:
            return
        found = [variable.numpy() for variable in self.model.variables]
        if all(np.isfinite(one).all() for one in found):  # else outputs are no numbers, and may be right by chance
            self.best_value, self.best = value, found

    def restore_best(self) -> None:
        """Leaves the model with its best weights."""
        if self.best is not None:
            for variable, value in zip(self.model.variables, self.best):
                variable.assign(value)
