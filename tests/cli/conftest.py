from __future__ import annotations

import pytest

from keras_xaic.cli import build_commands, inspect_commands


@pytest.fixture
def anything_given(monkeypatch):
    """Commands take names of files that do not exist: what is tested comes later."""
    for module in (build_commands, inspect_commands):
        monkeypatch.setattr(module, "check_given", lambda *_, **__: None)
