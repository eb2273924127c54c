"""``python -m keras_xaic.cli`` is the command `xaic`."""

from __future__ import annotations

from keras_xaic.cli import main

main()
