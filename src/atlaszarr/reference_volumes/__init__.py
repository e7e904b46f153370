"""Annotations and templates of an atlas, from NRRD, NIfTI, MetaImage, TIFF or OME-Zarr, as lazy arrays in one frame."""

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
