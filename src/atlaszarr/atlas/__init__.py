"""The reference volumes and the terminology of an atlas, as OME-Zarr in the layout that is published."""

from .build import AtlasReport, build_atlas
from .verify import verify_atlas

__all__ = ["AtlasReport", "build_atlas", "verify_atlas"]
