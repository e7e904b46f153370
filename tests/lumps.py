"""An asymmetric annotation with the extent of the CCF at 200 um, and its structures.

LL lies at low r only, which is left: 480 voxels of 200 um are 3.84 mm3.
"""

import numpy as np

#: Shape along (p, i, r).
SHAPE = (66, 40, 57)
#: Volume of LL in mm3.
LL_MM3 = 3.84
#: identifier, parent, name, acronym, colour.
ROWS = (
    (997, None, "root", "root", "#FFFFFF"),
    (8, 997, "Basic cell groups", "grey", "#BFDAE3"),
    (10, 8, "Left lump", "LL", "#11AA11"),
    (20, 8, "Middle, deep part", "MID", "#AA1111"),
    (614454277, 8, "Big id", "BIG", "#1111AA"),
)


def labels():
    """The labels, axes (p, i, r), uint32."""
    values = np.zeros(SHAPE, np.uint32)
    values[10:50, 10:30, 15:42] = 20
    values[20:30, 12:20, 18:24] = 10
    values[40:45, 12:20, 20:36] = 614454277
    return values


def template():
    """Intensities, brightest in LL, axes (p, i, r), uint16."""
    values = labels()
    return np.select([values == 10, values > 0], [900, 100], 0).astype(np.uint16)


def graph():
    """The nodes of a structure graph of the Allen API."""
    nodes = {
        id: {"id": id, "acronym": acronym, "name": name, "color_hex_triplet": colour[1:], "children": []}
        for id, _, name, acronym, colour in ROWS
    }
    for id, parent, *_ in ROWS[1:]:
        nodes[id]["parent_structure_id"] = parent
        nodes[parent]["children"].append(nodes[id])
    return [nodes[997]]
