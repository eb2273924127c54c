"""Plain data that people write, in Python or in a file: entries are validated, and what is wrong with one is one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional, TypeVar, cast

import pydantic

from keras_xaic.arguments import shown
from keras_xaic.errors import PlanError, choices

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(pydantic.BaseModel)


Copied = TypeVar("Copied", bound="Written")


class Made(ModelMetaclass):
    """Makes objects; what pydantic says is wrong becomes one of our errors."""

    def __call__(cls, *args: object, **entries: object) -> Any:
        """Makes one of its entries by name."""
        if args:
            raise PlanError(
                f"{cls.__name__} gets {shown(args[0])} without a name",
                f"entries by name: {', '.join(getattr(cls, 'model_fields', ()))}",
            )
        try:
            return super().__call__(**entries)
        except pydantic.ValidationError as error:
            raise what_is_wrong(error, cls.__name__, cls) from None


class Written(pydantic.BaseModel, metaclass=Made):
    """Base of frozen objects with named entries; unknown ones are refused."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    def __setattr__(self, name: str, value: object) -> None:
        kind = type(self).__name__
        raise PlanError(f"{kind}.{name} is set, and a {kind} does not change", f"a new one: changed({name}=...)")

    def changed(self, **entries: object) -> Any:
        """Returns the same with other entries, validated.

        Raises:
            PlanError: Naming the entry that is wrong.
        """
        kept = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**kept, **entries})

    def model_copy(self: Copied, *, update: Optional[Mapping[str, Any]] = None, deep: bool = False) -> Copied:
        """What pydantic and `copy.replace` call `changed`; theirs would take anything."""
        same: Copied = super().model_copy(deep=deep)
        return cast(Copied, same.changed(**update)) if update else same


def what_is_wrong(error: pydantic.ValidationError, where: str, kind: Any = None, expected: str = "") -> PlanError:
    """Returns what pydantic says as one line: the first entry that is wrong, with the nearest name where it is not known.

    Args:
        error: What pydantic says.
        where: The file or object.
        kind: Class of the object, whose entries are the names that there are.
        expected: What would be right, where nothing better is known.
    """
    first: Any = error.errors()[0]
    entry = ".".join(str(part) for part in first["loc"])
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1 and kind is not None:
        return PlanError(f"{where}: unknown entry {entry!r}", choices(entry, kind.model_fields))
    return PlanError(f"{where}: {entry + ': ' if entry else ''}{said}", expected)
