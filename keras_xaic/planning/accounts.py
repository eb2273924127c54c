"""What the kernels of one model take as they may be stored: bytes of both files, RAM and time, predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from keras_xaic.models.kernels import weighted_kernels
from keras_xaic.planning import cost
from keras_xaic.planning.allocation import Candidate, Limits
from keras_xaic.planning.latency import NOT_DELEGATED, StoredAs, Times, has_fast_code, microseconds
from keras_xaic.planning.plan import LayerPlan
from keras_xaic.planning.ram import predict_ram
from keras_xaic.planning.storages import Activations, Granularity, Storage

if TYPE_CHECKING:
    from keras_xaic._keras import Model


class Accounts:
    """Adds up what a choice takes: bytes as in `keras_xaic.planning.cost`, time as in `latency`, RAM as in `ram`.

    Args:
        model: The canonical model.
        activations: Type of activations between layers.
        flash_correction: Bytes by which a file was measured to be larger than predicted; the download's limit is aimed lower.
    """

    def __init__(self, model: Model, activations: Activations, flash_correction: int = 0) -> None:
        self.model = model
        self.activations = activations
        self.kernels = {kernel.key: kernel for kernel in weighted_kernels(model)}
        self.times = Times(model, activations)
        self.works = self.times.works()
        self.flash_correction = flash_correction
        self.fixed = cost.structure_bytes(model, activations)
        """Upper bound of the bytes that are no weights: as if every kernel had a scale per channel."""

    def storage(self, key: str, bits: int) -> Storage:
        """Returns the smallest storage that is no table for a kernel of so many bits."""
        kernel = self.kernels[key]
        return cost.best_storage(kernel.kind, bits, self.activations, kernel.shape)

    def granularity(self, key: str, bits: int) -> Granularity:
        """Returns how fine the scales of a kernel of so many bits are."""
        return cost.best_granularity(self.kernels[key].kind, self.storage(key, bits), self.activations)

    def kernel_bytes(self, key: str, granularity: Granularity, storage: Storage) -> int:
        """Returns the bytes in the file of a kernel that is not looked up, with its biases and scales."""
        return cost.weight_bytes(self.kernels[key].size, storage) + self._records(key, granularity, storage)

    def time(self, key: str, stored: Any) -> float:
        """Returns the predicted microseconds of a kernel that is stored so."""
        return microseconds(self.works[key], stored, "int8" if stored == "float32" else self.activations)

    def counted_time(self, key: str, stored: Any) -> float:
        """Returns the microseconds that choices count: what fast kernels do not take is never faster than what they take.

        It may be on a processor without fast int8 kernels, but devices have them.
        """
        taken = self.time(key, stored)
        return taken if has_fast_code(self.works[key], stored) else max(taken, NOT_DELEGATED * self.time(key, "int8"))

    def saved(self, key: str, one: Candidate) -> int:
        """Returns the bytes that a candidate takes less where the file looks it up; 0 if it is to be stored otherwise."""
        if one.stored is not None:
            return 0
        storage = self.storage(key, one.bits)
        looked_up = cost.weight_bytes(one.weights, storage, one.bits, self.activations)
        return cost.weight_bytes(one.weights, storage) - looked_up

    def looked_up(self, key: str, one: Candidate) -> Candidate:
        """Returns a candidate with the bytes that it takes in a file that looks up what it can."""
        return replace(one, flash_bytes=one.flash_bytes - self.saved(key, one))

    def table(self, chosen: Mapping[str, Candidate]) -> int:
        """Returns the bytes of the table that kernels are looked up in, 0 where they would not save as many."""
        return cost.TABLE_BYTES if sum(self.saved(key, one) for key, one in chosen.items()) > cost.TABLE_BYTES else 0

    def stored_ways(self, key: str, found: Sequence[Candidate]) -> list[Candidate]:
        """Returns candidates in every storage that holds them, each with the time that it takes; none is looked up."""
        ways = []
        for one in found:
            smallest, granularity = self.storage(key, one.bits), self.granularity(key, one.bits)
            for storage in dict.fromkeys((smallest, "float32" if smallest == "float32" else "int8")):
                flash = self.kernel_bytes(key, granularity, storage)
                ways.append(replace(one, stored=storage, flash_bytes=flash, microseconds=self.counted_time(key, storage)))
        return ways

    def stored_bytes(self, layer: LayerPlan) -> int:
        """Returns the bytes of a layer in the file where it is not looked up."""
        return self.kernel_bytes(layer.key, layer.granularity, layer.storage)

    def stored_as(self, layer: LayerPlan) -> StoredAs:
        """Returns how a layer lies in the file; one with fewer bytes than its storage takes is looked up."""
        return "lookup" if layer.flash_bytes < self.stored_bytes(layer) else layer.storage

    def flash_bytes(self, layers: Sequence[LayerPlan]) -> int:
        """Returns the predicted size of the file."""
        table = cost.TABLE_BYTES if any(self.stored_as(layer) == "lookup" for layer in layers) else 0
        return self.overhead(layers) + self.flash_correction + table + sum(layer.flash_bytes for layer in layers)

    def download_bytes(self, layers: Sequence[LayerPlan]) -> int:
        """Returns the predicted size of the download container."""
        records = sum(self._records(layer.key, layer.granularity, "int8") for layer in layers)
        return round(cost.DOWNLOAD_SHARE * (self.overhead(layers) + records)) + sum(layer.download_bytes for layer in layers)

    def ram_bytes(self, layers: Sequence[LayerPlan]) -> int:
        """Returns the predicted arena under TensorFlow Lite Micro; see `predict_ram`."""
        return predict_ram(self.model, layers, self.activations)

    def microseconds(self, layers: Sequence[LayerPlan]) -> float:
        """Returns the predicted time of the file (see `keras_xaic.planning.latency`)."""
        return self.times.fixed + sum(self.time(layer.key, self.stored_as(layer)) for layer in layers)

    def overhead(self, layers: Sequence[LayerPlan]) -> int:
        """Returns the bytes that are no weights, with the zero points that these layers need."""
        unused = {self.kernels[layer.key].channels for layer in layers if layer.granularity == "tensor"}
        unused -= {self.kernels[layer.key].channels for layer in layers if layer.granularity == "channel"}
        return self.fixed - cost.ZERO_POINT_BYTES * sum(unused)

    def room(self, limits: Limits, table: int = 0, fine: bool = False) -> Limits:
        """Returns what limits of the whole file leave for weights.

        Args:
            limits: Those of the whole file.
            table: Bytes of the table that kernels are looked up in.
            fine: Whether all scales are per channel, which leaves the least; else the most that may be left.
        """
        coarse = set() if fine else {key for key in self.kernels if self._may_be_coarse(key)}
        records = sum(self._records(key, "tensor" if key in coarse else "channel", "int8") for key in self.kernels)
        fixed = self.fixed - self._spared(coarse)
        download = round(cost.DOWNLOAD_SHARE * (fixed + records))
        return limits.less(fixed + self.flash_correction + table, download)

    def _may_be_coarse(self, key: str) -> bool:
        """Returns whether a kernel of this kind may do with one scale."""
        kind = self.kernels[key].kind
        smallest = cost.best_storage(kind, 2, self.activations)
        return cost.best_granularity(kind, smallest, self.activations) == "tensor"

    def _spared(self, coarse: set[str]) -> int:
        """Returns the bytes of the zero points that no kernel needs where these have one scale each."""
        fine = {kernel.channels for key, kernel in self.kernels.items() if key not in coarse}
        return cost.ZERO_POINT_BYTES * sum({kernel.channels for kernel in self.kernels.values()} - fine)

    def _records(self, key: str, granularity: Granularity, storage: Storage) -> int:
        kernel = self.kernels[key]
        return cost.record_bytes(kernel.kind, kernel.channels, granularity, storage, self.activations)
