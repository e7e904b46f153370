"""`verify`: validate an image, a collection of images or an atlas."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .annotation_set import masks  # noqa: F401 - a kind of multiscale that the engine does not import
from .atlas.verify import verify_atlas
from .engine.verify import VerifyReport, verify_image
from .errors import InputError
from .stores.target import Target


def verify(
    target: str | os.PathLike[str], *, deep: bool = False, storage_options: Mapping[str, Any] | None = None
) -> VerifyReport:
    """Validate a target: every object, all metadata, and each level against the level before it.

    In a folder of atlases, everything that belongs to them is validated.

    Parameters
    ----------
    target : str or path-like
        A local path, or any URL that fsspec opens.
    deep : bool
        Whether to compare the levels of all blocks, and the labels in them with their metadata; if not, those of a
        sample of blocks.
    storage_options : mapping, optional
        Options of the store, as for fsspec.

    Returns
    -------
    VerifyReport

    Raises
    ------
    InputError
        If the target holds nothing that atlaszarr wrote.
    TargetError
        If the target cannot be read.
    """
    opened = Target.of(target, storage_options)
    report = verify_image(opened, deep=deep) or verify_atlas(opened, deep=deep)
    if report is None:
        raise InputError(
            f"target {opened.url} holds nothing that atlaszarr wrote; give the target of a build", code="not-atlaszarr"
        )
    return report
