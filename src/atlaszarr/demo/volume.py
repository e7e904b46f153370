"""The first half of the demo: a section dataset of the phantom brain, registered, and how far it is from the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..allen.client import AllenClient
from ..dataset_build.api import build
from ..engine.writer import Progress
from ..errors import TargetError

#: Nrp1, coronal, 60 sections: the figures of the real record, drawn from a phantom brain.
DATASET = 74272479
_RESOLUTION = 25.0


@dataclass(frozen=True)
class VolumeDemo:
    """The registered volume that the demo made, and what reading it back showed.

    Attributes
    ----------
    target : str
    picture : str
        Three slices through the volume, a JPEG.
    state : str
        See `atlaszarr.dataset_build.report.ViewReport`.
    requests : int
        Section images asked of the emulator.
    levels : tuple of tuple
        For every pyramid level as ngff-zarr reads it: shape, voxel size (mm), origin (mm).
    error : float
        Mean absolute difference from the phantom's closed form, in grey levels, over voxels well inside the
        brain, each taken at the plane of the section that shows it.
    """

    target: str
    picture: str
    state: str
    requests: int
    levels: tuple[tuple[tuple[int, ...], float, float], ...]
    error: float

    def to_dict(self) -> dict[str, Any]:
        """Everything in it, in JSON's types."""
        levels = [{"shape": list(s), "scale_mm": scale, "translation_mm": t} for s, scale, t in self.levels]
        return {**self.__dict__, "levels": levels}


def demonstrate_volume(folder: Path, client: AllenClient, emulator: Any, progress: Progress) -> VolumeDemo:
    """Build a registered volume from an emulated Allen API into a folder, and read it back with ngff-zarr.

    Parameters
    ----------
    folder : Path
    client : AllenClient
    emulator : atlaszarr.testing.Emulator
        What the client asks.
    progress : callable
        See `atlaszarr.build`.

    Raises
    ------
    InputError
        If the folder holds something else where the volume is written.
    TargetError
        If the result cannot be read back.
    """
    import simplejpeg
    from ngff_zarr import from_ngff_zarr

    target = folder / "nrp1.ome.zarr"
    report = build(DATASET, target, client=client, resolution=_RESOLUTION, progress=progress)
    requests = emulator.count("section_image_download")
    dataset = client.section_dataset(DATASET)
    view = report.views[0]
    if view.failures:
        raise TargetError(f"{view.target} is unfinished: {view.failures[0].reason}")
    word = "volume read"
    progress(0, 3, word)
    read = from_ngff_zarr(str(target), validate=True)
    image = np.asarray(read.images[0].data)
    progress(1, 3, word)
    label = np.asarray(from_ngff_zarr(str(target / "labels" / "section"), validate=True).images[0].data)
    progress(2, 3, word)
    picture = target.with_name("nrp1.jpg")
    picture.write_bytes(simplejpeg.encode_jpeg(_slices(image), quality=92))
    levels = tuple(
        (tuple(level.data.shape), float(level.scale["z"]), float(level.translation["z"])) for level in read.images
    )
    error = _error(image, label, dataset, emulator.phantom)
    progress(3, 3, word)
    return VolumeDemo(str(target), str(picture), view.state, requests, levels, error)


def _error(image: NDArray[np.uint8], label: NDArray[np.uint32], dataset: Any, phantom: Any) -> float:
    """Mean absolute difference from the phantom, at every 16th voxel along each axis."""
    depths = {section.image_id: section.depth for section in dataset.sections}
    index = np.argwhere(label[::16, ::16, ::16]) * 16
    pir = (index + 0.5) * _RESOLUTION
    depth = np.array([depths[id] for id in label[tuple(index.T)]])
    plane = pir @ np.array(dataset.trv)[:, :3].T + np.array(dataset.trv)[:, 3]
    plane[:, 2] = depth
    shown = plane @ np.array(dataset.tvr)[:, :3].T + np.array(dataset.tvr)[:, 3]
    inside = (phantom.distance_to_edge(shown) > 100) & (phantom.labels(shown) > 0)
    found = image[(slice(None), *index[inside].T)].T
    return float(np.abs(found - phantom.rgb(shown[inside])).mean())


def _slices(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Coronal, horizontal and sagittal slices through the middle, side by side: (height, width, 3)."""
    _, z, y, x = image.shape
    slices = [image[:, z // 2], image[:, :, y // 2], image[:, :, :, x // 2].transpose(0, 2, 1)]
    height = max(part.shape[1] for part in slices)
    padded = [np.pad(part, ((0, 0), (0, height - part.shape[1]), (0, 8))) for part in slices]
    return np.ascontiguousarray(np.concatenate(padded, axis=2).transpose(1, 2, 0))
