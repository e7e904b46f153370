"""Neuroglancer's precomputed format, as far as an atlas needs it: documents and meshes.

Bytes only; after the specification of the format (google/neuroglancer, datasource/precomputed) and
brainglobe-atlasapi 3.0.2: coordinates are XYZ in nanometres from the corner of the first voxel.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boxes import Shape
from ..engine.ome import Geometry
from ..stores.documents import json_bytes
from ..terminology.terminology import Terminology

#: Bits of a coordinate: neuroglancer takes 10 or 16.
_BITS = 16
#: Side of a block of compressed_segmentation, in voxels; 8 is what the format recommends.
_BLOCK = 8
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
    return json_bytes(
        {
            "@type": "neuroglancer_multilod_draco",
            "vertex_quantization_bits": _BITS,
            "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
            "lod_scale_multiplier": 1,
            "segment_properties": "../segment_properties",
        }
    )


def segment_properties(terminology: Terminology) -> bytes:
    """Acronyms and names of the structures by the labels of their voxels."""
    labelled = [one for one in terminology if one.value is not None]
    return json_bytes(
        {
            "@type": "neuroglancer_segment_properties",
            "inline": {
                "ids": [str(one.value) for one in labelled],
                "properties": [
                    {"id": "abbreviation", "type": "label", "values": [one.acronym for one in labelled]},
                    {"id": "name", "type": "description", "values": [one.name for one in labelled]},
                ],
            },
        }
    )


def volume_info(levels: Iterable[tuple[Shape, tuple[float, float, float], Shape]]) -> bytes:
    """The metadata of a volume of labels, uint32 in compressed_segmentation.

    Parameters
    ----------
    levels : iterable
        Of each level along (z, y, x): its shape, the size of a voxel in um, and the shape of a chunk.
    """
    scales = [
        {
            "key": scale_key(resolution),
            "size": shape[::-1],
            "resolution": [size * _NM for size in resolution[::-1]],
            "voxel_offset": [0, 0, 0],
            "chunk_sizes": [chunk[::-1]],
            "encoding": "compressed_segmentation",
            "compressed_segmentation_block_size": [_BLOCK] * 3,
        }
        for shape, resolution, chunk in levels
    ]
    return json_bytes(
        {
            "@type": "neuroglancer_multiscale_volume",
            "type": "segmentation",
            "data_type": "uint32",
            "num_channels": 1,
            "mesh": "mesh",
            "segment_properties": "segment_properties",
            "scales": scales,
        }
    )


def layer_source(url: str, geometry: Geometry) -> dict[str, Any]:
    """The source of meshes and names for a layer of neuroglancer that shows an OME-Zarr annotation.

    Precomputed volumes and meshes start at the corner of the first voxel, OME-Zarr at the translation of its centre.
    The source is shifted by ``translation / scale - 1/2`` voxels. It leaves out the volume, which the annotation shows.

    Parameters
    ----------
    url : str
        Of the folder ``annotations.precomputed``: ``https://...``, ``s3://...``.
    geometry : Geometry
        Of level 0 of the annotation, in mm.

    Returns
    -------
    dict
        An entry of the ``source`` of a segmentation layer, in JSON's types.
    """
    axes = list(zip("xyz", geometry.scale[::-1], geometry.translation[::-1], strict=True))
    shifts = [round(translation / scale - 0.5, 9) for _, scale, translation in axes]
    return {
        "url": f"precomputed://{url}",
        "enableDefaultSubsources": False,
        "subsources": {"mesh": True, "properties": True},
        "transform": {
            "outputDimensions": {name: [scale / 1000, "m"] for name, scale, _ in axes},
            "matrix": [[*(float(row == column) for column in range(3)), shift] for row, shift in enumerate(shifts)],
        },
    }


def scale_key(resolution: tuple[float, float, float]) -> str:
    """The folder of the volume at a resolution, (z, y, x) in um."""
    return "_".join(f"{size * _NM:.6f}".rstrip("0").rstrip(".") for size in resolution[::-1])
