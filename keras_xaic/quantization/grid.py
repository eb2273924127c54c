"""Moved to `keras_xaic.grids`."""

from keras_xaic.grids import *  # noqa: F403
