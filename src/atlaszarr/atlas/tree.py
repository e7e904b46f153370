"""The parts of an atlas and their keys in the tree."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..annotation_set.precomputed import segment_properties
from ..annotation_set.precomputed_folder import NAMES
from ..assets import names as paths
from ..assets.names import AtlasNames, below
from ..engine.finished_image import Finished
from ..engine.lock import PATIENCE, Owner, owning
from ..regions.tables import to_csv, to_parcellation_volumes
from ..stores.target import Target
from ..terminology.terminology import Terminology
from .layouts import Layout
from .nifti_export import nifti_names

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Tree:
    """Where the parts of an atlas lie.

    Attributes
    ----------
    root : Target
    names : AtlasNames
    layout : Layout
    """

    root: Target
    names: AtlasNames
    layout: Layout

    @property
    def annotation_set(self) -> str:
        """The folder of the annotation and of everything that is made from it."""
        return self.names.annotation_set.folder

    @property
    def images(self) -> dict[str, str]:
        """The folder of each image: ``annotation``, ``template``, ``hemispheres``."""
        folders = {
            "annotation": f"{self.annotation_set}/{self.layout.annotation}",
            "template": f"{self.names.template.folder}/{paths.TEMPLATE}",
            "hemispheres": f"{self.annotation_set}/{paths.HEMISPHERES}",
        }
        if self.layout.strict:
            del folders["hemispheres"]
        return folders

    @property
    def second_name(self) -> str | None:
        """The folder of the annotation under its second name, if it has one."""
        name = self.layout.second_name
        return None if name is None else f"{self.annotation_set}/{name}"

    @property
    def derived(self) -> list[str]:
        """The folders of masks and of the segmentation with meshes."""
        if not self.layout.has_annotation_set:
            return []
        return [f"{self.annotation_set}/{name}" for name in (paths.MASKS, paths.PRECOMPUTED)]

    @property
    def volumes(self) -> str:
        """The key of the table of region volumes."""
        return f"{self.annotation_set}/{paths.PARCELLATION_VOLUMES if self.layout.strict else paths.VOLUMES}"

    def changing(self) -> AbstractContextManager[Owner]:
        """Own the tree, to change records, manifests and what atlases share; waits for others that do the same."""
        return owning(self.root, patience=PATIENCE)

    def targets(self) -> list[Target]:
        """The targets of all images and of what is made from them: no source may lie in them."""
        folders = [*self.images.values(), *([self.second_name] if self.second_name else ()), *self.derived]
        return [below(self.root, folder) for folder in folders]

    def terminology_tables(self, terminology: Terminology) -> dict[str, bytes]:
        """The tables of the terminology, by key; a table with descendants that the tree has stays.

        Without a precomputed segmentation, which has them already, the names for neuroglancer are next to the
        annotation.
        """
        key = f"{self.names.terminology.folder}/{paths.TERMINOLOGY}"
        table = terminology.to_csv(descendants=True).encode()
        if not self.layout.assets and self.root.read(key) != table:
            table = terminology.to_csv().encode()
        tables = {key: table}
        if self.layout.assets:
            tables[f"{self.names.terminology.folder}/{paths.TERMINOLOGY_PARQUET}"] = terminology.to_parquet()
        if not self.layout.strict:
            tables[f"{self.annotation_set}/{paths.TERMINOLOGY}"] = table
        if not self.layout.has_annotation_set:
            tables[f"{self.annotation_set}/{NAMES}"] = segment_properties(terminology)
        return tables

    def plain_tables(self, terminology: Terminology) -> dict[str, bytes]:
        """The tables of the terminology as an atlas without the standard's layout has them, by key."""
        table = terminology.to_csv().encode()
        return {key: table for key in self.terminology_tables(terminology) if key.endswith(paths.TERMINOLOGY)}

    @property
    def volume_tables(self) -> list[str]:
        """The keys of the tables of region volumes."""
        keys = [self.volumes]
        if self.layout.assets and not self.layout.strict:
            keys.append(f"{self.annotation_set}/{paths.PARCELLATION_VOLUMES}")
        return keys

    def volume_bodies(self, volumes: DataFrame) -> dict[str, bytes]:
        """The tables of region volumes, by key."""
        texts = {
            key: to_parcellation_volumes if key.endswith(paths.PARCELLATION_VOLUMES) else to_csv
            for key in self.volume_tables
        }
        return {key: text(volumes).encode() for key, text in texts.items()}

    def second_root(self) -> dict[str, bytes]:
        """The root of the annotation under its second name, by key: of a copy or a link, only this is recorded."""
        if self.second_name is None:
            return {}
        key = f"{self.second_name}/zarr.json"
        return {key: self.root.read(key) or b""}

    def exports(self, images: Mapping[str, Finished]) -> dict[str, tuple[str, int]]:
        """The image and the level of each NIfTI, by its key.

        Parameters
        ----------
        images : mapping of str to Finished
            They need not be written yet.
        """
        if not self.layout.assets:
            return {}
        stems = {
            "annotation": (self.annotation_set, "annotations_compressed"),
            "template": (self.names.template.folder, "template"),
        }
        return {
            f"{folder}/{name}": (kind, level)
            for kind, (folder, stem) in stems.items()
            if kind in images
            for level, name in enumerate(nifti_names(stem, images[kind]))
        }
