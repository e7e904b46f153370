"""Names and folders of the assets of an atlas, and of the files in them.

They are those of the standard "Atlas Asset Organization" (atlas-assets.readthedocs.io, v0.2.0), which are also those of
brainglobe-atlasapi 3.0.3 (`brainglobe_atlasapi.descriptors`); version ``3.0`` is in the folder ``3_0``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, brief
from ..stores.target import Target

#: The two names of the labels: that of the standard, and that of the published tutorial.
COMPRESSED = "annotations_compressed.ome.zarr"
ANNOTATION = "annotation.ome.zarr"
MASKS = "annotations.ome.zarr"
#: The array in it with the label of each mask.
ANNOTATION_VALUES = "annotation_values"
HEMISPHERES = "hemispheres.ome.zarr"
PRECOMPUTED = "annotations.precomputed"
TEMPLATE = "template.ome.zarr"
TERMINOLOGY = "terminology.csv"
TERMINOLOGY_PARQUET = "terminology.parquet"
#: The volumes of regions: atlaszarr's table, and that of the standard.
VOLUMES = "volumes.csv"
PARCELLATION_VOLUMES = "parcellation_volumes.csv"
MANIFEST = "manifest.json"
DATA_DESCRIPTION = "data_description.json"
PROCESSING = "processing.json"

#: The last word of the name of an asset, by its kind, which is the folder of all assets of the kind.
SUFFIXES = {
    "atlases": "atlas",
    "annotation-sets": "annotation",
    "templates": "template",
    "terminologies": "terminology",
    "coordinate-spaces": "space",
}
#: Default name and version of an atlas, which only the CCF may leave out (`atlaszarr.atlas.ccf`).
CCF = ("allen-adult-mouse", "2017")
#: Default name and version of the components of an atlas of that name and version: those of the Allen Institute (page
#: "Example Atlas Assets" of the standard).
CCF_COMPONENTS = {
    "template": ("allen-adult-mouse-stpt", "2015"),
    "space": ("allen-adult-mouse-ccf", "2015"),
    "terminology": ("allen-adult-mouse", "2017"),
}
#: A regular expression of the names that atlaszarr gives to assets, without the last word.
NAME_PATTERN = r"[a-z0-9][a-z0-9_-]*"
#: A regular expression of the versions that atlaszarr gives to assets of the standard: a year, a year and a month,
#: three numbers, or ``v`` and a number. The version of the standard itself is `standard.VERSION`.
VERSION_PATTERN = r"\d{4}(-\d{2})?|\d+\.\d+\.\d+|v\d[a-z0-9.]*"
#: The versions that BrainGlobe's reader finds unless the caller names them.
_OF_BRAINGLOBE = re.compile(r"\d+(\.\d+)?")
#: A name or a version in a reference: it begins with a letter or digit, so that it is not ``..``; the longest known, a
#: coordinate transformation's, has about 90 characters.
PART = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}"


@dataclass(frozen=True)
class Asset:
    """An asset of an atlas.

    Attributes
    ----------
    kind : str
        A key of `SUFFIXES`.
    name : str
        The whole name, such as ``allen-adult-mouse-annotation``.
    version : str
        Such as ``2017`` or ``3.0``.
    """

    kind: str
    name: str
    version: str

    @property
    def folder(self) -> str:
        """The folder of the asset, relative to the root of the tree."""
        version = self.version.replace(".", "_") if _OF_BRAINGLOBE.fullmatch(self.version) else self.version
        return f"{self.kind}/{self.name}/{version}"

    def reference(self, **more: Any) -> dict[str, Any]:
        """The reference to the asset in a manifest, with further entries."""
        return {"name": self.name, "version": self.version, "location": f"/{self.folder}", **more}


@dataclass(frozen=True)
class AtlasNames:
    """The assets of an atlas.

    Attributes
    ----------
    name, version : str
        Of the atlas and its annotation, such as ``allen-adult-mouse`` and ``2017``.
    atlas, annotation_set, template, terminology, coordinate_space : Asset
    """

    name: str
    version: str
    atlas: Asset
    annotation_set: Asset
    template: Asset
    terminology: Asset
    coordinate_space: Asset

    @classmethod
    def of(
        cls,
        name: str | None = None,
        version: str | None = None,
        *,
        template_name: str | None = None,
        template_version: str | None = None,
        space_name: str | None = None,
        space_version: str | None = None,
        terminology_name: str | None = None,
        terminology_version: str | None = None,
    ) -> AtlasNames:
        """The assets of an atlas by its name and version, and by those of its components where they have their own.

        Parameters
        ----------
        name, version : str, optional
            Lower case letters, digits, ``-`` and ``_``, such as ``allen-adult-mouse``; and a year, a year and a month,
            or numbers with dots, such as ``2017`` or ``3.0``. Default: `CCF`, ``allen-adult-mouse`` and ``2017``.
        template_name, template_version, space_name, space_version : str, optional
        terminology_name, terminology_version : str, optional
            Of the components, with or without their last word (``-template``, ``-space``, ``-terminology``). Default:
            those of the atlas; if its name and version are `CCF`, given or not, `CCF_COMPONENTS`.

        Raises
        ------
        InputError
            If a name or a version has another form.
        """
        name, version = _valid(name or CCF[0], version or CCF[1], "atlas", "annotation")
        given = {
            "template": (template_name, template_version),
            "space": (space_name, space_version),
            "terminology": (terminology_name, terminology_version),
        }
        defaults = CCF_COMPONENTS if (name, version) == CCF else dict.fromkeys(given, (name, version))
        valid = {}
        for word, (own_name, own_version) in given.items():
            default_name, default_version = defaults[word]
            valid[word] = _valid(own_name or default_name, own_version or default_version, word, word)
        return cls(
            name,
            version,
            # The Institute's atlas of the CCF has the name of its space, ``allen-adult-mouse-ccf-atlas``.
            _asset("atlases", CCF_COMPONENTS["space"][0] if (name, version) == CCF else name, version),
            _asset("annotation-sets", name, version),
            _asset("templates", *valid["template"]),
            _asset("terminologies", *valid["terminology"]),
            _asset("coordinate-spaces", *valid["space"]),
        )

    @property
    def versions(self) -> list[str]:
        """All versions."""
        return [self.version, *(asset.version for asset in (self.template, self.terminology, self.coordinate_space))]

    def refuse_versions(self, standard: bool, brainglobe: bool) -> None:
        """Refuse a version that the standard or BrainGlobe's reader does not have.

        Raises
        ------
        InputError
        """
        for version in self.versions:
            if standard and not re.fullmatch(VERSION_PATTERN, version):
                raise InputError(
                    f"version {version!r} is not a version of the standard; give a year (2017), a year and a month "
                    "(2017-10) or three numbers (1.0.0)",
                    code="invalid-version",
                )
            if brainglobe and not _OF_BRAINGLOBE.fullmatch(version):
                raise InputError(
                    f"BrainGlobe's reader finds no version {version!r}; give a number (2017), or two with a dot (3.0)",
                    code="invalid-version",
                )

    def brainglobe_atlas(self, resolution: int) -> Asset:
        """BrainGlobe's atlas at a resolution, in um."""
        return Asset("atlases", f"{self.name}_{resolution}um", self.version)


def _asset(kind: str, name: str, version: str) -> Asset:
    return Asset(kind, f"{name}-{SUFFIXES[kind]}", version)


def _valid(name: str, version: str, word: str, suffix: str) -> tuple[str, str]:
    """A valid name, without its last word, and a valid version."""
    name, version = str(name).removesuffix(f"-{suffix}"), str(version)
    if not re.fullmatch(NAME_PATTERN, name):
        raise InputError(
            f"{word} name {name!r} must consist of lower case letters, digits, '-' and '_'", code="invalid-name"
        )
    if not re.fullmatch(rf"{_OF_BRAINGLOBE.pattern}|{VERSION_PATTERN}", version):
        raise InputError(
            f"{word} version {version!r} must be a year (2017), a year and a month (2017-10) or numbers with dots "
            "(3.0)",
            code="invalid-version",
        )
    return name, version


def referenced(reference: Any, kind: str) -> str:
    """The folder of the asset that a reference in a manifest names, by its location or by name and version.

    Raises
    ------
    ValueError
        If it is not the folder of an asset of this kind, relative to the root of the tree.
    """
    fields = reference if isinstance(reference, Mapping) else {}
    location = fields.get("location")
    if location is None and all(isinstance(fields.get(key), str | int) for key in ("name", "version")):
        location = Asset(kind, str(fields["name"]), str(fields["version"])).folder
    if not isinstance(location, str) or not re.fullmatch(rf"/?{kind}/{PART}/{PART}/?", location):
        raise ValueError(f"{brief(reference if location is None else location, 100)} is not /{kind}/NAME/VERSION")
    return location.strip("/")


def below(root: Target, path: str) -> Target:
    """The target at a path in another target."""
    return Target(f"{root.url}/{path}", root.storage_options)
