"""The terminology of an annotation: as it is given, or the table that lies beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from .errors import InputError, NotFoundError
from .store import Target
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
        remote = "://" in os.fspath(given)
        place = Target.of(given, storage_options if remote else None)
    elif isinstance(annotation, str | os.PathLike):
        beside = Target.of(annotation, storage_options)
        place = Target(f"{beside.url.rpartition('/')[0]}/{NAME}", beside.storage_options)
    else:
        raise InputError("the annotation has no place to look for a terminology in; give the terminology")
    try:
        return Terminology.read(place.url, json.loads(place.storage_options))
    except NotFoundError:
        raise InputError(f"there is no terminology at {place.url}; give one (--terminology)") from None
