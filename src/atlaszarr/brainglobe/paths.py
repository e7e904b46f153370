"""Where everything lies under the folder `brainglobe-atlasapi`, and what the parts are called.

As brainglobe-atlasapi 3.0.2 has it (`brainglobe_atlasapi.descriptors`): a version `3.0` lies in the folder `3_0`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..stores.target import Target

#: The annotation, under the name that BrainGlobe's reader opens and under that of its tutorial.
COMPRESSED = "annotations_compressed.ome.zarr"
ANNOTATION = "annotation.ome.zarr"
MASKS = "annotations.ome.zarr"
HEMISPHERES = "hemispheres.ome.zarr"
PRECOMPUTED = "annotations.precomputed"
TEMPLATE = "template.ome.zarr"
TERMINOLOGY = "terminology.csv"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class AtlasLayout:
    """Names and places of an atlas.

    Attributes
    ----------
    name : str
        Lower case letters, digits, ``-`` and ``_``, as ``allen-adult-mouse``.
    version : str
        Numbers between dots, as ``2017`` or ``3.0``.
    """

    name: str
    version: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name):
            raise InputError(f"atlas name {self.name!r} must be of lower case letters, digits, '-' and '_'")
        # More than one dot is no version to the reader unless it is asked for.
        if not re.fullmatch(r"\d+(\.\d+)?", self.version):
            raise InputError(f"atlas version {self.version!r} must be a number, or two with a dot between them")

    @property
    def annotation_set(self) -> str:
        """The folder of the annotation and all that is made from it."""
        return self._folder("annotation-sets", "annotation")

    @property
    def template(self) -> str:
        """The folder of the template."""
        return self._folder("templates", "template")

    @property
    def terminology(self) -> str:
        """The folder of the terminology."""
        return self._folder("terminologies", "terminology")

    @property
    def coordinate_space(self) -> str:
        """The folder of the coordinate space."""
        return self._folder("coordinate-spaces", "space")

    def atlas(self, resolution: int) -> str:
        """The folder of the atlas at a resolution, in um."""
        return f"atlases/{self.name}_{resolution}um/{self._version}"

    def component(self, folder: str, **parts: Any) -> dict[str, Any]:
        """What a manifest says of a component in a folder."""
        return {"name": folder.split("/")[1], "version": self.version, "location": f"/{folder}", **parts}

    @property
    def _version(self) -> str:
        return self.version.replace(".", "_")

    def _folder(self, kind: str, what: str) -> str:
        return f"{kind}/{self.name}-{what}/{self._version}"


def below(place: Target, path: str) -> Target:
    """The place at a path under another."""
    return Target(f"{place.url}/{path}", place.storage_options)
