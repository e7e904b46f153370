"""The rules for the documents of an asset: manifest.json, data_description.json and processing.json.

Those of aind-data-schema 2 are here as far as they concern the keys of a document and of a process: the package takes
over a second to import, and belongs to the tests. Members of its lists that grow with every version (organisations,
modalities, groups, kinds of processes) are not compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from ..engine.ledger import Defect
from ..errors import InputError, TargetError, brief
from ..stores.documents import parse_object
from ..stores.target import Target
from .names import Asset
from .standard import KINDS, LARGEST, Kind

#: Whether a value is valid.
Rule = Callable[[Any], bool]


def read_object(root: Target, key: str) -> dict[str, Any] | Defect:
    """A document of JSON, or the defect that it is missing or cannot be read."""
    try:
        if (body := root.read(key, LARGEST)) is None:
            return Defect("missing", key, "is missing")
        return parse_object(body)
    except (InputError, TargetError) as error:
        return Defect("metadata", key, fault_of_reading(root, error, key))
    except ValueError as error:
        return Defect("metadata", key, f"cannot be read as JSON: {str(error)[:150]}")


def fault_of_reading(root: Target, error: InputError | TargetError, key: str) -> str:
    """What is wrong with a file by the error of reading it; an error of a store that has failed is raised.

    Parameters
    ----------
    root : Target
    error : InputError or TargetError
    key : str
        Of the file or image, relative to the root.

    Raises
    ------
    TargetError
        If the tree is not on a local disk, where such an error is one of this file alone.
    """
    if isinstance(error, TargetError):
        if not root.is_local:
            raise error
        return f"cannot be read: {str(error).rpartition(': ')[2]}"
    return str(error).removeprefix(f"{root.url}/{key} ")


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
    # The manifests of atlases and templates need neither; BrainGlobe's atlases have other names than their folders.
    own = {"name": (asset.name,), "version": (asset.version, asset.version.replace("_", "."))}
    for name, expected in own.items():
        if name in kind.keys and name in content and content[name] not in expected:
            yield f"has the {name} {brief(content[name])} in the folder {folder}"
    location = content.get("location", folder)
    if not isinstance(location, str) or location.strip("/") != folder:
        yield f"has the location {brief(location)} in the folder {folder}"
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


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_anything(_value: Any) -> bool:
    return True


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and is_text(value.get("name"))


def _is_time(value: Any) -> bool:
    """Whether aind-data-schema reads a value as a time: a date with or without a time of day, or seconds since 1970."""
    if type(value) in (int, float):
        return math.isfinite(value)
    if not isinstance(value, str) or len(value) > _LONGEST:
        return False
    try:
        return value.isdecimal() or (_TIME.fullmatch(value) is not None and datetime.fromisoformat(value) is not None)
    except ValueError:
        return False


def _is_plain(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r'[^<>:;"/|?\\_]+', value) is not None


def _are(values: Any, valid: Rule, least: int = 1) -> bool:
    return isinstance(values, list) and len(values) >= least and all(map(valid, values))


def _or_none(valid: Rule) -> Rule:
    return lambda value: value is None or valid(value)


#: Sizes of voxels in um are compared to this many digits.
_DIGITS = 3
#: Characters of a version or a time: the longest known have about 32.
_LONGEST = 100
#: A version of the standard, with any text after its numbers.
_STANDARD = re.compile(r"v?\d+(\.\d+)*(\.?[^\d.\s]\S*)?")
#: A date, with or without a time of day and a time zone.
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII)
#: Whether the value of a key of a manifest is valid, and what it must be.
_MANIFEST: dict[str, tuple[Rule, str]] = {
    "schema_version": (
        lambda value: isinstance(value, str) and len(value) <= _LONGEST and _STANDARD.fullmatch(value) is not None,
        "a version of the standard",
    ),
    "coordinate_space": (_is_object, "a reference"),
    "terminology": (_is_object, "a reference"),
    "templates": (lambda value: isinstance(value, list), "a list"),
    "annotation_sets": (lambda value: isinstance(value, list) and len(value) > 0, "a list of at least one reference"),
    "scales": (lambda value: _are(value, lambda scale: microns(scale) is not None), "a list of sizes of voxels in um"),
    "origin": (lambda value: value not in (None, "", {}, []), "an origin"),
    "spacing": (lambda value: value not in (None, "", {}, []), "a spacing"),
    "source": (_is_object, "an object with a template and a coordinate space"),
    "target": (_is_object, "an object with a template and a coordinate space"),
    "directionality": (lambda value: value in ("one-way", "bidirectional"), "one-way or bidirectional"),
}
#: The keys that a data_description.json of aind-data-schema 2 must have, and whether a value is valid.
_DESCRIPTION: dict[str, Rule] = {
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
#: The keys that any document of it may have; it replaces the first two.
_ANY_DOCUMENT: dict[str, Rule] = {
    "object_type": _is_anything,
    "schema_version": _is_anything,
    "describedBy": _is_string,
}
#: The keys that a data_description.json may have.
_DESCRIPTION_MORE: dict[str, Rule] = {
    **_ANY_DOCUMENT,
    **dict.fromkeys(("name", "data_summary", "restrictions", "group"), _or_none(_is_string)),
    "license": lambda value: value in ("MIT", "CC-BY-4.0"),  # all of aind-data-schema 2.9
    "subject_id": _or_none(lambda value: isinstance(value, str) and re.fullmatch("[^_]+", value) is not None),
    **dict.fromkeys(("source_data", "tags"), _or_none(lambda value: _are(value, _is_string, least=0))),
}
#: The keys that a process in a processing.json must have.
_PROCESS: dict[str, Rule] = {
    "code": lambda value: isinstance(value, dict) and isinstance(value.get("url"), str),
    "experimenters": lambda value: _are(value, _is_string, least=0),
    "process_type": is_text,
    "stage": lambda value: value in ("Processing", "Analysis"),
    "start_date_time": _is_time,
}
#: The keys that it may have.
_PROCESS_MORE: dict[str, Rule] = {
    **dict.fromkeys(("object_type", "output_parameters", "resources"), _is_anything),
    "name": _is_string,
    **dict.fromkeys(("pipeline_name", "output_path", "notes"), _or_none(_is_string)),
    "end_date_time": _or_none(_is_time),
}
#: The keys that a processing.json may have, next to its processes.
_PROCESSING_MORE: dict[str, Rule] = {
    **_ANY_DOCUMENT,
    **dict.fromkeys(("data_processes", "pipelines", "dependency_graph"), _is_anything),
    "notes": _or_none(_is_string),
}


def _schema_faults(content: Mapping[str, Any], needed: Mapping[str, Rule], more: Mapping[str, Rule]) -> Iterator[str]:
    """What is against aind-data-schema: keys that are missing, have other values, or are unknown."""
    for name in needed:
        if name not in content:
            yield f"lacks the key {name}"
    for name, is_valid in {**needed, **more}.items():
        if name in content and not is_valid(content[name]):
            yield f"has the {name} {brief(content[name])}, which aind-data-schema does not allow"
    if unknown := [name for name in content if name not in needed and name not in more]:
        yield f"has the key {first_of(unknown)}, which aind-data-schema does not know"


def first_of(wrong: Sequence[Any]) -> str:
    """The first of several wrong values, and the number of the others."""
    return brief(wrong[0]) + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else "")


def description_faults(content: Mapping[str, Any], kind: Kind) -> Iterator[str]:
    """What is wrong with a data_description.json of an asset of a kind."""
    yield from _schema_faults(content, _DESCRIPTION, _DESCRIPTION_MORE)
    if not kind.has_modalities and content.get("modalities"):
        yield f"has the modalities {brief(content['modalities'])}; only templates and atlases have any"


def processing_faults(content: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a processing.json; of its processes, with the first one that is wrong."""
    yield from _schema_faults(content, {}, _PROCESSING_MORE)
    processes = content.get("data_processes")
    if not isinstance(processes, list) or not processes:
        yield "lacks a list data_processes of at least one process"
        return
    for process in processes:
        if not isinstance(process, dict):
            yield f"has the process {brief(process)}, which is not an object"
            return
        if found := list(_schema_faults(process, _PROCESS, _PROCESS_MORE)):
            yield from found
            return


def microns(scale: Any) -> tuple[float, ...] | None:
    """The size of a voxel in um along (z, y, x) by an entry of ``scales``; None if it is not valid."""
    sizes = scale if isinstance(scale, list) else [scale] * 3
    if len(sizes) != 3 or not all(type(size) in (int, float) and 0 < size < 1e9 for size in sizes):
        return None
    return tuple(round(float(size), _DIGITS) for size in sizes)
