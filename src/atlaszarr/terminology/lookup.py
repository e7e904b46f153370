"""The terminology of an annotation: a given one, or the table next to the annotation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..errors import InputError, NotFoundError
from ..stores.locations import local_path, shown
from ..stores.target import Target
from .terminology import Terminology

#: Of the table next to an annotation.
NAME = "terminology.csv"


def terminology_of(given: Any, annotation: Any = None, storage_options: Mapping[str, Any] | None = None) -> Terminology:
    """A terminology that is given, or found next to an annotation.

    Parameters
    ----------
    given : Terminology, str, path-like or None
        A path or URL leads to a ``terminology.csv`` or a structure graph.
    annotation : optional
        If None is given: a path or URL with a ``terminology.csv`` next to it.
    storage_options : mapping, optional
        Same as in `build`, for a URL.

    Raises
    ------
    InputError
        If it is missing.
    RecordError
        If it is not one tree or several.
    """
    if isinstance(given, Terminology):
        return given
    if given is not None:
        location, options = given, None if local_path(given) else storage_options
    elif isinstance(annotation, str | os.PathLike):
        location, options = f"{Target.of(annotation, storage_options).url.rpartition('/')[0]}/{NAME}", storage_options
    else:
        raise InputError("the annotation is not a path or URL with a terminology next to it; give the terminology")
    try:
        return Terminology.read(location, options)
    except NotFoundError:
        raise InputError(f"there is no terminology at {shown(location)}; give one (--terminology)") from None
