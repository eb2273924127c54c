"""What taking away a part of the input does to two models: a comparison of reasons that needs no relevance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_xaic.data import Array, Parts, Samples, arrays_of
from keras_xaic.output_tasks import AnyTask
from keras_xaic.progress import Counted, Progress, silent
from keras_xaic.relevance import rank_similarity
from keras_xaic.training import predict
from keras_xaic.training.explanations import decision
from keras_xaic.training.predicting import traced_once

if TYPE_CHECKING:
    from keras_xaic._keras import Model

REMOVED = 16
"""Parts that an input is cut into: images into 4 times 4, anything else into successive ones."""


def removal_similarity(
    original: Model, small: Model, samples: Samples, tasks: Sequence[AnyTask], outputs: Array, progress: Progress = silent
) -> list[np.ndarray]:
    """Returns the rank correlation of what taking away each part of the input does to two models, sample by sample.

    In its place comes that of another sample, and what counts is by how much less the outputs, before softmax or sigmoid,
    speak for what the original decides (cf. Zeiler & Fergus 2014, arXiv 1311.2901, section 4.2). No loss and no attribution
    rule has to do with it.

    Args:
        original: The original.
        small: The compressed model.
        samples: At least two, or nothing can be taken away; a few dozen are enough.
        tasks: What both do, perhaps with several weights of the outputs.
        outputs: What the original says about the samples.
        progress: Told how far the work is.

    Returns:
        One (N,) float64 a task; NaN where all parts do the same.
    """
    feeds = samples.feeds(slice(None))
    said = [np.asarray(one, np.float32).reshape(len(samples), -1) for one in arrays_of(outputs)]
    times = 1 + sum(len(list(_parts(feed.shape[1:]))) for feed in feeds)
    tell = Counted(progress, "compare", 2 * times)
    effects = [_effects(model, feeds, tasks, said, tell) for model in (original, small)]
    return [rank_similarity(*pair) for pair in zip(*effects)]


def _effects(model: Model, feeds: list[np.ndarray], tasks: Sequence[AnyTask], said: Any, tell: Counted) -> np.ndarray:
    """Returns by how much less the outputs speak for what is `said` without each part, (tasks, N, parts)."""

    def spoken(changed: list[np.ndarray]) -> np.ndarray:
        x: Any = Parts(changed) if len(changed) > 1 else changed[0]
        outputs: Any = arrays_of(predict(model, Samples(x)))
        tell(1, "what taking parts of inputs away does")
        return np.stack([decision(task, outputs, said) for task in tasks])

    found = []
    with traced_once(model):
        whole = spoken(feeds)
        for number, feed in enumerate(feeds):
            for part in _parts(feed.shape[1:]):
                changed = feed.copy()
                changed[part] = np.roll(feed, max(1, len(feed) // 2), axis=0)[part]
                found.append(whole - spoken([*feeds[:number], changed, *feeds[number + 1 :]]))
    return np.stack(found, axis=2)


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Yields what to index samples of a shape with, to get one part of it in each."""
    every = slice(None)
    if len(shape) > 2:
        rows, columns = (np.array_split(np.arange(size), min(size, round(REMOVED**0.5))) for size in shape[:2])
        yield from ((every, *np.ix_(a, b)) for a in rows for b in columns)
    elif not shape:  # one value a sample is one part
        yield (every,)
    else:
        yield from ((every, one) for one in np.array_split(np.arange(shape[0]), min(shape[0], REMOVED)))
