"""Channel groups: the channels of a model that must be removed together, and the weights that go with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Optional

import numpy as np

from keras_xaic.errors import PlanError
from keras_xaic.models.channel_flow import Axes, ChannelFlow
from keras_xaic.models.kernels import KernelCall, kernel_calls
from keras_xaic.models.operations import Operation, Operations

if TYPE_CHECKING:
    from keras_xaic._keras import Model

Keep = Mapping[str, np.ndarray]
"""Channel group -> (size,) bool, True for the channels that stay. Groups that are not named stay whole."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that layers share: a residual trunk and all convolutions that add to it, for instance.

    Attributes:
        name: Path of the first layer in `producers`.
        size: Number of channels that can go or stay on their own. A layer may make several of its outputs for one of them
            (a dense layer in front of a Reshape).
        producers: Paths of the layers whose output channels these are, in network order.
        consumers: Paths of the layers whose incoming weights read them.
        followers: Paths of the layers with weights per channel in between (BatchNorm, PReLU, depthwise convolution).
        removable: Whether channels may be removed.
        why: The reason if not, else "".
        members: Producer path -> for every output of the layer the channel of the group that it belongs to, int.
    """

    name: str
    size: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    followers: tuple[str, ...]
    removable: bool
    why: str
    members: Mapping[str, np.ndarray]


class ChannelGroups(Mapping[str, ChannelGroup]):
    """The channel groups of a model by name, in network order.

    Every output channel of a convolution or dense layer is in exactly one group.

    Args:
        model: A built functional or sequential model; nested models are opened.

    Raises:
        ModelError: If the model has no graph.
    """

    def __init__(self, model: Model) -> None:
        self.operations = Operations(model)
        self._flow = flow = ChannelFlow(self.operations)
        self._groups: dict[str, ChannelGroup] = {}
        self._group_of = np.full(len(flow.root), -1)  # root atom -> number of its group
        self._position = np.zeros(len(flow.root), np.int64)  # root atom -> its channel in the group
        self._build()
        self._inside = {name: np.flatnonzero(self._group_of == number) for number, name in enumerate(self._groups)}
        self._axes = {path: [self._rooted(axes) for axes in weights] for path, weights in flow.axes.items()}

    def _build(self) -> None:
        root = self._flow.root
        made_by: dict[int, set[str]] = defaultdict(set)
        for path, atoms in self._flow.producers.items():
            for atom in set(root[atoms].tolist()):
                made_by[atom].add(path)
        joined = _joined(list(self._flow.producers), made_by.values())
        for number, producers in enumerate(joined):
            channels = list(dict.fromkeys(np.concatenate([root[self._flow.producers[path]] for path in producers]).tolist()))
            self._group_of[channels] = number
            self._position[channels] = np.arange(len(channels))
            why = next((reason for atom in channels if (reason := self._flow.why_fixed(atom))), "")
            if not why and len(channels) == 1:
                why = "all its channels go together"
            self._groups[producers[0]] = ChannelGroup(
                producers[0],
                len(channels),
                tuple(producers),
                self._touching(self._flow.consumers, number),
                self._touching(self._flow.followers, number),
                not why,
                why,
                {path: self._position[root[self._flow.producers[path]]] for path in producers},
            )

    def _touching(self, readers: Mapping[str, np.ndarray], number: int) -> tuple[str, ...]:
        return tuple(path for path, atoms in readers.items() if np.any(self._group_of[self._flow.root[atoms]] == number))

    def _rooted(self, axes: Axes) -> Axes:
        return tuple(None if atoms is None else self._flow.root[atoms] for atoms in axes)

    def __getitem__(self, name: str) -> ChannelGroup:
        return self._groups[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def removable(self) -> list[ChannelGroup]:
        """The groups that may lose channels, in network order."""
        return [group for group in self.values() if group.removable]

    def check_keep(self, keep: Keep) -> None:
        """Refuses what cannot be removed.

        Raises:
            PlanError: If a group is unknown or not removable, its mask has another shape, or nothing of it is left.
        """
        for name, mask in keep.items():
            group = self.get(name)
            if group is None:
                raise PlanError(f"there is no channel group {name!r}", f"one of {', '.join(self)}")
            mask = np.asarray(mask)
            if mask.dtype != bool or mask.shape != (group.size,):
                raise PlanError(
                    f"channel group {name!r} has a mask of shape {mask.shape} and dtype {mask.dtype}", f"({group.size},) bool"
                )
            if not mask.all() and not group.removable:
                raise PlanError(f"the channels of {name!r} cannot be removed: {group.why}", "removable groups only")
            if not mask.any():
                raise PlanError(f"channel group {name!r} would lose all its {group.size} channels", "at least one that stays")

    def stays(self, keep: Keep) -> np.ndarray:
        """Returns for every atom (see `weight_axes`) whether it stays, (atoms,) bool."""
        stays = np.ones(len(self._group_of), bool)
        for name, mask in keep.items():
            inside = self._inside[name]
            stays[inside] = np.asarray(mask)[self._position[inside]]
        return stays

    @cached_property
    def kernel_calls(self) -> list[KernelCall]:
        """Every use of every kernel, in network order."""
        return kernel_calls(self.operations)

    @cached_property
    def weight_shapes(self) -> dict[str, list[tuple[int, ...]]]:
        """Layer path -> shapes in the order of ``layer.weights``, for every layer with weights, in network order."""
        found: dict[str, list[tuple[int, ...]]] = {}
        for operation in self.operations:
            if operation.path not in found and operation.layer.weights:
                found[operation.path] = [tuple(weight.shape) for weight in operation.layer.weights]
        return found

    def weight_axes(self, path: str) -> Optional[list[Axes]]:
        """Returns per weight of a layer, in the order of ``layer.weights``, the atoms along each axis (None: no channels).

        A layer whose weights do not belong to channels gives None.
        """
        return self._axes.get(path)

    def atoms(self, key: str) -> Optional[np.ndarray]:
        """Returns the atoms along the last axis of a tensor (a key of `Operation.inputs`), None if it has no known length."""
        atoms = self._flow.tensors[key]
        return None if atoms is None else self._flow.root[atoms]

    def made(self, operation: Operation) -> Optional[np.ndarray]:
        """Returns the atoms that an operation's layer makes, None for layers that make no channels."""
        atoms = self._flow.producers.get(operation.path)
        return None if atoms is None else self._flow.root[atoms]


def channel_groups(model: Model) -> ChannelGroups:
    """Returns the channel groups of a functional or sequential Keras model.

    Channels are followed through convolutions, dense layers, normalization over channels, activations, pooling, padding,
    element-wise merges, concatenation, flattening and reshaping, shared layers and nested models. Channels that meet anything
    else, the model's input or its output are in groups that are not removable, each with the reason.

    >>> from keras_xaic._keras import keras, layers
    >>> inputs = keras.Input((8, 8, 3))
    >>> x = y = layers.Conv2D(16, 3, padding="same", name="stem")(inputs)
    >>> x = layers.Conv2D(8, 1, name="reduce")(x)
    >>> x = layers.Add()([y, layers.Conv2D(16, 1, name="expand")(x)])
    >>> outputs = layers.Dense(10, name="head")(layers.Flatten()(x))
    >>> groups = channel_groups(keras.Model(inputs, outputs))
    >>> [(group.name, group.size, group.producers) for group in groups.removable]
    [('stem', 16, ('stem', 'expand')), ('reduce', 8, ('reduce',))]
    >>> groups["head"].why
    "they are the model's output"

    Args:
        model: A built model. It is not changed.

    Raises:
        ModelError: If the model has no graph of layers.
    """
    return ChannelGroups(model)


def group_scores(
    groups: ChannelGroups, filters: Mapping[str, np.ndarray], norm: Optional[Literal["l2"]] = None
) -> dict[str, np.ndarray]:
    """Adds up the scores of the filters that go with each channel of a group.

    Args:
        groups: The model's channel groups.
        filters: Layer path -> score of every output channel, (channels,), such as `Relevance.filters`. Layers that make no
            channels of their own are ignored; producers without scores count 0.
        norm: ``l2`` divides every group's scores by their Euclidean length, which strong pruning needs; None compares
            groups as they are.

    Returns:
        Group name -> (size,) float64 scores, for every removable group with a score.

    Raises:
        PlanError: If scores have the wrong shape.
    """
    scores = {}
    for group in groups.removable:
        scored = [path for path in group.producers if path in filters]
        if not scored:
            continue
        total = np.zeros(group.size)
        for path in scored:
            one, members = np.asarray(filters[path], np.float64), group.members[path]
            if one.shape != members.shape:
                raise PlanError(f"layer {path!r} has filter scores of shape {one.shape}", f"{members.shape}")
            np.add.at(total, members, one)
        length = np.linalg.norm(total)
        scores[group.name] = total / length if norm == "l2" and length > 0 else total
    return scores


def _joined(paths: list[str], sets: Any) -> list[list[str]]:
    """Groups of paths that share a set, directly or through others, in the order of `paths`."""
    parent = {path: path for path in paths}

    def find(path: str) -> str:
        while parent[path] != path:
            parent[path] = parent[parent[path]]
            path = parent[path]
        return path

    for members in sets:
        first, *rest = members
        for path in rest:
            parent[find(path)] = find(first)
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        found[find(path)].append(path)
    return list(found.values())
