"""What all engines have in common: one step over a batch, and what it hands back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Optional, Protocol

from keras_xaic._keras import Tensor, tf
from keras_xaic.relevance.choices import STATISTICS, Statistic
from keras_xaic.relevance.linear import LinearMap
from keras_xaic.relevance.program import Program
from keras_xaic.relevance.rules import over_positions
from keras_xaic.relevance.shares import Share, sum_powers, sum_signed
from keras_xaic.relevance.targets import BatchTargets


@dataclass
class Record:
    """What the weights and channels of a batch got, collected on the way back.

    Attributes:
        channels: Path or weight key -> relevance of the output channels, summed over positions, (n, channels).
        biases: The same names -> relevance of the bias, (n, channels).
        shares: Weight key -> the shares of its kernel and the map they belong to.
        calls: Weight key -> number of calls that gave shares.
        zeros: Weight key -> shape of kernels that get nothing by construction.
    """

    channels: dict[str, Tensor] = field(default_factory=dict)
    biases: dict[str, Tensor] = field(default_factory=dict)
    shares: dict[str, tuple[LinearMap, list[Share]]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    zeros: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def add_channels(self, name: str, relevance: Tensor) -> None:
        """Adds the relevance (n, ..., channels) of one call's output."""
        _add(self.channels, name, over_positions(relevance))

    def add_bias(self, name: str, relevance: Optional[Tensor]) -> None:
        """Adds the relevance (n, channels) of one call's bias; None where it has none."""
        if relevance is not None:
            _add(self.biases, name, relevance)

    def add_shares(self, linear: LinearMap, shares: Sequence[Share], calls: int = 1) -> None:
        """Adds the shares of one call's weights (or of `calls` calls at once)."""
        self.shares.setdefault(linear.key, (linear, []))[1].extend(shares)
        self.calls[linear.key] += calls

    def add_zeros(self, key: str, shape: tuple[int, ...]) -> None:
        """Notes a kernel that gets nothing by construction."""
        self.zeros[key] = shape

    def weights(self, statistic: Statistic) -> dict[str, Tensor]:
        """Returns weight key -> sum over samples of R, |R| or R^2, of the kernel's shape."""
        result = {key: tf.zeros(shape) for key, shape in self.zeros.items()}
        for key, (linear, shares) in self.shares.items():
            if statistic == "signed":
                result[key] = sum_signed(linear, shares)
            else:
                result[key] = sum_powers(linear, shares, STATISTICS.index(statistic), self.calls[key])
        return result


@dataclass(frozen=True)
class Step:
    """The relevance of one batch.

    Attributes:
        inputs: Relevance of the model's inputs, (n, ...) each.
        channels: Path or weight key -> (n, channels).
        biases: The same for biases.
        weights: Weight key -> sum over samples, of the kernel's shape.
        start: Sum of the relevance that the batch started with, (n,).
    """

    inputs: list[Tensor]
    channels: dict[str, Tensor]
    biases: dict[str, Tensor]
    weights: dict[str, Tensor]
    start: Tensor


class Engine(Protocol):
    """What `attribute` needs of an engine.

    Attributes:
        program: The model.
        approximate: Paths of layers that are linearised.
        gates: Paths of weighted layers that get nothing by construction.
        compares: Whether it compares with a reference.
        needs_values: Whether it compares outputs with target values.
        copies: How many copies of a sample it holds at a time.
    """

    program: Program
    approximate: tuple[str, ...]
    gates: tuple[str, ...]
    compares: bool
    needs_values: bool
    copies: int

    def step(self, xs: Sequence[Tensor], targets: BatchTargets, statistic: Statistic, references: Sequence[Tensor]) -> Step:
        """Returns the relevance of one batch; called inside a `tf.function`.

        Args:
            xs: The model's inputs, (n, ...) each, n known.
            targets: Where relevance starts.
            statistic: One of `STATISTICS`, for the weights.
            references: One sample per input to compare with, (1, ...), for engines that do.
        """

    def check(self, xs: Sequence[Tensor]) -> None:
        """Raises a `DataError` if the rule is not made for such inputs; called once, with the first samples."""

    def refresh(self) -> None:
        """Takes over changed weights of the user's model."""


def _add(sums: dict[str, Tensor], name: str, more: Tensor) -> None:
    sums[name] = sums[name] + more if name in sums else more


def per_sample(tensors: Sequence[Tensor]) -> Tensor:
    """Sums of tensors (n, ...) over everything but the samples, (n,)."""
    return tf.add_n([tf.reduce_sum(t, axis=tuple(range(1, t.shape.rank))) for t in tensors])
