"""What came out of one round, and what makes one better than another."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from keras_xaic import tflite
from keras_xaic.compression import CompressedModel
from keras_xaic.data import Samples
from keras_xaic.files import write_atomic
from keras_xaic.pipeline.judging import Judge
from keras_xaic.pipeline.reasons import Reasons
from keras_xaic.planning import Budget

MOST_GROWN = 1.25
"""By what a round was larger than planned, the next is planned smaller, as training will do so again; at most by this."""
DOUBTS = 2.0
"""Standard errors of a drop that count against a round without limits of size: the same samples chose it among several."""


@dataclass(frozen=True)
class Round:
    """What one round planned and what came out, on validation data.

    Attributes:
        small: The compressed model.
        flash_bytes: Size of its `model.tflite`.
        download_bytes: Size of its `model.xaic`.
        held_back: The task's metric value on validation data, from the interpreter that judges; higher is better.
        drop: What is lost against the original on the same data, in percentage points (for values: in percent of the
            original's error, or of the variance of its outputs where they are the targets).
        epochs: Epochs that it trained.
        seconds: Time that it took.
        doubt: Standard error of the drop, in its unit: what other samples of the same kind may well show more.
        similarity: Of the explanations of both models; None where it is not limited, or could not be measured.
        similarity_doubt: Its standard error.
    """

    small: CompressedModel
    flash_bytes: int
    download_bytes: int
    held_back: float
    drop: float
    epochs: int
    seconds: float
    doubt: float = 0.0
    similarity: Optional[float] = None
    similarity_doubt: float = 0.0

    @classmethod
    def of(
        cls,
        small: CompressedModel,
        samples: Samples,
        path: pathlib.Path,
        judges: Sequence[Judge],
        start: float,
        reasons: Optional[Reasons] = None,
        finish: tflite.Finish = tflite.UNFINISHED,
    ) -> Round:
        """Writes the file of a compressed model and judges it.

        Args:
            small: The compressed model.
            samples: Calibration data.
            path: Where the file is written.
            judges: Who judges it; the drop is the largest that one of them finds.
            start: When the round began, by `time.perf_counter`.
            reasons: What the original looks at, where the similarity of explanations is limited.
            finish: What the file gets for the programs that will run it.
        """
        content = finish(tflite.build_tflite(small, samples))
        write_atomic(path, content)
        values, drops, doubts = zip(*(judge(path) for judge in judges))
        similarity, similarity_doubt = (None, 0.0) if reasons is None else reasons.similarity(small.model)
        return cls(
            small=small,
            flash_bytes=len(content),
            download_bytes=len(tflite.pack_download(content)),
            held_back=values[0],
            drop=max(drops),
            epochs=sum(len(stage) for stage in small.history.values()),
            seconds=time.perf_counter() - start,
            doubt=max(doubts),
            similarity=similarity,
            similarity_doubt=similarity_doubt,
        )

    @property
    def grown(self) -> float:
        """The factor by which training made the download larger than planned, 1 or more."""
        planned = self.small.plan.predicted_download_bytes
        return min(max(1.0, self.download_bytes / planned), MOST_GROWN) if planned else 1.0

    def facts(self) -> dict[str, Any]:
        """Returns what the report says about the round."""
        plan = self.small.plan
        return {
            "predicted_flash_bytes": plan.predicted_flash_bytes,
            "flash_bytes": self.flash_bytes,
            "predicted_download_bytes": plan.predicted_download_bytes,
            "download_bytes": self.download_bytes,
            "held_back": self.held_back,
            "drop_pp": self.drop,
            "similarity": self.similarity,
            "epochs": self.epochs,
            "seconds": round(self.seconds, 1),
            "activations": plan.activations,
        }


@dataclass(frozen=True)
class Standard:
    """What rounds are compared by.

    Attributes:
        budget: The limits.
        packed: Whether flash is what counts without limits of size, and not the download: on microcontrollers.
    """

    budget: Budget
    packed: bool

    def overrun(self, one: Round) -> float:
        """Returns the largest ratio of size and limit."""
        sizes = ((one.flash_bytes, self.budget.flash_bytes), (one.download_bytes, self.budget.download_bytes))
        return max((size / limit for size, limit in sizes if limit is not None), default=0.0)

    def keeps_reasons(self, one: Round, doubts: float = 0.0) -> bool:
        """Returns whether a round keeps the limit on similarity, also if it is less by so many standard errors."""
        least = self.budget.min_similarity
        return least is None or (one.similarity is not None and one.similarity - doubts * one.similarity_doubt >= least)

    def is_accurate(self, one: Round) -> bool:
        """Returns whether a round keeps both the limits and the accuracy."""
        return self.overrun(one) <= 1.0 and one.drop <= self.budget.max_drop

    def is_good(self, one: Round) -> bool:
        """Returns whether a round keeps the limits, the accuracy and the reasons."""
        return self.is_accurate(one) and self.keeps_reasons(one)

    def is_safe(self, one: Round) -> bool:
        """Returns whether a round is good, and without limits of size probably on other samples, too.

        Where sizes are given, a gentler round cannot be had for nothing; where none is, it costs only bytes nobody counts.
        """
        if self.budget.in_size or not self.is_good(one):
            return self.is_good(one)
        return one.drop + DOUBTS * one.doubt <= self.budget.max_drop and self.keeps_reasons(one, DOUBTS)

    def worth(self, one: Round) -> tuple[Any, ...]:
        """What makes a round better than another.

        Within the limits first, then accurate; of those that keep the accuracy, those that keep the reasons, or come nearest.
        Without limits the smallest of those that surely keep both, and if none does, the most accurate.
        """
        if self.budget.in_size:
            over = self.overrun(one)
            return over <= 1.0, -max(1.0, over), *self._faithful(one), -one.drop
        safe = self.is_safe(one)
        size = float(one.flash_bytes if self.packed else one.download_bytes)
        small = (-size, -float(one.flash_bytes)) if safe else (0.0, 0.0)
        return safe, *small, *self._faithful(one), -one.drop - one.doubt

    def _faithful(self, one: Round) -> tuple[bool, float]:
        """Returns whether a round keeps the accuracy, and if so, how near it comes to the limit on similarity."""
        least = self.budget.min_similarity
        if least is None:
            return True, 0.0
        accurate = one.drop <= self.budget.max_drop
        return accurate, min(least, -1.0 if one.similarity is None else one.similarity) if accurate else 0.0

    def may_win(self, one: Round) -> bool:
        """Returns whether more bytes or training could win something back: accuracy, or the reasons where they are limited."""
        return one.drop > 0.0 or not self.keeps_reasons(one)
