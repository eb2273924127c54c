"""How filters go: down to which cost, in how many steps, and which layers keep theirs."""

from __future__ import annotations

from typing import Optional

import pydantic


class FilterPlan(pydantic.BaseModel):
    """Removal of filters in steps, each followed by training and a fresh look at what matters.

    Filters go until every limit that is set holds, least relevant first over the whole model.

    >>> FilterPlan(macs=2_000_000, steps=3, align=4).limits
    {'macs': 2000000}

    Attributes:
        macs: Multiply-accumulates for one sample that may be left.
        parameters: Weights, biases and statistics that may be left.
        flash_bytes: Bytes of all kernels with their biases and steps, as planned for their layers, that may be left.
        download_bytes: The same after entropy coding.
        ram_bytes: Bytes of the tensor arena of TensorFlow Lite Micro, without unpacked lookup tables.
        steps: Number of steps; more let relevance follow the model as it shrinks.
        align: What stays of a layer is a multiple of this, where it loses any.
        min_filters: Filters that every layer keeps at least.
        protect: Name patterns (`fnmatch`) of layers that keep all filters.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    macs: Optional[int] = pydantic.Field(default=None, ge=1)
    parameters: Optional[int] = pydantic.Field(default=None, ge=1)
    flash_bytes: Optional[int] = pydantic.Field(default=None, ge=1)
    download_bytes: Optional[int] = pydantic.Field(default=None, ge=1)
    ram_bytes: Optional[int] = pydantic.Field(default=None, ge=1)
    steps: int = pydantic.Field(default=1, ge=1)
    align: int = pydantic.Field(default=1, ge=1)
    min_filters: int = pydantic.Field(default=4, ge=1)
    protect: tuple[str, ...] = ()

    @property
    def limits(self) -> dict[str, int]:
        """The limits that are set, by name."""
        names = ("macs", "parameters", "flash_bytes", "download_bytes", "ram_bytes")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}
