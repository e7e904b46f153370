"""`verify`: validate an image, a collection of images, an atlas, or a folder of images, such as those of a batch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .annotation_set import masks  # noqa: F401 - a kind of multiscale that the engine does not import
from .assets.names import below
from .atlas.verify import verify_atlas
from .engine.ledger import Defect
from .engine.verify import VerifyReport, verify_image
from .errors import InputError
from .stores.target import Target


def verify(
    target: str | os.PathLike[str], *, deep: bool = False, storage_options: Mapping[str, Any] | None = None
) -> VerifyReport:
    """Validate a target: every object, all metadata, and each level against the level before it.

    In a folder of atlases, everything that belongs to them is validated; in any other folder, such as the root of a
    batch, every image directly in it that atlaszarr wrote.

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
    report = verify_image(opened, deep=deep) or verify_atlas(opened, deep=deep) or _verify_images(opened, deep)
    if report is None:
        raise InputError(
            f"target {opened.url} holds nothing that atlaszarr wrote; give a target, or a folder of targets",
            code="not-atlaszarr",
        )
    return report


def _verify_images(folder: Target, deep: bool) -> VerifyReport | None:
    """Validate the images directly in a folder; None if there is none."""
    objects = blocks = images = 0
    defects: list[Defect] = []
    for name in folder.folders() or ():
        if not name.endswith(".zarr") or (report := verify_image(below(folder, name), deep=deep)) is None:
            continue
        images += 1
        objects, blocks = objects + report.objects, blocks + report.blocks
        defects += (Defect(defect.kind, f"{name}/{defect.key}", defect.text) for defect in report.defects)
    return VerifyReport(folder.url, objects, blocks, tuple(defects)) if images else None
