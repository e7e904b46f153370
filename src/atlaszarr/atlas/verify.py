"""What the atlases at a place claim against what they hold. Only reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..brainglobe import meshes
from ..brainglobe import paths as names
from ..brainglobe.paths import below
from ..engine.ledger import Defect, digest
from ..engine.target_state import read_root
from ..engine.verify import VerifyReport, verify_image
from ..errors import InputError
from ..stores.target import Target
from .manifest import records


def verify_atlas(place: Target, *, deep: bool) -> VerifyReport | None:
    """Check all atlases at a place: every image, every mesh, every table.

    Parameters
    ----------
    place : Target
    deep : bool
        See `atlaszarr.verify`.

    Returns
    -------
    VerifyReport or None
        None if there is no atlas.
    """
    found = list(records(place))
    if not found:
        return None
    objects = blocks = 0
    defects: list[Defect] = []
    for key, document in found:
        if document is None:
            defects.append(Defect("metadata", key, "cannot be read"))
            continue
        if document["state"] != "finished":
            defects.append(Defect("unfinished", key, "is of an atlas that is unfinished; build again to resume"))
            continue
        defects += _files(place, document)
        for path in document["images"]:
            report = _image(place, path, deep)
            objects, blocks = objects + report.objects, blocks + report.blocks
            defects += [Defect(one.kind, f"{path}/{one.key}", one.text) for one in report.defects]
    return VerifyReport(place.url, objects, blocks, tuple(defects))


def _image(place: Target, path: str, deep: bool) -> VerifyReport:
    target = below(place, path)
    if path.endswith(names.PRECOMPUTED):
        return VerifyReport(target.url, 0, 0, tuple(meshes.defects(target)))
    try:
        found = read_root(target) is not None
    except InputError:
        found = False
    report = verify_image(target, deep=deep) if found else None
    return report or VerifyReport(target.url, 0, 0, (Defect("missing", "", "is not there"),))


def _files(place: Target, document: dict[str, Any]) -> Iterator[Defect]:
    for key, (size, checksum) in document["files"].items():
        body = place.read(key)
        if body is None:
            yield Defect("missing", key, "is not there")
        elif (len(body), digest(body)) != (size, checksum):
            yield Defect("altered", key, "does not hold what was written")
