"""What a finished target says of itself: build.json, sections.csv, failures.csv, and its OME-Zarr metadata."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from typing import Any

from . import metadata
from .allen.images import MissingImage
from .ledger import Entry, Task
from .planning import Layout, Plan
from .store import Target

_PACKAGES = ("dask", "fsspec", "numba", "numpy", "s3fs", "simplejpeg", "zarr")


def version(package: str = "atlaszarr") -> str:
    """The installed version of a package, or "unknown"."""
    try:
        return package_version(package)
    except PackageNotFoundError:
        return "unknown"


def write_build(target: Target, layout: Layout, plan: Plan, api_url: str) -> None:
    """Put ``atlaszarr/build.json``: all that is needed to build the target again."""
    document = {
        "atlaszarr": version(),
        "versions": {package: version(package) for package in _PACKAGES},
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "request": layout.request.identity(layout.dataset),
        "api": api_url,
        "reference_space": layout.stack.grid.space.id,
        "anchor_um": layout.stack.grid.space.anchor,
        "plan": {name: value for name, value in plan.to_dict().items() if name != "target"},
        "credit": metadata.CREDIT,
        "dataset": layout.dataset.to_dict(),
    }
    target.write("atlaszarr/build.json", json.dumps(document, indent=1).encode())


def write_tables(target: Target, layout: Layout, done: Mapping[Task, Entry], failures: Sequence[MissingImage]) -> None:
    """Put ``atlaszarr/sections.csv`` and ``atlaszarr/failures.csv``.

    Every section image of the dataset is in the first, with what became of it: ``used``, ``missing``, ``outside``
    the grid, or ``skipped`` with the reason.
    """
    used = digests(done)
    missing = {failure.request.image_id: failure.reason for failure in failures}
    rows: list[tuple[Any, ...]] = []
    for section, request in zip(layout.stack.sections, layout.stack.requests, strict=True):
        id = section.image_id
        state = "missing" if id in missing else "used" if id in used else "outside"
        size = (request.downsample, request.width, request.height)
        digest = used.get(id, "") if state == "used" else ""
        rows.append((id, section.section_number, section.depth, state, missing.get(id, ""), *size, digest))
    for skipped in (*layout.stack.skipped, *layout.dataset.skipped):
        number = "" if skipped.section_number is None else skipped.section_number
        rows.append((skipped.image_id, number, "", "skipped", skipped.reason, "", "", "", ""))
    header = ("image_id", "section_number", "depth_um", "state", "reason", "downsample", "width", "height", "sha256")
    target.write("atlaszarr/sections.csv", _table(header, rows))
    numbers = {section.image_id: section.section_number for section in layout.stack.sections}
    failed = [(f.request.image_id, numbers[f.request.image_id], f.url, f.reason) for f in failures]
    target.write("atlaszarr/failures.csv", _table(("image_id", "section_number", "url", "reason"), failed))


def digests(done: Mapping[Task, Entry]) -> dict[int, str]:
    """SHA-256 of the JPEG body of every SectionImage id that blocks were made from."""
    return {id: digest for entry in done.values() for id, digest in entry.images.items() if digest}


def write_metadata(target: Target, layout: Layout) -> dict[str, Any]:
    """Put the metadata of the groups below the root, and return the attributes that the root is to have."""
    stack, levels = layout.stack, layout.pyramid.levels
    for key, attributes in (
        ("labels/section/zarr.json", metadata.section_attributes(stack.grid, levels, stack.sections)),
        ("labels/zarr.json", metadata.labels_attributes()),
    ):
        target.write(key, json.dumps(metadata.group(attributes), indent=1).encode())
    return metadata.image_attributes(stack.grid, levels, layout.dataset)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()
