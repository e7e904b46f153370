"""The rules for the documents of an asset: manifest.json, data_description.json and processing.json.

Those of aind-data-schema 2 are here as far as they concern the keys of the top and of a process: the package takes over
a second to import, and belongs to the tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from ..engine.ledger import Defect
from ..errors import InputError, brief
from ..stores.documents import parse_object
from ..stores.target import Target
from .names import Asset
from .standard import KINDS, LARGEST, Kind


def read_object(root: Target, key: str) -> dict[str, Any] | Defect:
    """A document of JSON, or the defect that it is missing or cannot be read."""
    try:
        if (body := root.read(key, LARGEST)) is None:
            return Defect("missing", key, "is missing")
        return parse_object(body)
    except InputError as error:
        return Defect("metadata", key, str(error).removeprefix(f"{root.url}/{key} "))
    except ValueError as error:
        return Defect("metadata", key, f"cannot be read as JSON: {str(error)[:150]}")


def manifest_faults(content: Mapping[str, Any], asset: Asset, folder: str) -> Iterator[str]:
    """What is wrong with a manifest on its own.

    Parameters
    ----------
    content : mapping
    asset : Asset
        Kind, name and version of its folder.
    folder : str
        Relative to the root of the tree.
    """
    kind = KINDS[asset.kind]
    for name in (*kind.keys, "described_by"):
        if name not in content:
            yield f"lacks the key {name}"
    own = {"name": (asset.name,), "version": (asset.version, asset.version.replace("_", "."))}
    for name, expected in own.items():
        if name in kind.keys and name in content and content[name] not in expected:
            yield f"has the {name} {brief(content[name])} in the folder {folder}"
    if "location" in content and str(content["location"]).strip("/") != folder:
        yield f"has the location {brief(content['location'])} in the folder {folder}"
    valid = {name: is_valid for name, is_valid in _MANIFEST.items() if name in kind.keys and name in content}
    for name, (is_valid, what) in valid.items():
        if not is_valid(content[name]):
            yield f"has the {name} {brief(content[name], 100)}, which is not {what}"
    if "described_by" in content:
        yield from _page_faults(content["described_by"], kind.page)


def _page_faults(url: Any, page: str) -> Iterator[str]:
    try:
        parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        yield f"has described_by {brief(url)}, which is not a URL"
    elif parts.path.rpartition("/")[2].removesuffix(".html") != page:
        yield f"has described_by {brief(url, 100)}, which is not the page {page}.html of the standard"


def is_text(value: Any) -> bool:
    """Whether a value is text that is not blank."""
    return isinstance(value, str) and bool(value.strip())


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and is_text(value.get("name"))


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value) is not None
    except ValueError:
        return False


def _is_plain(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r'[^<>:;"/|?\\_]+', value) is not None


def _are(values: Any, valid: Callable[[Any], bool], least: int = 1) -> bool:
    return isinstance(values, list) and len(values) >= least and all(map(valid, values))


#: Sizes of voxels in um are compared to this many digits.
_DIGITS = 3
#: Whether the value of a key of a manifest is valid, and what it must be.
_MANIFEST: dict[str, tuple[Callable[[Any], bool], str]] = {
    "schema_version": (
        lambda value: isinstance(value, str) and re.fullmatch(r"v?\d+(\.\d+)*\S*", value) is not None,
        "a version of the standard",
    ),
    "coordinate_space": (lambda value: isinstance(value, dict), "a reference"),
    "terminology": (lambda value: isinstance(value, dict), "a reference"),
    "templates": (lambda value: isinstance(value, list), "a list"),
    "annotation_sets": (lambda value: isinstance(value, list) and len(value) > 0, "a list of at least one reference"),
    "scales": (lambda value: _are(value, lambda scale: microns(scale) is not None), "a list of sizes of voxels in um"),
    "origin": (lambda value: value not in (None, "", {}, []), "an origin"),
    "spacing": (lambda value: value not in (None, "", {}, []), "a spacing"),
}
#: The keys that a data_description.json of aind-data-schema 2 must have, and whether a value is valid.
_DESCRIPTION: dict[str, Callable[[Any], bool]] = {
    "creation_time": _is_time,
    "data_level": lambda value: value in ("raw", "derived", "simulated"),
    "funding_source": lambda value: _are(value, lambda one: isinstance(one, dict) and _is_named(one.get("funder"))),
    "institution": _is_named,
    "investigators": lambda value: _are(value, _is_named),
    "modalities": lambda value: _are(
        value, lambda one: isinstance(one, dict) and is_text(one.get("abbreviation")), least=0
    ),
    "project_name": _is_plain,
}
#: The same of the keys that it may have.
_DESCRIPTION_MORE: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(
        ("name", "data_summary", "restrictions", "license", "describedBy", "schema_version", "object_type"),
        lambda value: value is None or isinstance(value, str),
    ),
    "subject_id": lambda value: value is None or (isinstance(value, str) and re.fullmatch("[^_]+", value) is not None),
    "group": lambda value: value is None or isinstance(value, str),
    "source_data": lambda value: value is None or _are(value, is_text, least=0),
    "tags": lambda value: value is None or _are(value, is_text, least=0),
}
#: The keys of a process in a processing.json.
_PROCESS: dict[str, Callable[[Any], bool]] = {
    "code": lambda value: isinstance(value, dict) and isinstance(value.get("url"), str),
    "experimenters": lambda value: _are(value, is_text, least=0),
    "process_type": is_text,
    "stage": lambda value: value in ("Processing", "Analysis"),
    "start_date_time": _is_time,
}


def _entry_faults(content: Mapping[str, Any], valid: Mapping[str, Callable[[Any], bool]]) -> Iterator[str]:
    for name, is_valid in valid.items():
        if name not in content:
            yield f"lacks the key {name}"
        elif not is_valid(content[name]):
            yield f"has the {name} {brief(content[name])}, which aind-data-schema does not allow"


def description_faults(content: Mapping[str, Any], kind: Kind) -> Iterator[str]:
    """What is wrong with a data_description.json of an asset of a kind."""
    further = {name: valid for name, valid in _DESCRIPTION_MORE.items() if name in content}
    yield from _entry_faults(content, {**_DESCRIPTION, **further})
    for name in content:
        if name not in _DESCRIPTION and name not in _DESCRIPTION_MORE:
            yield f"has the key {brief(name)}, which aind-data-schema does not know"
    if not kind.has_modalities and content.get("modalities"):
        yield f"has the modalities {brief(content['modalities'])}; only templates and atlases have any"


def processing_faults(content: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a processing.json; of its processes, with the first one that is wrong."""
    processes = content.get("data_processes")
    if not isinstance(processes, list) or not processes:
        yield "lacks a list data_processes of at least one process"
        return
    for process in processes:
        if not isinstance(process, dict):
            yield f"has the process {brief(process)}, which is not an object"
            return
        if found := list(_entry_faults(process, _PROCESS)):
            yield from found
            return


def microns(scale: Any) -> tuple[float, ...] | None:
    """The size of a voxel in um along (z, y, x) by an entry of ``scales``; None if it is not valid."""
    sizes = scale if isinstance(scale, list) else [scale] * 3
    if len(sizes) != 3 or not all(type(size) in (int, float) and 0 < size < 1e9 for size in sizes):
        return None
    return tuple(round(float(size), _DIGITS) for size in sizes)
