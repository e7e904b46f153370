"""The terminology of an annotation: as it is given, or the table that lies beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..errors import InputError, NotFoundError
from ..stores.locations import local_path, shown
from ..stores.target import Target
from .terminology import Terminology

#: Beside an annotation.
NAME = "terminology.csv"


def terminology_of(given: Any, annotation: Any = None, storage_options: Mapping[str, Any] | None = None) -> Terminology:
    """A terminology as it is given, or found beside an annotation.

    Parameters
    ----------
    given : Terminology, str, path-like or None
        A path or URL is of a ``terminology.csv``, or of a structure graph.
    annotation : optional
        Where None is given: a path or URL that a ``terminology.csv`` lies next to.
    storage_options : mapping, optional
        To fsspec, for a URL.

    Raises
    ------
    InputError
        If there is none.
    RecordError
        If it is not one tree or several.
    """
    if isinstance(given, Terminology):
        return given
    if given is not None:
        place, options = given, None if local_path(given) else storage_options
    elif isinstance(annotation, str | os.PathLike):
        place, options = f"{Target.of(annotation, storage_options).url.rpartition('/')[0]}/{NAME}", storage_options
    else:
        raise InputError("the annotation has no place to look for a terminology in; give the terminology")
    try:
        return Terminology.read(place, options)
    except NotFoundError:
        raise InputError(f"there is no terminology at {shown(place)}; give one (--terminology)") from None
