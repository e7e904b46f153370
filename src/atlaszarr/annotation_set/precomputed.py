"""Neuroglancer's precomputed format, as far as an atlas needs it: meshes, names, a coarse volume.

Bytes and documents only; after the specification of the format (google/neuroglancer, datasource/precomputed) and
brainglobe-atlasapi 3.0.2: coordinates are XYZ in nanometres from the corner of the first voxel.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..terminology.terminology import Terminology

#: Bits of a coordinate: neuroglancer takes 10 or 16.
_BITS = 16
#: Voxels along an axis of a chunk of the coarse volume.
CHUNK = 64
#: Nanometres in a micrometre.
_NM = 1000


def draco(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> tuple[bytes, bytes]:
    """Encode a mesh in Draco, with the index by which neuroglancer finds it.

    Parameters
    ----------
    vertices : ndarray, float64, shape (n, 3)
        (z, y, x) in um.
    faces : ndarray, int64, shape (m, 3)

    Returns
    -------
    mesh, index : bytes
        The columns of both vertices and faces are reversed, so that faces keep their orientation.
    """
    import DracoPy

    points = np.ascontiguousarray(vertices[:, ::-1] * _NM, np.float32)
    corner = points.min(axis=0)
    side = max(float((points.max(axis=0) - corner).max()), 1.0)
    mesh: bytes = DracoPy.encode(
        points,
        np.ascontiguousarray(faces[:, ::-1], np.uint32),
        quantization_bits=_BITS,
        compression_level=1,
        quantization_range=side,
        quantization_origin=corner.tolist(),
    )
    # Shape and origin of the one cell; one level of detail, its scale and offset; one fragment, its cell and size.
    index = struct.pack("<6fI4f5I", side, side, side, *corner, 1, side, 0, 0, 0, 1, 0, 0, 0, len(mesh))
    return mesh, index


def mesh_info() -> bytes:
    """The metadata of the folder of meshes, which is also a source of named meshes on its own."""
    return _document(
        {
            "@type": "neuroglancer_multilod_draco",
            "vertex_quantization_bits": _BITS,
            "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
            "lod_scale_multiplier": 1,
            "segment_properties": "../segment_properties",
        }
    )


def segment_properties(terminology: Terminology) -> bytes:
    """Acronyms and names of structures."""
    return _document(
        {
            "@type": "neuroglancer_segment_properties",
            "inline": {
                "ids": [str(one.id) for one in terminology],
                "properties": [
                    {"id": "abbreviation", "type": "label", "values": [one.acronym for one in terminology]},
                    {"id": "name", "type": "description", "values": [one.name for one in terminology]},
                ],
            },
        }
    )


def volume_info(shape: tuple[int, int, int], resolution: tuple[float, float, float]) -> bytes:
    """The metadata of a volume of labels with one scale.

    Parameters
    ----------
    shape : tuple of int
        Along (z, y, x).
    resolution : tuple of float
        Size of a voxel along (z, y, x), in um.
    """
    scale: dict[str, Any] = {
        "key": scale_key(resolution),
        "size": shape[::-1],
        "resolution": [size * _NM for size in resolution[::-1]],
        "voxel_offset": [0, 0, 0],
        "chunk_sizes": [[CHUNK] * 3],
        "encoding": "raw",
    }
    return _document(
        {
            "@type": "neuroglancer_multiscale_volume",
            "type": "segmentation",
            "data_type": "uint32",
            "num_channels": 1,
            "mesh": "mesh",
            "segment_properties": "segment_properties",
            "scales": [scale],
        }
    )


def scale_key(resolution: tuple[float, float, float]) -> str:
    """The folder of the volume at a resolution, (z, y, x) in um."""
    return "_".join(f"{size * _NM:g}" for size in resolution[::-1])


def volume_chunk(labels: NDArray[Any], corner: tuple[int, int, int]) -> tuple[str, bytes]:
    """The name and the bytes of a chunk of labels (z, y, x); x runs fastest, as in memory."""
    ends = [f"{at}-{at + n}" for at, n in zip(corner, labels.shape, strict=True)]
    return "_".join(reversed(ends)), np.ascontiguousarray(labels, "<u4").tobytes()


def _document(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode()
