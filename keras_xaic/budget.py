"""What the user can spend: bytes of flash, of download, of RAM, time, multiply-accumulates, accuracy, and its reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Union

from keras_xaic.arguments import require, settings
from keras_xaic.settings import option
from keras_xaic.units import format_milliseconds, format_size, parse_count, parse_milliseconds, parse_size

LEAST_SLOWDOWN, MOST_SLOWDOWN = 0.01, 1000.0
"""Multiples of plain int8's time that mean something: no file is faster than the one, and the other limits nothing."""


@settings
@dataclass(frozen=True)
class Budget:
    """Limits for the compressed model; None means no limit.

    >>> Budget(flash="48kB", max_drop=1.0).flash
    48000

    Attributes:
        flash: Bytes of `model.tflite`; a number, or text such as ``48kB``.
        download: Bytes of `model.xaic`.
        ram: Bytes of the tensor arena.
        max_drop: Accuracy that may be lost, in percentage points of the original's edge accuracy.
        macs: Multiply-accumulates for one sample; a number, or text such as ``1.5M``.
        mean_bits: Mean bit-width over all weights, zeros included.
        latency: Milliseconds of one inference on LiteRT, on this machine, with one thread: a number, or text such as ``0.5ms``.
        max_slowdown: The same as a multiple of the time of the original as plain int8: 1.0 is as fast, 0.5 twice as fast.
        min_similarity: Least similarity of the explanations of original and compressed model, 0 to 1: the mean rank correlation
            of their relevance maps. Among models that keep the accuracy, one that keeps this is taken.

    Raises:
        PlanError: If a limit is not usable.
    """

    flash: Optional[Union[int, str]] = option(None, "Limit for model.tflite, e.g. 48kB or 48KiB.", kind=str)
    download: Optional[Union[int, str]] = option(None, "Limit for model.xaic, e.g. 20kB.", kind=str)
    ram: Optional[Union[int, str]] = option(None, "Limit for the tensor arena, e.g. 64kB.", kind=str)
    max_drop: float = option(
        1.0, "What the metric may lose: in percentage points; for errors (mse, mae, rmse) in per cent of the original's."
    )
    macs: Optional[Union[int, str]] = option(None, "Limit of multiply-accumulates for one sample, e.g. 1.5M.", kind=str)
    mean_bits: Optional[float] = option(None, "Limit for the mean bit-width.", kind=float)
    latency: Optional[Union[float, str]] = option(
        None, "Limit for one inference on LiteRT, on this machine, e.g. 0.5ms.", kind=str
    )
    max_slowdown: Optional[float] = option(
        None, "The same as a multiple of the original's time as plain int8, e.g. 1.0; less removes filters.", kind=float
    )
    min_similarity: Optional[float] = option(
        None, "Least similarity of the explanations of original and compressed model, 0 to 1, e.g. 0.9.", kind=float
    )

    def __post_init__(self) -> None:
        for name in ("flash", "download", "ram"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, parse_size(value, f"the {name} budget"))
        if self.macs is not None:
            object.__setattr__(self, "macs", parse_count(self.macs, "the budget of multiply-accumulates"))
        drop = require("max_drop", self.max_drop, "percentage points between 0 and 100, e.g. 1.0", lambda n: 0 <= n <= 100)
        object.__setattr__(self, "max_drop", drop)
        if self.mean_bits is not None:
            bits = require("mean_bits", self.mean_bits, "2 to 32, e.g. 4.0", lambda n: 2 <= n <= 32)
            object.__setattr__(self, "mean_bits", bits)
        if self.latency is not None:
            object.__setattr__(self, "latency", parse_milliseconds(self.latency, "the latency budget"))
        if self.max_slowdown is not None:
            slowdown = require(
                "max_slowdown",
                self.max_slowdown,
                f"{LEAST_SLOWDOWN:g} to {MOST_SLOWDOWN:g}, e.g. 1.0: as fast as plain int8",
                lambda n: LEAST_SLOWDOWN <= n <= MOST_SLOWDOWN,
            )
            object.__setattr__(self, "max_slowdown", float(slowdown))
        if self.min_similarity is not None:
            least = require("min_similarity", self.min_similarity, "0 to 1, e.g. 0.9", lambda n: 0 <= n <= 1)
            object.__setattr__(self, "min_similarity", float(least))

    @property
    def flash_bytes(self) -> Optional[int]:
        """The flash limit as a number."""
        return None if self.flash is None else int(self.flash)

    @property
    def download_bytes(self) -> Optional[int]:
        """The download limit as a number."""
        return None if self.download is None else int(self.download)

    @property
    def ram_bytes(self) -> Optional[int]:
        """The RAM limit as a number."""
        return None if self.ram is None else int(self.ram)

    @property
    def latency_ms(self) -> Optional[float]:
        """The limit of time as a number, in milliseconds."""
        return None if self.latency is None else float(self.latency)

    @property
    def in_time(self) -> bool:
        """Whether time is limited."""
        return self.latency is not None or self.max_slowdown is not None

    @property
    def in_size(self) -> bool:
        """Whether bytes, bits, multiply-accumulates or time are limited."""
        limits = (self.flash, self.download, self.ram, self.macs, self.mean_bits)
        return self.in_time or any(limit is not None for limit in limits)

    @property
    def macs_limit(self) -> Optional[int]:
        """The limit of multiply-accumulates as a number."""
        return None if self.macs is None else int(self.macs)

    def __str__(self) -> str:
        limits = [(name, getattr(self, name)) for name in ("flash", "download", "ram")]
        parts = [f"{name} <= {format_size(int(value))}" for name, value in limits if value is not None]
        parts += [] if self.macs is None else [f"multiply-accumulates <= {int(self.macs):,}"]
        if self.latency_ms is not None:
            parts.append(f"latency <= {format_milliseconds(self.latency_ms)}")
        if self.max_slowdown is not None:
            parts.append(f"time <= {self.max_slowdown:g} times plain int8")
        if self.mean_bits is not None:
            parts.append(f"mean bits <= {self.mean_bits:g}")
        if self.min_similarity is not None:
            parts.append(f"similarity of explanations >= {self.min_similarity:g}")
        return ", ".join([*parts, f"drop <= {self.max_drop:g} pp"])
