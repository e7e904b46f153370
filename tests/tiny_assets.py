"""A tiny tree of assets by the published standard, made by hand: its documents, tables and images."""

import json
from datetime import UTC, datetime

import dask.array as da
import numpy as np
import zarr

from atlaszarr.assets.documents import documents
from atlaszarr.assets.names import AtlasNames
from atlaszarr.credit import Credit
from atlaszarr.engine.ome import Geometry
from atlaszarr.geometry.spaces import ORIENTATION
from atlaszarr.writing import write_multiscales

NAMES = AtlasNames.of("tiny-adult-mouse", "2026")
CREDIT = Credit(citation="Tiny, T. (2026) An invented atlas", terms="None", species="Mus inventus")
CREATED = datetime(2026, 11, 28, 13, 30, tzinfo=UTC)
GEOMETRY = Geometry((0.025,) * 3, (0.0, 0.0, 0.0), "millimeter", ORIENTATION)
#: Structures, each with its parent; descendants contain the structure itself, as the Allen Institute has it.
TERMINOLOGY = """\
identifier,parent_identifier,annotation_value,name,abbreviation,color_hex_triplet,descendant_identifiers,\
descendant_annotation_values,root_identifier_path
MBA:997,,997,root,root,#FFFFFF,"['MBA:997', 'MBA:8', 'MBA:3']","[997, 8, 3]",['MBA:997']
MBA:8,MBA:997,8,Area A,A,#FF7080,"['MBA:8', 'MBA:3']","[8, 3]","['MBA:997', 'MBA:8']"
MBA:3,MBA:8,3,"Area A, one",A1,#00FF00,['MBA:3'],[3],"['MBA:997', 'MBA:8', 'MBA:3']"
"""
VALUES = (3, 8, 997)


def tiny_documents(template=True):
    sources = {"0": {"uri": "https://example.org/template.nrrd", "sha256": "ab" * 32}}
    return documents(
        NAMES,
        CREDIT,
        geometry=GEOMETRY,
        resolutions=[(25.0,) * 3, (50.0,) * 3],
        template_sources=sources if template else None,
        created=lambda _: CREATED,
    )


def write_tree(root, template=True):
    """Write a tree that the standard has nothing against."""
    for key, body in tiny_documents(template).items():
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    (root / NAMES.terminology.folder / "terminology.csv").write_text(TERMINOLOGY)
    labels = np.zeros((12, 10, 8), np.uint32)
    labels[2:-2, 2:-2, 2:-2] = 3
    folder = root / NAMES.annotation_set.folder
    given = {"geometry": GEOMETRY, "levels": 2, "chunk": 8}
    write_multiscales(labels, folder / "annotations_compressed.ome.zarr", rule="mode", **given)
    masks = np.stack([labels > 0] * 3).astype("uint8")
    write_multiscales(da.from_array(masks, chunks=(3, 8, 8, 8)), folder / "annotations.ome.zarr", rule="mode", **given)
    group = zarr.open_group(folder / "annotations.ome.zarr", mode="a", use_consolidated=False)
    group.create_array("annotation_values", data=np.array(VALUES, np.uint32))
    infos = {
        "info": {
            "@type": "neuroglancer_multiscale_volume",
            "type": "segmentation",
            "segment_properties": "segment_properties",
            "mesh": "mesh",
            "scales": [{"key": "25000_25000_25000", "encoding": "compressed_segmentation"}],
        },
        "segment_properties/info": {
            "@type": "neuroglancer_segment_properties",
            "inline": {
                "ids": ["3", "8", "997"],
                "properties": [{"id": "name", "type": "label", "values": ["Area A, one", "Area A", "root"]}],
            },
        },
        "mesh/info": {"@type": "neuroglancer_multilod_draco"},
    }
    for name, content in infos.items():
        path = folder / "annotations.precomputed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    (folder / "parcellation_volumes.csv").write_text("identifier,voxel_count,volume_mm3\nMBA:3,192,0.003\n")
    if template:
        image = np.arange(12 * 10 * 8, dtype="uint16").reshape(12, 10, 8)
        write_multiscales(image, root / NAMES.template.folder / "template.ome.zarr", **given)
    return root
