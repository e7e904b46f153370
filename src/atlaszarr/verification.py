"""`verify`: whatever atlaszarr wrote, an image, a collection or an atlas, is checked by what knows it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .atlas.verify import verify_atlas
from .brainglobe import masks  # noqa: F401 - a kind of multiscale
from .engine import collection  # noqa: F401 - another
from .engine.verify import VerifyReport, verify_image
from .errors import InputError
from .stores.target import Target


def verify(
    target: str | os.PathLike[str], *, deep: bool = False, storage_options: Mapping[str, Any] | None = None
) -> VerifyReport:
    """Check a target: every object, all metadata, and that each level is what its parent makes.

    Of a folder that atlases were built in, all that is theirs.

    Parameters
    ----------
    target : str or path-like
        A local path, or any URL that fsspec opens.
    deep : bool
        Whether to compare the levels of all blocks, and the labels in them with their metadata; else of a sample.
    storage_options : mapping, optional
        To fsspec.

    Returns
    -------
    VerifyReport

    Raises
    ------
    InputError
        If there is nothing that atlaszarr built.
    TargetError
        If the target cannot be read.
    """
    place = Target.of(target, storage_options)
    report = verify_image(place, deep=deep) or verify_atlas(place, deep=deep)
    if report is None:
        raise InputError(f"target {place.url} holds no image of atlaszarr; give the place that one was built at")
    return report
