"""Figures that the Allen Institute publishes for dataset 69289763 (Prox1, sagittal), typed from its API's records.

They stand apart from the emulator's own tables, so that a peer is held to the published figure and not to what
the emulator happens to say. Alignments are (rows of the linear part | translation), as in a matrix product.
"""

import numpy as np

DATASET = 69289763
GENE = "Prox1"
SPECIMEN = 68870790
REFERENCE_SPACE = 10
THICKNESS = 25.0
SECTION_NUMBERS = [number for number in range(6, 159, 8) if number not in (94, 110)]  # two sections are missing

# 3-D: section plane and depth (um) to (p, i, r) (um), and back
TVR = np.array(
    [
        [1.0283, 0.0326282, -0.000652651, -1118.73],
        [-0.0323384, 0.990426, -0.0198112, -1225.02],
        [0.0, 0.0174272, 0.871244, 1743.06],
    ]
)
TRV = np.array(
    [
        [0.971471, -0.0320037, -1.57549e-19, 1047.61],
        [0.0317067, 1.00822, 0.0229496, 1230.56],
        [-0.00063422, -0.020167, 1.14732, -2025.27],
    ]
)

# one of its sections, with its 2-D alignment: pixels to um in the section plane, and back
IMAGE = 69177654
SECTION_NUMBER = 70
WIDTH, HEIGHT = 11921, 7553
TSV = np.array([[1.049, -0.000497103, 2081.73], [0.000497103, 1.049, 1594.62]])
TVS = np.array([[0.953289, 0.000451747, -1985.21], [-0.000451747, 0.953289, -1519.2]])

# the image of the classic getting-started pages
WHOLE_IMAGE = 101321610
WHOLE_WIDTH, WHOLE_HEIGHT = 2856, 2656

# a coronal dataset (Nrp1), every section of which is there
CORONAL_DATASET = 74272479
GENE_OF_CORONAL_DATASET = "Nrp1"
CORONAL_SECTION_NUMBERS = list(range(5, 478, 8))


def to_reference(x: float, y: float) -> np.ndarray:
    """(p, i, r) in um of pixel (x, y) of IMAGE: by tsv, then tvr."""
    plane = TSV @ [x, y, 1.0]
    return TVR @ [*plane, SECTION_NUMBER * THICKNESS, 1.0]


def to_image(p: float, i: float, r: float) -> np.ndarray:
    """(x, y) in pixels of IMAGE of a point in um: by trv, then tvs."""
    return TVS @ [*(TRV @ [p, i, r, 1.0])[:2], 1.0]
