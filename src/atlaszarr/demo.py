"""The demo: a volume and an atlas, built from the built-in Allen API, read back with zarr, and drawn as a picture."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .allen.client import AllenClient
from .allen.records import SectionDataset
from .atlas import build_atlas
from .dataset_build.api import build
from .engine.writer import Progress
from .errors import TargetError
from .previews.registered_volume import draw_registered_volume
from .regions.tables import tree
from .regions.volumes import region_volumes
from .stores.local import write_whole
from .stores.locations import output_path
from .terminology.terminology import Terminology

if TYPE_CHECKING:
    from .testing import Emulator
    from .testing.brain import BrainPhantom
    from .testing.phantom import Phantom

#: Nrp1, coronal, 60 sections: the record is real, the images are drawn from a phantom brain.
DATASET = 74272479
#: Voxel sizes of the volume and of the reference volumes, in um.
_VOLUME_RESOLUTION = 25.0
_ATLAS_RESOLUTION = 50
#: The volume is compared with the closed form at every _STEP-th voxel, where all within _MARGIN um is one structure.
_STEP, _MARGIN = 8, 60.0
#: Volumes are compared with the closed form of structures above this, in mm3: thinner ones have few voxels of 50 um.
_COMPARED = 1.0
#: Structures of at least this volume, in mm3, are in the printed table, so with each its parents; the file has all.
LEAST_PRINTED = 10.0
#: The words of the picture.
_TITLE = f"Section dataset {DATASET}, registered: Nrp1 in a phantom brain"
_SUBTITLE = (
    "Planes through the volume built from its coronal sections. Lines: borders of regions. White: no section. AP, DV, "
    "ML: mm from the anterior, superior, left end."
)
_FOOT = (
    "The brain and its purple stain are invented: a phantom, not the expression of Nrp1. The alignment of the sections "
    "is that of the Allen Mouse Brain Atlas."
)


def run_demo(folder: str | os.PathLike[str], progress: Progress | None = None) -> tuple[VolumeDemo, AtlasDemo, str]:
    """Build a registered volume and an atlas from the built-in Allen API in a folder, read both back, and draw them.

    Parameters
    ----------
    folder : path-like
        Created if it does not exist.
    progress : callable, optional
        See `atlaszarr.build`; further words are ``volume read``, ``reference volumes``, ``atlas read`` and
        ``picture``.

    Returns
    -------
    volume : VolumeDemo
    atlas : AtlasDemo
    picture : str
        A PNG of both; see `atlaszarr.previews.registered_volume.draw_registered_volume`.

    Raises
    ------
    InputError
        If the folder holds other data where the demo writes.
    TargetError
        If a result cannot be written or read back.
    """
    from .testing.brain import default_brain
    from .testing.emulator import Emulator

    path, brain = output_path(folder), default_brain()
    progress = progress or (lambda *_: None)
    with Emulator(phantom=brain) as emulator, AllenClient(emulator.url, cache="none") as client:
        volume = demonstrate_volume(path, client, emulator, brain, progress)
        atlas = demonstrate_atlas(path, client, brain, progress)
    progress(0, 1, "picture")
    picture = path / "demo.png"
    draw_registered_volume(picture, volume.target, atlas.annotation, _TITLE, _SUBTITLE, _FOOT)
    progress(1, 1, "picture")
    return volume, atlas, str(picture)


@dataclass(frozen=True)
class VolumeDemo:
    """The registered volume of the demo, as read back.

    Attributes
    ----------
    target : str
    state : str
        ``built``, ``resumed`` or ``already finished``.
    requests : int
        Section images requested from the emulator.
    levels : tuple of tuple
        For every pyramid level: shape, voxel size (mm), origin (mm).
    error : float
        Mean absolute difference from the phantom's closed form, in grey levels, over voxels more than 60 um from
        the edges of all structures, each on the plane of its section.
    """

    target: str
    state: str
    requests: int
    levels: tuple[tuple[tuple[int, ...], float, float], ...]
    error: float

    def to_dict(self) -> dict[str, Any]:
        """All attributes, in JSON types."""
        levels = [{"shape": list(s), "scale_mm": scale, "translation_mm": t} for s, scale, t in self.levels]
        return {**self.__dict__, "levels": levels}


@dataclass(frozen=True)
class AtlasDemo:
    """The atlas of the demo, and its region volumes as read back.

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
        Structures with at least one voxel.
    mean_error, largest_error : float
        Difference of a structure's volume, without descendants, from the phantom's closed form, as a fraction of it;
        of structures over 1 mm3.
    compared : int
        The number of these structures.
    largest_error_of : str
        Acronym of the structure with the largest error.
    table : str
        Volumes of the regions of at least `LEAST_PRINTED`, indented by the tree, as text.
    """

    target: str
    state: str
    annotation: str
    volumes: str
    regions: int
    mean_error: float
    largest_error: float
    largest_error_of: str
    compared: int
    table: str

    def to_dict(self) -> dict[str, Any]:
        """All attributes except the text, in JSON types."""
        return {name: value for name, value in self.__dict__.items() if name != "table"}


def demonstrate_volume(
    folder: Path, client: AllenClient, emulator: Emulator, brain: BrainPhantom, progress: Progress
) -> VolumeDemo:
    """Build a registered volume from an emulated Allen API in a folder, and read it back with zarr.

    Parameters
    ----------
    folder : Path
    client : AllenClient
    emulator : atlaszarr.testing.Emulator
        The emulator that the client uses.
    brain : atlaszarr.testing.BrainPhantom
        The brain in its images.
    progress : callable
        See `atlaszarr.build`.

    Raises
    ------
    InputError
        If the folder holds other data where the volume is written.
    TargetError
        If the result cannot be read back.
    """
    import zarr

    target = folder / "nrp1.ome.zarr"
    report = build(DATASET, target, client=client, resolution=_VOLUME_RESOLUTION, progress=progress)
    requests = emulator.count("section_image_download")
    sections = client.section_dataset(DATASET)
    view = report.views[0]
    if view.failures:
        raise TargetError(f"{view.target} is unfinished: {view.failures[0].reason}", code="target-unfinished")
    progress(0, 3, "volume read")
    group: Any = zarr.open_group(target, mode="r")
    image = np.asarray(group["0"][:])
    progress(1, 3, "volume read")
    label = np.asarray(group["labels/section/0"][:])
    progress(2, 3, "volume read")
    levels = tuple(_level(group, dataset) for dataset in group.attrs["ome"]["multiscales"][0]["datasets"])
    error = _error(image, label, sections, brain)
    progress(3, 3, "volume read")
    return VolumeDemo(str(target), view.state, requests, levels, error)


def _level(group: Any, dataset: dict[str, Any]) -> tuple[tuple[int, ...], float, float]:
    """The shape of a level, the size of its voxels, and the centre of the first one along z."""
    scale, translation = dataset["coordinateTransformations"]
    return tuple(group[dataset["path"]].shape), scale["scale"][1], translation["translation"][1]


def _error(image: NDArray[np.uint8], label: NDArray[np.uint32], dataset: SectionDataset, brain: BrainPhantom) -> float:
    """Mean absolute difference from the brain, at every 8th voxel along each axis."""
    depths = {section.image_id: section.depth for section in dataset.sections}
    index = np.argwhere(label[::_STEP, ::_STEP, ::_STEP]) * _STEP
    pir = (index + 0.5) * _VOLUME_RESOLUTION
    depth = np.array([depths[id] for id in label[tuple(index.T)]])
    plane = pir @ np.array(dataset.trv)[:, :3].T + np.array(dataset.trv)[:, 3]
    plane[:, 2] = depth
    shown = plane @ np.array(dataset.tvr)[:, :3].T + np.array(dataset.tvr)[:, 3]
    inside = (brain.labels(shown) > 0) & brain.is_uniform(shown, _MARGIN)
    found = image[(slice(None), *index[inside].T)].T
    finest = dataset.sections[0].resolution
    pixel = finest * 2.0 ** math.floor(math.log2(_VOLUME_RESOLUTION / finest))  # of the tier that the volume shows
    return float(np.abs(found - brain.of_dataset(dataset.id).rgb(shown[inside], pixel)).mean())


def demonstrate_atlas(
    folder: Path, client: AllenClient, phantom: Phantom | BrainPhantom, progress: Progress
) -> AtlasDemo:
    """Draw reference volumes of a phantom brain, build an atlas from them, and measure it.

    Parameters
    ----------
    folder : Path
    client : AllenClient
        Client of the API that serves the structure graph.
    phantom : atlaszarr.testing.BrainPhantom or atlaszarr.testing.Phantom
    progress : callable
        See `atlaszarr.build`.

    Raises
    ------
    InputError
        If the folder holds other data where the atlas is written.
    TargetError
        If the result cannot be written, or its table of volumes is wrong.
    """
    import pandas as pd

    from .testing.phantom_volumes import annotation_nrrd, template_nrrd

    sources = []
    progress(0, 2, "reference volumes")
    for name, draw in (("annotation", annotation_nrrd), ("template", template_nrrd)):
        sources.append(folder / f"{name}_{_ATLAS_RESOLUTION}.nrrd")
        write_whole(sources[-1], draw(phantom, _ATLAS_RESOLUTION))
        progress(len(sources), 2, "reference volumes")
    report = build_atlas(
        folder / "atlas",
        annotation=sources[0],
        template=sources[1],
        name="phantom-brain",
        version="1",
        citation="The phantom brain of atlaszarr, which is invented",
        terms="BSD-3-Clause",
        client=client,
        progress=progress,
    )
    progress(0, 1, "atlas read")
    annotation = report.images[0].target
    terminology = Terminology.read(Path(annotation).with_name("terminology.csv"))
    table = region_volumes(annotation, terminology, by_hemisphere=True)
    written = pd.read_csv(report.volumes, index_col="identifier")
    if not written["voxels"].equals(table["voxels"]):
        message = f"{report.volumes} differs from {annotation}; remove {report.target} and start again"
        raise TargetError(message, code="damaged-target")
    truth = pd.Series(phantom.volumes_mm3())
    truth = truth[truth > _COMPARED]
    errors = (table["volume_direct_mm3"].reindex(truth.index) / truth - 1).abs()
    progress(1, 1, "atlas read")
    largest = int(truth.index[int(errors.argmax())])
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
        compared=len(errors),
        table=tree(table[table["volume_mm3"] >= LEAST_PRINTED], terminology),
    )
