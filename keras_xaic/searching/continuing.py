"""What a search that continues another one has in common with it: what was asked for, versions, and the directory."""

from __future__ import annotations

import hashlib
import json
import pathlib
import secrets
from typing import Any

from keras_xaic._keras import tf
from keras_xaic._version import __version__
from keras_xaic.errors import PlanError
from keras_xaic.identity import facts_of
from keras_xaic.ownership import Mark
from keras_xaic.pipeline.inputs import travelling
from keras_xaic.searching.database import DATABASE
from keras_xaic.searching.trial import Setting


def check_same_settings(study: Any, setting: Setting, directory: pathlib.Path, alone: bool) -> None:
    """Keeps trials of different settings and versions apart; a study without trials that nobody shares begins again.

    Raises:
        PlanError: If the study was begun with another model, other data, other settings or other versions.
    """
    digest = hashlib.sha256(json.dumps([facts_of(setting.run), setting.objectives]).encode())
    for given in map(pathlib.Path, travelling(setting.model, setting.data, setting.run.options).values()):
        for path in sorted(given.rglob("*")) if given.is_dir() else [given]:
            if path.is_file():
                with open(path, "rb") as file:
                    for part in iter(lambda: file.read(1 << 20), b""):
                        digest.update(part)
    known, versions = study.user_attrs, {"keras-xaic": __version__, "TensorFlow": tf.__version__}
    if "settings" not in known or (alone and not study.get_trials(deepcopy=False)):  # what was wrong before may be mended
        study.set_user_attr("versions", versions)
        study.set_user_attr("settings", digest.hexdigest())
        return
    another = "Choose another {out}, and another {storage} if you gave one"
    if known.get("versions") != versions:
        begun = " and ".join(f"{name} {version}" for name, version in known.get("versions", {}).items()) or "an older version"
        here = " and ".join(f"{name} {version}" for name, version in versions.items())
        raise PlanError(f"the search in {directory} was begun with {begun}", f"{here}, which is here", another)
    if known["settings"] != digest.hexdigest():
        found = f"the search in {directory} was begun with another model, other data or other settings"
        raise PlanError(found, "the same ones, to continue it", another)


def check_same_study(study: Any, directory: pathlib.Path) -> None:
    """Keeps bundles of different studies apart, which number their trials alike: each directory is known to its study.

    Raises:
        PlanError: If another study wrote what is there.
    """
    mark = Mark.read(directory)
    name = mark.job if mark is not None else ""
    if not name:
        name = f"directory {secrets.token_hex(8)}"
        study.set_user_attr(name, True)  # first: nobody would ever know the directory if this were ended here
        Mark("search", name).write(directory)
    elif name not in study.user_attrs:
        raise PlanError(
            f"{directory} holds the models of another study than the one in the database",
            f"{DATABASE} of this directory, or the storage that it was begun with",
            "Choose another {out}; give the {storage} that it was begun with",
        )
