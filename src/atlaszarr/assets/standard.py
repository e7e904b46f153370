"""What the standard "Atlas Asset Organization" v0.2.0 (atlas-assets.readthedocs.io) requires of each kind of asset."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .names import (
    COMPRESSED,
    MASKS,
    PARCELLATION_VOLUMES,
    PRECOMPUTED,
    PROCESSING,
    TEMPLATE,
    TERMINOLOGY,
    TERMINOLOGY_PARQUET,
)

#: Version of the standard.
VERSION = "0.2.0"
_SITE = "https://atlas-assets.readthedocs.io/en"
#: The most bytes of a document or a table: as `Terminology.read` takes. A manifest of an atlas that lists a template
#: for each of the 43,818 section datasets of the Allen Brain Atlas has half of it.
LARGEST = 2**24
#: A resolution in the name of a file; the pages on templates name the NIfTI with and without one.
_RESOLUTION = r"[A-Za-z0-9.]+"
#: Keys by which a manifest names its asset, of the kinds that have them.
_IDENTITY = ("name", "version", "location", "schema_version")


@dataclass(frozen=True)
class Kind:
    """What an asset of a kind holds.

    Attributes
    ----------
    page : str
        Name of the page on it.
    keys : tuple of str
        Of its manifest, next to ``described_by``.
    required : mapping of str to bool
        Names in its folder, next to manifest.json and data_description.json, and whether they are folders.
    further : str
        A pattern of names that it may hold.
    has_modalities : bool
        Whether its data_description.json may name modalities: how a volume was acquired.
    """

    page: str
    keys: tuple[str, ...]
    required: Mapping[str, bool]
    further: str = ""
    has_modalities: bool = False

    @property
    def url(self) -> str:
        """The URL of its page, as ``described_by`` gives it."""
        return f"{_SITE}/v{VERSION}/{self.page}.html"


#: The kinds of assets by the folder that holds them.
KINDS = {
    "atlases": Kind(
        "atlas", ("coordinate_space", "templates", "annotation_sets", "schema_version"), {}, has_modalities=True
    ),
    "templates": Kind(
        "template",
        ("coordinate_space", "schema_version"),
        {TEMPLATE: True},
        rf"{re.escape(PROCESSING)}|template(_{_RESOLUTION})?\.nii\.gz",
        has_modalities=True,
    ),
    "annotation-sets": Kind(
        "annotation_set",
        (*_IDENTITY, "coordinate_space", "terminology", "scales"),
        {MASKS: True, PRECOMPUTED: True},
        rf"{re.escape(COMPRESSED)}|annotations_smooth\.precomputed|{re.escape(PARCELLATION_VOLUMES)}|"
        rf"annotations_compressed_{_RESOLUTION}\.nii\.gz",
    ),
    "terminologies": Kind(
        "terminology", _IDENTITY, {TERMINOLOGY: False}, rf"{re.escape(TERMINOLOGY_PARQUET)}|legacy_files"
    ),
    "coordinate-spaces": Kind("coordinate_space", (*_IDENTITY, "origin", "spacing", "template"), {}),
    "coordinate-transformations": Kind("coordinate_transformation", ("source", "target", "directionality"), {}, ".*"),
}
