"""`open_sections`: the registered sections of a dataset as one lazy xarray.Dataset, and the loop over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from .allen.client import AllenClient
from .allen.decoded import DECODED
from .allen.images import Pixels, SectionImage
from .allen.records import SectionDataset
from .allen.windows import Box, TierImage, tier_image
from .credit import CREDIT
from .displacement import Displacement
from .errors import InputError, RecordError
from .fields import blocks
from .planes import DetectionPoint, SectionPlanes, section_planes

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Side of a block, in pixels of a plane.
_BLOCK = 512
_AXES = ("p", "i", "r")
_WHOLE = (slice(None),)


class RegisteredSection(NamedTuple):
    """What the loop over sections yields, as atldld's `DatasetDownloader.run` does.

    Attributes
    ----------
    image_id : int
    coordinate : float
        Slice coordinate in um of the reference space, across the plane of section.
    image : ndarray or dask array, uint8, shape (height, width, 3)
        The section image at its tier, as it was taken; lazy if it has more than 4096 x 4096 pixels.
    expression : ndarray or dask array, or None
        Its expression mask, if that view was asked for and there is one.
    displacement : Displacement
        From the pixels of the plane to those of the image: ``displacement.warp(image)`` is the registered image.
    """

    image_id: int
    coordinate: float
    image: Any
    expression: Any
    displacement: Displacement
