"""``python -m keras_xaic`` is the command `xaic`."""

from __future__ import annotations

from keras_xaic.cli import main

main()
