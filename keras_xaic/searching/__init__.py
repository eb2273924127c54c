"""Many runs: the Pareto front of size against accuracy, resumable, on one machine or many."""

from __future__ import annotations

from keras_xaic.searching.study import Found, search

__all__ = ["Found", "search"]
