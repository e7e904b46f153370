"""Annotations and templates of an atlas, from NRRD, NIfTI, MetaImage, TIFF or OME-Zarr, as lazy arrays in one frame.

A volume goes through these modules:

1. `open_file` recognises the format by the first bytes (`other_formats` names those that are not read), `ome_zarr` a
   folder. The module of the format reads a `Header`: shape, dtype, and along the axes of the file voxel size and
   position in um and the side at which each axis begins. `directions` derives these from the direction vectors.
2. `frame` decides how the axes lie in the brain: as the caller says, else by the extent of the CCF, else by the header.
   It refuses what is not known, contradictory or implausible, and remarks on what it assumes.
3. `orientation` turns and flips the axes of the file to (z, y, x) = (p, i, r).
4. `voxels` maps an uncompressed local file, or writes the voxels of any other to a zarr array in the spool folder.
5. `volume` yields the array with its frame; `atlas.levels` compares the frames of all volumes of an atlas.
"""

from .labels import unknown_labels, unknown_labels_remark
from .subsampling import strided_factor
from .volume import ReferenceVolume, open_annotation, open_template

__all__ = [
    "ReferenceVolume",
    "open_annotation",
    "open_template",
    "strided_factor",
    "unknown_labels",
    "unknown_labels_remark",
]
