"""`verify`: validate an image, a collection of images, an atlas, or a folder of images, such as those of a batch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .annotation_set import masks  # noqa: F401 - a kind of multiscale that the engine does not import
from .assets.names import below
from .atlas.verify import verify_atlas
from .dataset_batch.journal import BATCH, finished_targets
from .dataset_refinement import files  # noqa: F401 - a kind of multiscale that the engine does not import
from .engine.ledger import Defect
from .engine.verify import VerifyReport, joined, verify_image
from .errors import InputError, TargetError
from .stores.target import Target


def verify(
    target: str | os.PathLike[str], *, deep: bool = False, storage_options: Mapping[str, Any] | None = None
) -> VerifyReport:
    """Validate a target: every object, all metadata, and each level against the level before it.

    In a folder, every atlas and everything that belongs to it is validated, and every image directly in the folder that
    atlaszarr wrote; in the root of a batch also that none is missing which its journal calls finished.

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
    if (report := verify_image(opened, deep=deep)) is not None:
        return report
    parts = [part for part in (verify_atlas(opened, deep=deep), _verify_images(opened, deep)) if part is not None]
    if not parts:
        raise InputError(
            f"target {opened.url} holds nothing that atlaszarr wrote; give a target, or a folder of targets",
            code="not-atlaszarr",
        )
    return joined(opened.url, parts, [defect for part in parts for defect in part.defects])


def _verify_images(folder: Target, deep: bool) -> VerifyReport | None:
    """Validate the images directly in a folder; None if there is none.

    Images of other programs are left out. What cannot be read on a disk is a defect of its image; a store that fails
    ends the validation, since it would be waited for at every image.
    """
    names = folder.folders() or []
    images: dict[str, VerifyReport | None] = {}
    defects: list[Defect] = []
    for name in names:
        try:
            report = verify_image(below(folder, name), deep=deep)
        except (InputError, TargetError) as error:
            if isinstance(error, TargetError) and not folder.is_local:
                raise
            if error.code != "not-atlaszarr":
                images[name] = None
                defects.append(Defect("unreadable", name, str(error)))
            continue
        if report is not None:
            images[name] = report
            defects += (Defect(one.kind, f"{name}/{one.key}".rstrip("/"), one.text) for one in report.defects)
    if BATCH in names:
        lost = (name for name in finished_targets(folder) if name not in images)
        text = "is missing, and the journal of the batch calls it finished; remove the journal and run the batch again"
        defects += (Defect("missing", name, text) for name in lost)
    return joined(folder.url, filter(None, images.values()), defects) if images or defects else None
