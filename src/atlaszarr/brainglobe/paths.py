"""Paths in the folder `brainglobe-atlasapi`, and names of the parts of an atlas.

They are those of brainglobe-atlasapi 3.0.2 (`brainglobe_atlasapi.descriptors`); version `3.0` is in the folder `3_0`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..stores.target import Target

#: The two names of the annotation: the one that BrainGlobe's reader opens, and that of its tutorial.
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
    """Names and folders of the parts of an atlas.

    Attributes
    ----------
    name : str
        Lower case letters, digits, ``-`` and ``_``, such as ``allen-adult-mouse``.
    version : str
        A number, or two with a dot between them, such as ``2017`` or ``3.0``.

    Raises
    ------
    InputError
        If the name or the version has another form.
    """

    name: str
    version: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name):
            raise InputError(
                f"atlas name {self.name!r} must consist of lower case letters, digits, '-' and '_'", code="invalid-name"
            )
        # BrainGlobe's reader finds versions with two dots only if the caller names them.
        if not re.fullmatch(r"\d+(\.\d+)?", self.version):
            raise InputError(
                f"atlas version {self.version!r} must be a number, or two with a dot between them",
                code="invalid-version",
            )

    @property
    def annotation_set(self) -> str:
        """The folder of the annotation and of everything made from it."""
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
        """The entry of a component in a manifest."""
        return {"name": folder.split("/")[1], "version": self.version, "location": f"/{folder}", **parts}

    @property
    def _version(self) -> str:
        return self.version.replace(".", "_")

    def _folder(self, kind: str, what: str) -> str:
        return f"{kind}/{self.name}-{what}/{self._version}"


def below(root: Target, path: str) -> Target:
    """The target at a path in another target."""
    return Target(f"{root.url}/{path}", root.storage_options)
