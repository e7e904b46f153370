"""An annotation of four structures in 20^3 voxels of 0.1 mm, with its terminology."""

import numpy as np

from atlaszarr.engine.ome import Geometry
from atlaszarr.writing import write_multiscales

CSV = """identifier,parent_identifier,annotation_value,name,abbreviation,color_hex_triplet,root_identifier_path
1,,1,root,root,#FFFFFF,[1]
2,1,2,"Cortex, all of it [bold]",CTX,#00FF00,"[1, 2]"
3,2,3,Retrosplenial area,RSP,#0000FF,"[1, 2, 3]"
4,1,4,Nothing,NIL,#0000FF,"[1, 4]"
"""
GEOMETRY = Geometry((0.1, 0.1, 0.1), orientation={"x": "left-to-right"})


def labels():
    values = np.zeros((20, 20, 20), np.uint32)
    values[:10] = 2
    values[:5, :, :15] = 3
    return values


def write_annotation(folder):
    """Write the annotation, with its terminology next to it, and return its path."""
    (folder / "terminology.csv").write_text(CSV)
    write_multiscales(labels(), folder / "annotation.ome.zarr", rule="mode", geometry=GEOMETRY)
    return folder / "annotation.ome.zarr"
