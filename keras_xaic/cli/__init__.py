"""The command `xaic`: thin, every command is one public function of the package."""

from __future__ import annotations

from keras_xaic.cli.app import main

__all__ = ["main"]
