"""What a target says of its making: build.json, sections.csv and failures.csv."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..allen.images import MissingImage
from ..credit import CREDIT
from ..engine.ledger import Entry, Task
from ..stores.target import Target
from ..versions import version
from .layout import Layout
from .plan import Plan

#: Keys of what is written here.
FILES = ("atlaszarr/build.json", "atlaszarr/sections.csv", "atlaszarr/failures.csv")
_PACKAGES = ("dask", "fsspec", "google-crc32c", "numba", "numcodecs", "numpy", "obstore", "simplejpeg", "zarr")


def write_build(target: Target, layout: Layout, request: Mapping[str, Any], plan: Plan, api_url: str) -> None:
    """Put ``atlaszarr/build.json``: all that is needed to build the target again."""
    document = {
        "atlaszarr": version(),
        "versions": {package: version(package) for package in _PACKAGES},
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "request": request,
        "api": api_url,
        "reference_space": layout.grid.space.id,
        "anchor_um": layout.grid.space.anchor,
        "plan": {name: value for name, value in plan.to_dict().items() if name != "target"},
        "credit": CREDIT,
        "dataset": layout.dataset.to_dict(),
    }
    target.write("atlaszarr/build.json", json.dumps(document, indent=1).encode())


def is_of(target: Target, request: Mapping[str, Any]) -> bool:
    """Whether ``atlaszarr/build.json`` is there, and of a request."""
    try:
        return bool(json.loads(target.read("atlaszarr/build.json") or b"")["request"] == request)
    except (ValueError, KeyError, TypeError):
        return False


def write_tables(target: Target, layout: Layout, done: Mapping[Task, Entry], failures: Sequence[MissingImage]) -> None:
    """Put ``atlaszarr/sections.csv`` and ``atlaszarr/failures.csv``.

    Every section image of the dataset is in the first, with what became of it: ``used``, ``missing`` (if only in
    part), ``outside`` the grid, or ``skipped`` with the reason. The SHA-256 of an image that was fetched in windows is
    that of the digests of those used, in the order of their names.
    """
    used: dict[int, dict[str, str]] = {}
    for name, digest in digests(done).items():
        used.setdefault(int(name.partition("/")[0]), {})[name] = digest
    missing = {failure.request.image_id: failure.reason for failure in failures}
    rows: list[tuple[Any, ...]] = []
    columns = layout.columns
    for position, (section, request) in enumerate(zip(layout.imaged.sections, layout.imaged.requests, strict=True)):
        id = section.image_id
        state = "missing" if id in missing else "used" if id in used else "outside"
        size = (request.downsample, request.width, request.height)
        digest = _digest(used[id]) if state == "used" else ""
        more = [values[position] for values in columns.values()]
        rows.append((id, section.section_number, section.depth, state, missing.get(id, ""), *size, digest, *more))
    for skipped in (*layout.imaged.skipped, *layout.dataset.skipped):
        number = "" if skipped.section_number is None else skipped.section_number
        rows.append((skipped.image_id, number, "", "skipped", skipped.reason, *[""] * (4 + len(columns))))
    header = ("image_id", "section_number", "depth_um", "state", "reason", "downsample", "width", "height", "sha256")
    target.write("atlaszarr/sections.csv", _table((*header, *columns), rows))
    numbers = {section.image_id: section.section_number for section in layout.imaged.sections}
    failed = [(f.request.image_id, numbers[f.request.image_id], f.url, f.reason) for f in failures]
    target.write("atlaszarr/failures.csv", _table(("image_id", "section_number", "url", "reason"), failed))


def digests(done: Mapping[Task, Entry]) -> dict[str, str]:
    """SHA-256 of the JPEG body of every image or window that blocks were made from, by its name."""
    return {name: digest for entry in done.values() for name, digest in images(entry).items() if digest}


def images(entry: Entry) -> dict[str, str | None]:
    """Names of the images that a block used, with the SHA-256 of their JPEG body; None for one that was missing."""
    return dict(entry.origin.get("images", {}))


def _digest(used: Mapping[str, str]) -> str:
    if len(used) == 1:
        (digest,) = used.values()
        return digest
    return hashlib.sha256("".join(used[name] for name in sorted(used)).encode()).hexdigest()


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()
