"""The layout of a Dataset of `open_volume` that is to be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..boxes import Region
from ..engine.blocks import Block
from ..engine.label_counts import distinct
from ..engine.lazy_arrays import LazyArrays
from ..errors import InputError
from ..sections.opened import Opened
from ..sections.options import VolumeOptions
from . import records
from .layout import IMAGE, SECTION, section_spec
from .lazy_layout import ZYX, LazyBuild, LazyLayout, OwnImages, as_dask, lazy_block, values_of
from .volume_layout import volume_layout

if TYPE_CHECKING:
    import xarray as xr


class LazyVolume(LazyLayout):
    """A Dataset of `open_volume` to write."""

    variables = ("image", "section")

    def __init__(self, dataset: xr.Dataset, carried: Opened, options: VolumeOptions) -> None:
        super().__init__(dataset, carried, options)
        self.volume = options

    def build(self, target: str, identity: str | None) -> LazyBuild:
        """Lay out the volume; see `lazy_write.lazy_build`."""
        image, has_channels = self.ordered(self.variable("image"), ZYX, "c")
        section, _ = self.ordered(self.variable("section"), ZYX, "c")
        if section.dims != ZYX or section.shape != image.shape[-3:] or section.dtype != np.uint32:
            raise InputError(
                f"variable 'section' has dtype {section.dtype} and shape {section.shape}, but the image has "
                f"{image.shape[-3:]} voxels; it must be the uint32 label of the same voxels (opened.assign(image=...) "
                "keeps it; where() does not)",
                code="invalid-section-label",
            )
        geometry = self.geometry(image, {"z": 0, "y": 1, "x": 2})
        whole = records.geometry(self.aligned.grid)
        arrays = {IMAGE: as_dask(image), SECTION: as_dask(section)}
        if self.is_unchanged(geometry == whole):
            return self.as_build(
                volume_layout(self.dataset, self.volume, self.carried.fields),
                target,
                arrays,
                partial(_volume_block, None),
            )
        z, y, x = section.shape
        pyramid = self.volume.pyramid((z, y, x))
        version, spec = self.options.ome_zarr, self.image_spec(image, has_channels)
        ids = None if self.is_own("section") else np.unique([section.image_id for section in self.dataset.sections])
        title, channels = records.title(self.dataset), self.channels(image, "c")
        return self.lay_out(
            target,
            pyramid,
            arrays,
            (spec, section_spec()),
            partial(_volume_block, ids),
            groups={
                SECTION: records.provenance(version, geometry, pyramid, self.aligned.imaged.sections, self.recorded),
                "labels": {"labels": ["section"]},
                IMAGE: records.image(version, geometry, pyramid, title, channels, spec.dtype),
            },
            extent=f"{' x '.join(map(str, pyramid.shape))} voxels, {len(pyramid.levels)} levels",
            changes=self.changes(arrays, identity, asdict(geometry)),
        )


def _volume_block(
    ids: NDArray[np.int64] | None,
    lazy: LazyArrays,
    own: OwnImages,
    _level: int,
    region: Region,
    inputs: Sequence[Any],
) -> Block:
    """Compute a block; `ids` are the labels that a section label after a step of the user may hold.

    Raises
    ------
    InputError
        If the section label holds another one, for example because the step multiplied the whole Dataset.
    """
    values, images = values_of(lazy, region, inputs)
    if ids is not None and (others := np.setdiff1d(distinct(values[SECTION]), ids)).size:
        raise InputError(
            f"variable 'section' holds {others[-1]}, which is no section image of the dataset; apply the step to the "
            "image alone (opened.assign(image=...))",
            code="invalid-section-label",
        )
    return lazy_block(values, own, images)
