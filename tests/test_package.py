from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import keras_xaic


@pytest.mark.parametrize("module", ["keras_xaic", "keras_xaic.edge", "keras_xaic.report", "keras_xaic.data"])
def test_import_without_tensorflow(module):
    code = f"import sys, {module}; sys.exit(any(name.split('.')[0] in ('tensorflow', 'keras') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there():
    for name in keras_xaic.__all__:
        assert getattr(keras_xaic, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = keras_xaic.nothing


def test_no_room_takes_the_place_of_a_name():
    for name in keras_xaic.__all__:  # loads all rooms, of which each becomes a name of the package
        getattr(keras_xaic, name)
    assert [name for name in keras_xaic.__all__ if inspect.ismodule(getattr(keras_xaic, name))] == []


def test_errors_keep_found_expected_and_fix():
    error = keras_xaic.DataError("x is 3", "4", "Use 4")
    assert str(error) == "x is 3. Expected 4. Use 4."
    assert isinstance(error, keras_xaic.XaicError)
    assert (error.exit_code, keras_xaic.EdgeError("died").exit_code) == (2, 4)
