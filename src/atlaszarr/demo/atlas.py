"""The second half of the demo: an atlas of the phantom brain, and how far its region volumes are from the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..allen.client import AllenClient
from ..atlas import build_atlas
from ..engine.writer import Progress
from ..errors import TargetError
from ..regions.tables import tree
from ..regions.volumes import region_volumes
from ..stores.local import write_whole
from ..terminology.terminology import Terminology

_NAME, _VERSION = "phantom-brain", "1"
#: Of the files that it is built from, in um.
_RESOLUTION = 50
#: Structures further from the root are left to the table on disk.
_DEEPEST = 4


@dataclass(frozen=True)
class AtlasDemo:
    """The atlas that the demo made, and its region volumes as they are read back.

    Attributes
    ----------
    target : str
        The folder of the atlas.
    state : str
        ``built``, ``resumed`` or ``already finished``.
    annotation : str
        The OME-Zarr of labels in it.
    volumes : str
        The table of all region volumes, as CSV.
    regions : int
        Structures that hold a voxel.
    mean_error, largest_error : float
        Difference of a structure's own volume from the phantom's closed form, as a part of it.
    largest_error_of : str
        Acronym.
    table : str
        Volumes of the larger regions, indented by the tree, as text.
    """

    target: str
    state: str
    annotation: str
    volumes: str
    regions: int
    mean_error: float
    largest_error: float
    largest_error_of: str
    table: str

    def to_dict(self) -> dict[str, Any]:
        """Everything in it but the text, in JSON's types."""
        return {name: value for name, value in self.__dict__.items() if name != "table"}


def demonstrate_atlas(folder: Path, client: AllenClient, phantom: Any, progress: Progress) -> AtlasDemo:
    """Draw a phantom brain as reference volumes, build an atlas of them, and measure what ngff-zarr reads of it.

    Parameters
    ----------
    folder : Path
    client : AllenClient
        Of the API that serves the structure graph.
    phantom : atlaszarr.testing.Phantom
    progress : callable
        See `atlaszarr.build`.

    Raises
    ------
    InputError
        If the folder holds something else where the atlas is written.
    TargetError
        If the result cannot be written or is not what the table beside it says.
    """
    import pandas as pd
    from ngff_zarr import from_ngff_zarr

    from ..testing.phantom_volumes import annotation_nrrd, template_nrrd

    sources = []
    progress(0, 2, "reference volumes")
    for name, draw in (("annotation", annotation_nrrd), ("template", template_nrrd)):
        sources.append(_write(folder / f"{name}_{_RESOLUTION}.nrrd", draw(phantom, _RESOLUTION)))
        progress(len(sources), 2, "reference volumes")
    report = build_atlas(
        folder / "atlas",
        annotation=sources[0],
        template=sources[1],
        name=_NAME,
        version=_VERSION,
        client=client,
        progress=progress,
    )
    progress(0, 1, "atlas read")
    annotation = report.images[0].target
    terminology = Terminology.read(Path(annotation).with_name("terminology.csv"))
    table = region_volumes(from_ngff_zarr(annotation, validate=True), terminology, by_hemisphere=True)
    written = pd.read_csv(report.volumes, index_col="identifier")
    if not written["voxels"].equals(table["voxels"]):
        raise TargetError(f"{report.volumes} is not what {annotation} holds; remove {report.target} and start again")
    truth = pd.Series(phantom.volumes_mm3())
    errors = (table["volume_direct_mm3"].reindex(truth.index) / truth - 1).abs()
    progress(1, 1, "atlas read")
    largest = int(truth.index[int(errors.argmax())])
    shown = [structure.id for structure in terminology if len(structure.path) <= _DEEPEST + 1]
    states = {image.state for image in report.images}
    return AtlasDemo(
        target=report.target,
        state=states.pop() if len(states) == 1 else "resumed",
        annotation=annotation,
        volumes=report.volumes,
        regions=int((table["voxels"] > 0).sum()),
        mean_error=float(errors.mean()),
        largest_error=float(errors.max()),
        largest_error_of=str(table.at[largest, "acronym"]),
        table=tree(table.loc[shown], terminology),
    )


def _write(path: Path, body: bytes) -> Path:
    write_whole(path, body)
    return path
