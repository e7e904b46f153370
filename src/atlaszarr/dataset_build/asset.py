"""A registered dataset as a template asset of an atlas: its name, its target and its documents."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..allen.records import SectionDataset
from ..assets.documents import template_documents
from ..assets.names import (
    DATA_DESCRIPTION,
    MANIFEST,
    NAME_PATTERN,
    PROCESSING,
    SUFFIXES,
    TEMPLATE,
    VERSION_PATTERN,
    Asset,
    below,
)
from ..atlas.registration import AtlasAsset, register
from ..boxes import Shape
from ..credit import SECTION_DATASET
from ..engine.ledger import digest
from ..errors import InputError
from ..geometry.spaces import reference_space
from ..sections.options import Options, SectionsOptions
from ..stores.documents import LARGEST, parse_object
from ..stores.locations import shown
from ..stores.target import Target
from . import records
from .layout import BuildLayout

#: The documents of a template, by name.
_DOCUMENTS = (MANIFEST, DATA_DESCRIPTION, PROCESSING)
_SUFFIX = f"-{SUFFIXES['templates']}"
#: A target below the root of an atlas.
_PATH = re.compile(rf"templates/(?P<name>{NAME_PATTERN}){_SUFFIX}/(?P<version>{VERSION_PATTERN})/{re.escape(TEMPLATE)}")


@dataclass(frozen=True)
class Registration:
    """The atlas in which the views of a dataset are registered as templates.

    Attributes
    ----------
    atlas : AtlasAsset
    options : tuple of Options
        Of each view.
    """

    atlas: AtlasAsset
    options: tuple[Options, ...]

    @classmethod
    def of(
        cls, atlas: str | os.PathLike[str], storage_options: Mapping[str, Any] | None, options: Sequence[Options]
    ) -> Registration:
        """Open an atlas; see `atlaszarr.build`.

        Raises
        ------
        InputError
            If there is no atlas, or a target with these options cannot be a template of the standard.
        """
        for one in options:
            if isinstance(one, SectionsOptions):
                raise InputError(
                    "a template is one image, but --mode sections writes one for each section; give --mode volume, or "
                    "leave out --atlas",
                    code="conflicting-options",
                )
            if one.ome_zarr == "0.4":
                raise InputError(
                    "the standard's templates need OME-Zarr 0.5 or later, not 0.4; leave out --ome-zarr or --atlas",
                    code="not-supported",
                )
        return cls(AtlasAsset.at(Target.of(atlas, storage_options)), tuple(options))

    def sides(self, dataset: SectionDataset) -> str:
        """The orientation of x in the atlas.

        Raises
        ------
        InputError, RecordError
            If the atlas lies in another space than the dataset, or the dataset has none.
        """
        dataset.validate_registration()
        return self.atlas.sides_in(reference_space(dataset.space).frame)

    def assets(self, dataset: SectionDataset, target: Target | None) -> list[tuple[Asset, Target]]:
        """The asset of each view of a dataset, and its target.

        The default name is ``<atlas>-ish-<gene>-<dataset>-template``, with the first gene of the record in lower case,
        its other characters than letters and digits as ``-``; without a gene ``<atlas>-sections-<dataset>-template``.
        The default version is that of the coordinate space, since the records give no year. A view other than the
        primary one adds its name.

        Parameters
        ----------
        dataset : SectionDataset
        target : Target or None
            The root of the atlas, for the default name and version; else
            ``templates/NAME-template/VERSION/template.ome.zarr`` below it, the target of the first view. Default: the
            root.

        Raises
        ------
        InputError
            If the target is another, or that of a template of the atlas itself.
        """
        root, atlas = shown(self.atlas.root.url), self.atlas
        gene = re.sub(r"[^a-z0-9]+", "-", dataset.genes[0].lower()).strip("-") if dataset.genes else ""
        stem = f"{atlas.name}-ish-{gene}-{dataset.id}" if gene else f"{atlas.name}-sections-{dataset.id}"
        version = str(atlas.space["version"])
        given = None
        if target is not None and target.url != atlas.root.url:
            prefix = f"{atlas.root.url}/"
            given = _PATH.fullmatch(target.url[len(prefix) :]) if target.url.startswith(prefix) else None
            if given is None:
                default = Asset("templates", f"{stem}{_SUFFIX}", version).folder
                raise InputError(
                    f"target {shown(target.url)} is not the path of a template in the tree of the atlas, {root}; give "
                    f"{root}/{default}/{TEMPLATE}, also with another name and version, or {root} for this one",
                    code="not-a-template-path",
                )
            stem, version = given["name"], given["version"]
        found = []
        for position, one in enumerate(self.options):
            is_plain = position == 0 if given else one.view == "primary"
            asset = Asset("templates", f"{stem}{'' if is_plain else f'-{one.view}'}{_SUFFIX}", version)
            if asset.folder in atlas.own:
                raise InputError(
                    f"target {root}/{asset.folder} is the template of the atlas itself; give another name",
                    code="target-is-template",
                )
            found.append((asset, below(atlas.root, f"{asset.folder}/{TEMPLATE}")))
        return found

    def refuse_documents(self, asset: Asset) -> None:
        """Refuse the folder of a template that has documents, but no image that atlaszarr began.

        Raises
        ------
        InputError
        """
        folder = below(self.atlas.root, asset.folder)
        if existing := [name for name, body in folder.read_each(_DOCUMENTS, LARGEST).items() if body is not None]:
            raise InputError(
                f"{shown(folder.url)} holds {existing[0]!r} without an image of atlaszarr; choose another name or "
                "version, or give --overwrite",
                code="target-not-empty",
            )

    def register(self, asset: Asset, target: Target, layout: BuildLayout) -> list[str]:
        """Register the finished target of a view; see `atlaszarr.atlas.registration.register`.

        Returns
        -------
        list of str
            Keys of the manifests that list it.
        """
        options, pyramid = layout.options, layout.non_empty.pyramid
        levels: dict[float, Shape] | None = None
        if options.grey and options.ome_zarr == "0.5":  # the only version that BrainGlobe's reader opens
            levels = {
                round(options.resolution * float(pyramid.scale(level)[0]), 6): pyramid.levels[level].shape
                for level in range(len(pyramid.levels))
            }
        return register(self.atlas, asset, _documents(self.atlas, asset, target, layout), levels)


def _documents(atlas: AtlasAsset, asset: Asset, target: Target, layout: BuildLayout) -> Mapping[str, bytes]:
    """The documents of the template, by name: the same for the same target, since its time is that of ``build.json``.

    Raises
    ------
    InputError
        If ``build.json`` was damaged meanwhile.
    """
    bodies = target.read_each(records.FILES[:2], LARGEST)
    build, sections = (bodies[key] or b"" for key in records.FILES[:2])
    try:
        content = parse_object(build)
        created = datetime.fromisoformat(content["begun"])
        source: dict[str, Any] = {
            "uri": shown(content["api"]),
            "reference_space": content["reference_space"],
            "request": content["request"],
            "sections_csv": digest(sections),
        }
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{shown(target.url)}/{records.FILES[0]} is damaged; run the same command to repair it",
            code="damaged-metadata",
        ) from None
    view = "" if layout.options.view == "primary" else f", {layout.options.view} view"
    title = f"{records.title(layout.dataset)}{view}, registered to the coordinate space {atlas.space['name']}"
    sources = {f"section dataset {layout.dataset.id}": source}
    return template_documents(asset, atlas.space, title=title, credit=SECTION_DATASET, sources=sources, created=created)
