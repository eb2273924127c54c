"""Takes one model out of a search: its bundle is copied, and proved again."""

from __future__ import annotations

import pathlib
import shutil
from dataclasses import replace
from typing import Any, Optional

from keras_xaic.arguments import a_path, an, checked
from keras_xaic.bundle import Bundle
from keras_xaic.edge import Verification
from keras_xaic.edge.marking import verify
from keras_xaic.errors import DataError, PlanError
from keras_xaic.files import PathLike, tells_machine_errors
from keras_xaic.objectives import best_of, parse_conditions
from keras_xaic.ownership import MARK, Mark, output
from keras_xaic.progress import Progress, silent
from keras_xaic.report import Front, read_front
from keras_xaic.report.points import FRONT
from keras_xaic.searching.trial import TRIALS
from keras_xaic.settings import DataOptions


@tells_machine_errors
@checked(options=an(DataOptions), front=a_path)
def pick(
    front: PathLike,
    data: Any,
    out: PathLike,
    rule: str,
    *,
    options: Optional[DataOptions] = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Verification:
    """Copies the best model that meets the conditions out of a search, and measures it again.

    Args:
        front: Directory of a search.
        data: Anything that `as_data` takes, or a path; the bundle is run on its test part.
        out: Directory of the bundle.
        rule: Conditions on objectives, separated by commas: ``flash<48kB``. Among the models that meet them, and the budget of
            the search, the best in what they do not name is taken, the metric first.
        options: As for `verify`.
        overwrite: Replace a bundle that is there already.
        progress: Told how far the work is.

    Returns:
        What `verify` measured.

    Raises:
        PlanError: If no model meets the conditions.
        EdgeError: If an interpreter fails; nothing is copied then.
        XaicError: Of the kind that fits what is wrong.
    """
    conditions, found = parse_conditions(rule), read_search(front)
    for one in conditions:
        if one.name not in found.objectives:
            raise PlanError(f"the search in {front} did not measure {one.name}", f"one of {', '.join(found.objectives)}")
    points = [one for one in found.points if one.meets]
    best = best_of(points, conditions)
    if best is None:
        raise PlanError(f"none of {len(points)} models in {front} meets {rule}", "conditions that one does", "See front.html")
    source = Bundle(pathlib.Path(front) / TRIALS / str(best.trial))
    if not source.model.is_file():
        raise DataError(f"{source} is not there: trial {best.trial} ran elsewhere, or was moved", "the bundle of that trial")
    with output(out, "bundle", overwrite=overwrite, inputs=[source.path, data]) as place, place.fresh() as fresh:
        shutil.copytree(source.path, fresh, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MARK))
        proved = verify(fresh, data, interpreter="all", options=options, progress=progress)
    return replace(proved, path=pathlib.Path(out))


def read_search(place: PathLike) -> Front:
    """Reads the front.json of a search directory.

    Raises:
        DataError: If there is no search, or its file is damaged.
    """
    mark = Mark.read(pathlib.Path(place))
    if mark is None or mark.kind != "search":
        raise DataError(f"{place} holds no search", "the directory that `xaic search` wrote")
    return read_front(pathlib.Path(place) / FRONT)
