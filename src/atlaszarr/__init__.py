"""Allen Brain Atlas section datasets as registered, multiscale, cloud-native OME-Zarr.

Importing this package imports nothing heavy; every name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .allen.client import AllenClient
    from .allen.records import Section, SectionDataset
    from .atlas import build_atlas
    from .building import build, plan
    from .checking import verify
    from .displacement import Displacement
    from .errors import AtlaszarrError
    from .grid import Grid
    from .lazy_volume import open_volume
    from .previewing import preview
    from .regions import region_mask, region_volumes
    from .sections import open_sections
    from .spaces import ReferenceSpace
    from .terminology import Terminology

_HOMES = {
    "AllenClient": ".allen.client",
    "AtlaszarrError": ".errors",
    "Displacement": ".displacement",
    "Grid": ".grid",
    "ReferenceSpace": ".spaces",
    "Section": ".allen.records",
    "SectionDataset": ".allen.records",
    "Terminology": ".terminology",
    "build": ".building",
    "build_atlas": ".atlas",
    "open_sections": ".sections",
    "open_volume": ".lazy_volume",
    "plan": ".building",
    "preview": ".previewing",
    "region_mask": ".regions",
    "region_volumes": ".regions",
    "verify": ".checking",
}

__all__ = [
    "AllenClient",
    "AtlaszarrError",
    "Displacement",
    "Grid",
    "ReferenceSpace",
    "Section",
    "SectionDataset",
    "Terminology",
    "build",
    "build_atlas",
    "open_sections",
    "open_volume",
    "plan",
    "preview",
    "region_mask",
    "region_volumes",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
