"""BrainGlobe's own generator of masks, in its own environment, on an annotation and a tree that are given.

Writes what `_save_4d_annotation_data` of brainglobe-atlasapi writes for one level: masks into a scratch store, then the
OME-Zarr.
"""

import json
import sys
import time
import types
from pathlib import Path

import numpy as np


class Absent(types.ModuleType):
    """A module whose names are all None."""

    def __getattr__(self, name: str) -> None:
        return None


#: What makes meshes and a precomputed segmentation, which are not asked for: large, and not installed.
ABSENT = (
    "brainglobe_utils.general.system",
    "cloudvolume",
    "cloudvolume.datasource.precomputed.mesh.multilod",
    "loguru",
    "vedo",
)
sys.modules.update((name, Absent(name)) for name in ABSENT)

from brainglobe_atlasapi.atlas_generation import wrapup  # noqa: E402
from brainglobe_atlasapi.structure_tree_util import get_structures_tree  # noqa: E402


def main(source: Path, output: Path) -> None:
    start = time.perf_counter()
    labels = np.load(source / "labels.npy")
    structures = json.loads((source / "structures.json").read_text())
    tree = get_structures_tree(structures)
    mapping = wrapup._generate_annotation_mapping(tree)
    output.mkdir(parents=True)
    masks = wrapup._compute_4d_masks_for_scale(labels, tree, mapping, output / "scratch.zarr")
    transformations = wrapup._transformations_from_scales([[1.0, 0.025, 0.025, 0.025]])
    wrapup.save_annotation_masks([masks], output, transformations)
    (output / "seconds.txt").write_text(str(time.perf_counter() - start))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
