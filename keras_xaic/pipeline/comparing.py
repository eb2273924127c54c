"""What compression changed beyond the total: outputs per class, and what the model looks at."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic.data import Array, Parts, Samples, arrays_of
from keras_xaic.errors import ModelError
from keras_xaic.models import Task
from keras_xaic.output_tasks import AnyTask, Tasks
from keras_xaic.pipeline.reasons import COMPARED, RULE, TAKEN, Likeness, explained, together, way_of
from keras_xaic.pipeline.removal import removal_similarity
from keras_xaic.progress import Progress, silent
from keras_xaic.relevance import Attribution, Explanations, mean_similarity

if TYPE_CHECKING:
    from keras_xaic._keras import Model

BATCH = 16
"""Samples whose relevance is computed at a time: one size for all, since compiling a large model takes longer than using it."""
SHOWN = 6
"""Samples of each group whose relevance is kept as pictures."""
MOST_CHANGED = 4
"""Samples that are shown because their explanations changed most."""
YARDSTICKS = tuple(field.name for field in fields(Likeness))
CONFUSIONS = 3
"""Classes that are named as what a class is mistaken for."""


@dataclass(frozen=True)
class Changes:
    """What compression changed.

    Attributes:
        classes: One entry per class for report.json; empty where nothing is classified.
        facts: How explanations were compared, and the samples that are shown, for report.json; None where the rule does not
            take the model, or gives relevance that is not finite.
        similarity: Means of the yardsticks (see `Likeness`), ``spearman`` first; each None where there is none.
        outputs: The same for each of several outputs alone, by name.
        explanations: A few samples with their relevance; None where there is none.
    """

    classes: list[dict[str, Any]]
    facts: Optional[dict[str, Any]]
    similarity: dict[str, Optional[float]]
    outputs: dict[str, dict[str, Optional[float]]]
    explanations: Optional[Explanations]


def compare_models(
    original: Model,
    small: Model,
    test: Samples,
    task: AnyTask,
    before: Array,
    after: Array,
    seed: int = 0,
    progress: Progress = silent,
) -> Changes:
    """Compares the outputs and the explanations of two models.

    Of several outputs, relevance starts at all that count; classes are those of the first output that gives some. Of several
    inputs, the similarity is that of all maps together, and the largest input is shown.

    Args:
        original: The Keras model that came in.
        small: The compressed Keras model, whose weights are those of the written file.
        test: The samples that judge.
        task: What the models do.
        before: (N, ...) outputs of the original, `Parts` of several.
        after: (N, ...) outputs of the compressed file on an edge interpreter.
        seed: Of the choice of samples.
        progress: Told how far the work is.
    """
    test = replace(test, task=task)
    own, truth, answers, name = _judging(task, test, before, after)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(test))[:COMPARED])
    meant, named = explained(task, test, before)
    decided, _ = explained(task, replace(test, y=None), after)

    size = min(BATCH, len(chosen))

    def maps(way: Attribution, index: np.ndarray, of: Samples, outputs: Optional[str] = None) -> list[np.ndarray]:
        count, index = len(index), np.resize(index, max(size, len(index)))  # few samples as a batch, for what is compiled
        part = replace(of, x=of.x[index], y=None if of.y is None else of.y[index])
        note = "relevance of inputs" if outputs is None else f"relevance of inputs for {outputs}"

        def tell(done: int, total: int, note: str = note) -> None:
            progress("compare", done, total, note)

        found = way.input_relevance(part, target=named, outputs=outputs, batch_size=size, progress=tell)
        return [array[:count] for array in found]

    def alike(removal: np.ndarray, output: Optional[str] = None) -> Likeness:
        own, other = (together(maps(way, chosen, meant, output)) for way in ways)
        return Likeness.of(own, other, removal)

    some = np.unique(np.linspace(0, len(chosen) - 1, TAKEN).astype(int))
    taken, alone = test.take(chosen[some]), _each_alone(task)
    tasks = [task, *alone.values()]
    removed = np.full((len(tasks), len(chosen)), np.nan)
    try:
        ways = [way_of(model) for model in (original, small)]
        removed[:, some] = removal_similarity(original, small, taken, tasks, before[chosen[some]], progress)
        likeness = alike(removed[0])
        each = {output: alike(removal, output).facts() for output, removal in zip(alone, removed[1:])}
        shown, groups = _shown(truth, answers, len(test), chosen[np.argsort(likeness.spearman, kind="stable")[:MOST_CHANGED]])
        first, second = (maps(way, shown, meant) for way in ways)
        answered = maps(ways[1], shown, decided)
    except ModelError:
        return Changes(_classes(truth, answers, None, chosen, own, name), None, dict.fromkeys(YARDSTICKS), {}, None)
    of_shown = Likeness.of(together(first), together(second))
    said = "predicted" if named == "true" and test.y is None else named
    listed = [
        {
            "sample": int(index),
            "group": group,
            "truth": None if truth is None else int(truth[index]),
            "original_answer": None if answers is None else int(answers[0][index]),
            "answer": None if answers is None else int(answers[1][index]),
            "similarity": float(of_shown.spearman[place]),
            "cosine": float(of_shown.cosine[place]),
            "top10": float(of_shown.top10[place]),
        }
        for place, (index, group) in enumerate(zip(shown, groups))
    ]
    facts = {"rule": RULE, "samples": len(chosen), "target": said, "shown": listed}
    place = max(range(len(first)), key=lambda number: (first[number].ndim, first[number].size, -number))
    if isinstance(test.x, Parts):
        facts["input"] = test.x.named(place)
    pictured = (test.feeds(shown)[place], first[place], second[place], answered[place])
    kept = Explanations(shown, *(one[:, None] if one.ndim == 1 else one for one in pictured))  # one number is a picture, too
    return Changes(_classes(truth, answers, likeness, chosen, own, name), facts, likeness.facts(), each, kept)


def _each_alone(task: AnyTask) -> dict[str, Tasks]:
    """Returns the name of each of several outputs -> the task in which it alone counts; nothing where there is one output."""
    if not isinstance(task, Tasks):
        return {}
    every = range(len(task.names))
    return {name: replace(task, weights=tuple(float(one == place) for one in every)) for place, name in enumerate(task.names)}


def _judging(
    task: AnyTask, test: Samples, before: Array, after: Array
) -> tuple[Optional[Task], Optional[np.ndarray], Optional[tuple[np.ndarray, np.ndarray]], Optional[str]]:
    """Returns the task that gives classes, true classes, those that both models decide for, and which of several outputs it is.

    None stands for each that there is not.
    """
    own, y, name = task, test.y, None
    given: Any = (before, after)
    if isinstance(task, Tasks):
        number = next((one for one in task.counted if task.tasks[one].classifies), None)
        if number is None:
            return None, None, None, None
        own, name = task.tasks[number], task.names[number]
        y, given = None if y is None else arrays_of(y)[number], (arrays_of(before)[number], arrays_of(after)[number])
    assert isinstance(own, Task)
    if not own.classifies:
        return own, None, None, name
    truth = None if y is None else own.truth(np.asarray(y), (len(y), own.outputs))
    return own, truth, (np.asarray(own.decisions(given[0])), np.asarray(own.decisions(given[1]))), name


def _shown(
    truth: Optional[np.ndarray], answers: Optional[tuple[np.ndarray, np.ndarray]], count: int, changed: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Numbers and groups of the samples to show: those that `changed` most, then newly wrong ones, then others.

    Of these every class in turn, in the order of the data. Where the original is right about none, the first ones stand for
    all.
    """
    left = ~np.isin(np.arange(count), changed)
    others, groups = _groups(truth, answers, left)
    return np.concatenate([changed, others]), ["most changed"] * len(changed) + groups


def _groups(
    truth: Optional[np.ndarray], answers: Optional[tuple[np.ndarray, np.ndarray]], left: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    if answers is None:
        shown = np.flatnonzero(left)[:SHOWN]
        return shown, ["sample"] * len(shown)
    right = answers[0] if truth is None else truth
    was_right = answers[0] == right
    if not was_right.any():
        shown = _in_turn(np.flatnonzero(left), right)
        return shown, ["wrong before"] * len(shown)
    wrong = _in_turn(np.flatnonzero(left & was_right & (answers[1] != right)), right)
    still = _in_turn(np.flatnonzero(left & was_right & (answers[1] == right)), right)
    return np.concatenate([wrong, still]), ["newly wrong"] * len(wrong) + ["still right"] * len(still)


def _in_turn(candidates: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The first sample of every class, then the second of every class, ... up to `SHOWN`."""
    seen: dict[int, int] = {}
    turns = []
    for index in candidates:
        label = int(labels[index])
        turns.append((seen.get(label, 0), int(index)))
        seen[label] = seen.get(label, 0) + 1
    return np.array([index for _, index in sorted(turns)[:SHOWN]], np.int64)


def _classes(
    truth: Optional[np.ndarray],
    answers: Optional[tuple[np.ndarray, np.ndarray]],
    likeness: Optional[Likeness],
    chosen: np.ndarray,
    task: Optional[Task],
    output: Optional[str],
) -> list[dict[str, Any]]:
    if truth is None or answers is None or task is None:
        return []
    before, after = answers
    found = []
    for label in np.unique(truth):
        mine = truth == label
        accuracy = [float(np.mean(one[mine] == label)) for one in answers]
        counts = [np.bincount(one[mine], minlength=max(2, task.outputs)) for one in (before, after)]
        increase = counts[1] - counts[0]
        increase[label] = 0
        worst = [int(k) for k in np.argsort(-increase, kind="stable")[:CONFUSIONS] if increase[k] > 0]
        here = mine[chosen]
        found.append(
            {
                "label": int(label),
                **({} if output is None else {"output": output}),
                "samples": int(mine.sum()),
                "original_accuracy": accuracy[0],
                "accuracy": accuracy[1],
                "drop_pp": (accuracy[0] - accuracy[1]) * 100,
                "explanation_similarity": None if likeness is None else mean_similarity(likeness.spearman[here]),
                "similarity": dict.fromkeys(YARDSTICKS) if likeness is None else likeness.facts(here),
                "confused_with": [
                    {"label": k, "samples": int(counts[1][k]), "original_samples": int(counts[0][k])} for k in worst
                ],
            }
        )
    return found
