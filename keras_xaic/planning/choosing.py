"""The least damaging bits and zeros for all kernels under limits; where none fit, under limits that are eased."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Optional

from keras_xaic.planning import cost
from keras_xaic.planning.allocation import Candidate, Limits
from keras_xaic.planning.candidates import LayerOptions
from keras_xaic.planning.fastest import fastest
from keras_xaic.planning.plan import LayerPlan
from keras_xaic.planning.sensitivity import Damage

GUESSES = 3
"""How often bits are chosen again for the bytes that are left by the scales which the choice before needs."""
Offered = Mapping[str, Sequence[Candidate]]
"""Kernel key -> its candidates."""


def choose(
    kernels: LayerOptions, damage: Damage, limits: Limits, least_sparsity: float = 0.0, insist: bool = False
) -> Optional[list[LayerPlan]]:
    """Returns the least damaging choice of bits and zeros for all kernels within the limits, or None if there is none.

    Kernels that the file looks up (see `keras_xaic.tflite.look_up`) count with fewer bytes of flash only if they would get
    so few bits without a limit on flash, too: flash alone brings no kernel down to three values, but where nothing else
    fits and the caller insists.

    Args:
        kernels: What every kernel could get.
        damage: What rounding and zeros do.
        limits: Bytes of `model.tflite` and of `model.xaic`, mean bit-width over all weights, and predicted time. Without a
            limit on the download there are no more zeros than `least_sparsity`; with one on time nothing is looked up.
        least_sparsity: Fraction of zeros that there shall be at least.
        insist: Whether flash alone may do so: no filters are left that could go for it.
    """
    accounts = kernels.accounts
    flash, download, time = limits.flash, limits.download, limits.microseconds
    limits = replace(limits, microseconds=None if time is None else time - accounts.times.fixed)
    levels = {key: masks if download is not None else masks[:1] for key, masks in kernels.levels(least_sparsity).items()}
    smallest: Offered = {
        key: [accounts.looked_up(key, one) for one in kernels.candidates(damage, key, masks[-1:])]
        for key, masks in levels.items()
    }
    if time is not None:
        smallest = {key: accounts.stored_ways(key, found) for key, found in smallest.items()}
    if damage.sensitivity.allocate(smallest, replace(accounts.room(limits), mean_bits=None)) is None:
        return None  # said before all candidates are weighed: those of large kernels take a while
    candidates: Offered = {key: kernels.candidates(damage, key, masks) for key, masks in levels.items()}
    if time is not None:
        candidates = {key: accounts.stored_ways(key, found) for key, found in candidates.items()}
    chosen = _within(kernels, damage, candidates, limits if time is not None else replace(limits, flash=None))
    if flash is None or time is not None or chosen is None:
        return None if chosen is None else kernels.layers(chosen)
    ways = [_in_flash(kernels, damage, candidates, chosen, limits, insist)]
    dense = [key for key, one in chosen.items() if kernels.kernels[key].kind == "dense" and accounts.saved(key, one)]
    if dense and not kernels.options.packed:  # dense kernels are fast when they are packed, and slowest when looked up
        fixed = {key: [_packed(kernels, key, one) for one in candidates[key]] for key in dense}
        first = {key: _packed(kernels, key, one) if key in fixed else one for key, one in chosen.items()}
        ways.append(_in_flash(kernels, damage, {**candidates, **fixed}, first, limits, insist=False))
    found = [layers for layers in ways if layers is not None]
    return min(found, key=lambda layers: _least_time(kernels, layers, flash)) if found else None


def _in_flash(
    kernels: LayerOptions,
    damage: Damage,
    candidates: Offered,
    chosen: Mapping[str, Candidate],
    limits: Limits,
    insist: bool,
) -> Optional[list[LayerPlan]]:
    """Returns the least damaging of candidates within all limits; `chosen` are those without one on flash."""
    accounts = kernels.accounts
    table = accounts.table(chosen)
    saved = {key for key, one in chosen.items() if table and accounts.saved(key, one)}
    candidates = {
        key: [accounts.looked_up(key, one) for one in found] if key in saved else found for key, found in candidates.items()
    }
    layers = kernels.layers(chosen)
    if limits.flash is None or accounts.flash_bytes(layers) <= limits.flash:
        return layers  # the limit on flash does not bind
    within = _within(kernels, damage, candidates, limits, table)
    if within is None and insist:
        few = {key: [accounts.looked_up(key, one) for one in found] for key, found in candidates.items() if key not in saved}
        within = _within(kernels, damage, {**candidates, **few}, limits, cost.TABLE_BYTES)
    return None if within is None else kernels.layers(within)


def _within(
    kernels: LayerOptions, damage: Damage, candidates: Offered, limits: Limits, table: int = 0
) -> Optional[dict[str, Candidate]]:
    """Returns the least damaging of candidates within limits of the whole file, `table` included.

    Which scales and zero points it needs is known when something is chosen: weights get the bytes that these leave.
    """
    accounts, allocate = kernels.accounts, damage.sensitivity.allocate
    room = accounts.room(limits, table)
    for _ in range(GUESSES):
        chosen = allocate(candidates, room)
        if chosen is None:
            break
        layers = kernels.layers(chosen)
        flash = _over(accounts.flash_bytes(layers), limits.flash)
        download = _over(accounts.download_bytes(layers), limits.download)
        if not flash and not download:
            return chosen
        room = room.less(flash, download)
    return allocate(candidates, accounts.room(limits, table, fine=True))


def _over(size: int, limit: Optional[int]) -> int:
    """Returns the bytes by which a limit is missed."""
    return 0 if limit is None else max(0, size - limit)


def _packed(kernels: LayerOptions, key: str, one: Candidate) -> Candidate:
    """Returns a candidate in the smallest storage that is no table."""
    return replace(one, stored=kernels.accounts.storage(key, one.bits))


def _least_time(kernels: LayerOptions, layers: Sequence[LayerPlan], flash: Optional[int]) -> float:
    accounts = kernels.accounts
    plain = accounts.times.fixed + sum(accounts.time(layer.key, "int8") for layer in layers)
    return accounts.microseconds(fastest(accounts, layers, flash, plain)[0])


def best_effort(kernels: LayerOptions, damage: Damage, limits: Limits, least_sparsity: float = 0.0) -> list[LayerPlan]:
    """Returns the best choice where none meets all limits: these are eased, where they must be, to the least there is.

    Flash comes first: the limit on the download is eased to what is possible with the least flash.

    Args:
        kernels: As for `choose`.
        damage: As for `choose`.
        limits: As for `choose`.
        least_sparsity: As for `choose`.
    """
    insisted = choose(kernels, damage, limits, least_sparsity, insist=True)
    if insisted is not None:
        return insisted
    flash, download, mean_bits = limits.flash, limits.download, limits.mean_bits
    least = _least(kernels, damage, limits, least_sparsity)
    layers = kernels.layers(least)
    size = kernels.accounts.flash_bytes(layers)
    eased = Limits(
        None if flash is None else max(flash, size),
        None if download is None else max(download, kernels.accounts.download_bytes(layers)),
        None if mean_bits is None else max(mean_bits, _mean_bits(least.values())),
    )
    # A table that is worth its bytes only with enough small kernels makes sizes leap: what fits less flash fits more, too.
    tries = [eased] if flash is None else [eased, replace(eased, flash=size)]
    found = (choose(kernels, damage, one, least_sparsity, insist=True) for one in tries)
    return next((one for one in found if one is not None), layers)


def _least(kernels: LayerOptions, damage: Damage, limits: Limits, least_sparsity: float) -> dict[str, Candidate]:
    """Returns what takes the least flash, where that is limited, with only as many zeros as the download asks for."""
    accounts = kernels.accounts
    levels = kernels.levels(least_sparsity)
    deepest = max(map(len, levels.values())) if limits.download is not None else 1
    chosen: dict[str, Candidate] = {}
    for depth in range(deepest):
        for key, masks in levels.items():
            ways = kernels.candidates(damage, key, [masks[min(depth, len(masks) - 1)]])
            chosen[key] = min(
                (accounts.looked_up(key, one) for one in ways),
                key=lambda one: (one.flash_bytes if limits.flash is not None else 0, one.download_bytes, one.bits),
            )
        if limits.download is None or accounts.download_bytes(kernels.layers(chosen)) <= limits.download:
            break
    return chosen


def _mean_bits(chosen: Collection[Candidate]) -> float:
    return sum(one.bits * one.weights for one in chosen) / max(1, sum(one.weights for one in chosen))
