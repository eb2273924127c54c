"""Keras models: loading, one canonical form, kernels, channels and surgery.

Names are loaded when they are first used: files are looked into without TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_xaic.lazy import loaded_later

if TYPE_CHECKING:
    from keras_xaic.models.branches import Branch, residual_branches
    from keras_xaic.models.canonical import Canonical, canonicalize
    from keras_xaic.models.channels import ChannelGroup, ChannelGroups, channel_groups, group_scores
    from keras_xaic.models.costs import kept_macs, kept_parameters, macs, parameters
    from keras_xaic.models.kernels import Kernel, weighted_kernels
    from keras_xaic.models.loading import load_model, save_model
    from keras_xaic.models.operations import Operation, Operations
    from keras_xaic.models.ports import Ports, keep_ports, ports_of
    from keras_xaic.models.surgery import remove_branches, remove_channels
    from keras_xaic.models.task import Task, fitted, heads_of, infer_task

_HOME = {
    "Branch": "branches",
    "Canonical": "canonical",
    "ChannelGroup": "channels",
    "ChannelGroups": "channels",
    "Kernel": "kernels",
    "Operation": "operations",
    "Operations": "operations",
    "Ports": "ports",
    "Task": "task",
    "canonicalize": "canonical",
    "channel_groups": "channels",
    "fitted": "task",
    "group_scores": "channels",
    "heads_of": "task",
    "infer_task": "task",
    "keep_ports": "ports",
    "kept_macs": "costs",
    "kept_parameters": "costs",
    "load_model": "loading",
    "macs": "costs",
    "parameters": "costs",
    "ports_of": "ports",
    "remove_branches": "surgery",
    "remove_channels": "surgery",
    "residual_branches": "branches",
    "save_model": "loading",
    "weighted_kernels": "kernels",
}

__all__ = [
    "Branch",
    "Canonical",
    "ChannelGroup",
    "ChannelGroups",
    "Kernel",
    "Operation",
    "Operations",
    "Ports",
    "Task",
    "canonicalize",
    "channel_groups",
    "fitted",
    "group_scores",
    "heads_of",
    "infer_task",
    "keep_ports",
    "kept_macs",
    "kept_parameters",
    "load_model",
    "macs",
    "parameters",
    "ports_of",
    "remove_branches",
    "remove_channels",
    "residual_branches",
    "save_model",
    "weighted_kernels",
]


__getattr__ = loaded_later(__name__, _HOME)
