"""Allen Brain Atlas section datasets as registered, multiscale, cloud-native OME-Zarr.

Importing this package imports nothing heavy; each name is loaded when it is first used. No submodule has the name of a
public function (such as `verify` or `plan`), since importing the submodule would replace the function.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .allen.client import AllenClient
    from .allen.records import Section, SectionDataset
    from .atlas import build_atlas
    from .dataset_batch.api import build_many
    from .dataset_build.api import build, plan
    from .dataset_refinement.api import refine
    from .displacement.displacement import Displacement
    from .errors import AtlaszarrError
    from .expression_grids.grids import open_grid
    from .geometry.grid import Grid
    from .geometry.spaces import ReferenceSpace
    from .previews import preview
    from .progress import progress_bars
    from .regions.statistics import region_statistics
    from .regions.volumes import region_mask, region_volumes
    from .sections.lazy_sections import iter_sections, open_sections
    from .sections.lazy_volume import open_volume
    from .sections.refined import RefinedFields
    from .terminology.terminology import Terminology
    from .verification import verify
    from .viewing import view

_HOMES = {
    "AllenClient": ".allen.client",
    "AtlaszarrError": ".errors",
    "Displacement": ".displacement.displacement",
    "Grid": ".geometry.grid",
    "ReferenceSpace": ".geometry.spaces",
    "RefinedFields": ".sections.refined",
    "Section": ".allen.records",
    "SectionDataset": ".allen.records",
    "Terminology": ".terminology.terminology",
    "build": ".dataset_build.api",
    "build_atlas": ".atlas",
    "build_many": ".dataset_batch.api",
    "iter_sections": ".sections.lazy_sections",
    "open_grid": ".expression_grids.grids",
    "open_sections": ".sections.lazy_sections",
    "open_volume": ".sections.lazy_volume",
    "plan": ".dataset_build.api",
    "preview": ".previews",
    "progress_bars": ".progress",
    "refine": ".dataset_refinement.api",
    "region_mask": ".regions.volumes",
    "region_statistics": ".regions.statistics",
    "region_volumes": ".regions.volumes",
    "verify": ".verification",
    "view": ".viewing",
}

__all__ = [
    "AllenClient",
    "AtlaszarrError",
    "Displacement",
    "Grid",
    "ReferenceSpace",
    "RefinedFields",
    "Section",
    "SectionDataset",
    "Terminology",
    "build",
    "build_atlas",
    "build_many",
    "iter_sections",
    "open_grid",
    "open_sections",
    "open_volume",
    "plan",
    "preview",
    "progress_bars",
    "refine",
    "region_mask",
    "region_statistics",
    "region_volumes",
    "verify",
    "view",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
