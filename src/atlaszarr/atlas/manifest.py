"""What an atlas is made of, and from what: one document an atlas, in the folder that it lies in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .. import credit
from ..brainglobe.paths import Layout
from ..engine.ledger import digest
from ..errors import InputError
from ..geometry.spaces import BRAINGLOBE_SIDES, ORIENTATION
from ..reference_volumes import ReferenceVolume
from ..stores.target import Target
from ..versions import version

_FOLDER = "atlaszarr"
#: By the orientation of x: whose convention it is.
_NAMED_BY = {
    ORIENTATION["x"]: "Allen Institute (low r is left)",
    BRAINGLOBE_SIDES: "BrainGlobe, issue 104 of brainglobe-atlasapi (the Allen Institute calls low r left)",
}


@dataclass(frozen=True)
class Record:
    """The document of an atlas at a place.

    Attributes
    ----------
    place : Target
    layout : Layout
    """

    place: Target
    layout: Layout

    @property
    def key(self) -> str:
        """Of the document."""
        return f"{_FOLDER}/{self.layout.name}-{self.layout.version}.json"

    def begin(self, files: Mapping[str, bytes], overwrite: bool) -> None:
        """Say that the atlas is unfinished, and put files of it.

        Raises
        ------
        InputError
            If there are others in their place that are not to be overwritten; nothing is written.
        """
        recorded = self._before(overwrite)["files"]
        for key, body in files.items():
            if overwrite or recorded.get(key) == [len(body), digest(body)]:
                continue
            if (there := self.place.read(key)) is not None and there != body:
                raise InputError(
                    f"{self.place.url}/{key} is another one; build from the same, choose another place, name or "
                    "version, or give --overwrite"
                )
        self._write({**self._before(overwrite), "state": "unfinished"})
        self.place.write_all(files.items())

    def finish(
        self,
        files: Mapping[str, bytes],
        sources: Mapping[str, Mapping[int, ReferenceVolume]],
        images: Sequence[str],
        remarks: Sequence[str],
        sides: str,
    ) -> None:
        """Put the files that are not there yet, and say what the atlas is: what was built now, and what before.

        Parameters
        ----------
        files : mapping of str to bytes
        sources : mapping
            Of each volume, what was given for its levels.
        images : sequence of str
            URLs of what was built.
        remarks : sequence of str
        sides : str
            Orientation of x.
        """
        there = self.place.read_each(files)
        self.place.write_all((key, body) for key, body in files.items() if there[key] != body)
        before = self._before(overwrite=False)
        given = {
            name: {str(level): _source(volume) for level, volume in sorted(volumes.items())}
            for name, volumes in sources.items()
        }
        paths = [url.removeprefix(f"{self.place.url}/") for url in images]
        self._write(
            {
                "state": "finished",
                "versions": {package: version(package) for package in ("atlaszarr", "numpy", "zarr")},
                "built": datetime.now(UTC).isoformat(timespec="seconds"),
                "sources": {**before["sources"], **given},
                "sides": {"x": sides, "named_by": _NAMED_BY[sides]},
                "remarks": list(remarks),
                "images": list(dict.fromkeys([*before["images"], *paths])),
                "files": {**before["files"], **{key: [len(body), digest(body)] for key, body in files.items()}},
                "credit": credit.REFERENCE_VOLUMES,
            }
        )

    def _before(self, overwrite: bool) -> dict[str, Any]:
        """What the document says already of sources, images and files."""
        found: dict[str, Any] = {}
        if not overwrite:
            found = next((one for key, one in records(self.place) if key == self.key and one), {})
        empty: dict[str, Any] = {"sources": {}, "images": [], "files": {}}
        return {name: found.get(name, nothing) for name, nothing in empty.items()}

    def _write(self, content: Mapping[str, Any]) -> None:
        named = {"name": self.layout.name, "version": self.layout.version}
        self.place.write(self.key, json.dumps({**named, **content}, indent=1).encode())


def records(place: Target) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The documents of all atlases at a place, by their keys; None for one that cannot be read."""
    for key in place.list_keys(f"{_FOLDER}/"):
        if key.count("/") != 1 or not key.endswith(".json"):
            continue
        try:
            found = json.loads(place.read(key) or b"")
            if not {"name", "version", "state"} <= found.keys():
                continue
            kinds = {"sources": dict, "images": list, "files": dict}
            if any(not isinstance(found[name], kind) for name, kind in kinds.items()):
                raise ValueError
        except (ValueError, AttributeError, KeyError):
            yield key, None
        else:
            yield key, found


def _source(volume: ReferenceVolume) -> dict[str, Any]:
    return {
        "uri": volume.uri,
        "bytes": volume.size,
        "sha256": volume.sha256,
        "shape": list(volume.array.shape),
        "voxel_size_um": list(volume.voxel_size),
    }
