"""Many runs: the front of bytes, metric, latency, RAM and similarity, resumable, on one machine or several."""

from __future__ import annotations

from keras_xaic.report import Found
from keras_xaic.searching.picking import pick, read_search
from keras_xaic.searching.study import search

__all__ = ["Found", "pick", "read_search", "search"]
