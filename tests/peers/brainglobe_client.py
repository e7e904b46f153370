"""Holds what `brainglobe_atlas.py` wrote to what BrainGlobe's reader makes of it, with no network to fall back on.

Runs in the reader's own environment, without atlaszarr. ATLAS_FOLDER holds `brainglobe-atlasapi` and what
is to be found in it: see `brainglobe_atlas.py`.
"""

import json
import os
import socket
import sys
from pathlib import Path

import numpy as np
from checks import check, run

FOLDER = Path(os.environ["ATLAS_FOLDER"])
# Read before the reader is imported; it writes a configuration there.
os.environ["BRAINGLOBE_CONFIG_DIR"] = str(FOLDER / "configuration")

from brainglobe_atlasapi import BrainGlobeAtlas  # noqa: E402
from scipy.ndimage import binary_fill_holes  # noqa: E402


class NoNetworkError(AssertionError):
    pass


def refuse(*_, **__):
    raise NoNetworkError("the reader asked the network for what it did not find")


socket.getaddrinfo = refuse
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
LABELS = {int(name): values for name, values in np.load(FOLDER / "expected.npz").items()}
TREE = {int(id): path for id, path in EXPECTED["paths"].items()}
ATLASES = {
    resolution: BrainGlobeAtlas(f"{EXPECTED['name']}_{resolution}um", brainglobe_dir=FOLDER, check_latest=False)
    for resolution in LABELS
}


#: Labels and, for every voxel, which of them it has; so that a mask of many labels takes no time.
DRAWN = {resolution: np.unique(labels, return_inverse=True) for resolution, labels in LABELS.items()}


def expected_mask(resolution, identifier):
    """Where a structure or one below it is."""
    values, which = DRAWN[resolution]
    return np.array([identifier in TREE.get(int(value), ()) for value in values])[which]


@check
def the_atlas_opens_at_every_resolution():
    for resolution, atlas in ATLASES.items():
        assert atlas.resolution == (resolution,) * 3
        assert atlas.shape == LABELS[resolution].shape
        assert atlas.metadata["species"] == "Mus musculus"
        assert atlas.orientation == "asr"


@check
def its_annotation_is_what_was_written():
    for resolution, atlas in ATLASES.items():
        assert atlas.annotation.dtype == np.uint32
        np.testing.assert_array_equal(atlas.annotation, LABELS[resolution])


@check
def its_template_is_of_the_same_shape():
    for atlas in ATLASES.values():
        assert atlas.template.dtype == np.uint16
        assert atlas.template.shape == atlas.shape
        assert atlas.template.any()


@check
def its_structures_are_those_of_the_terminology():
    atlas = next(iter(ATLASES.values()))
    assert set(atlas.structures) == set(TREE)
    for identifier, path in TREE.items():
        structure = atlas.structures[identifier]
        assert structure["structure_id_path"] == path
        assert atlas.structures[structure["acronym"]]["id"] == identifier
        assert structure["name"] == EXPECTED["names"][str(identifier)]
    assert atlas.structures["root"]["id"] == atlas.hierarchy.root


@check
def masks_are_the_structure_with_its_descendants():
    for resolution, atlas in ATLASES.items():
        for identifier in EXPECTED["asked"]:
            mask = atlas.get_structure_mask(identifier)
            assert mask.dtype == np.uint8
            np.testing.assert_array_equal(mask, expected_mask(resolution, identifier))


@check
def a_structure_that_occurs_nowhere_has_an_empty_mask():
    for resolution, atlas in ATLASES.items():
        present = {id for value in DRAWN[resolution][0] for id in TREE.get(int(value), ())}
        (absent, *_) = (id for id in TREE if id not in present)
        assert not atlas.get_structure_mask(absent).any()


@check
def the_low_half_of_x_is_right():
    for atlas in ATLASES.values():
        atlas.metadata["symmetric"] = False  # else the reader makes them itself
        stored, atlas._hemispheres = atlas.hemispheres, None
        atlas.metadata["symmetric"] = True
        middle = atlas.shape[2] // 2
        assert (stored[..., :middle] == 2).all()
        assert (stored[..., middle:] == 1).all()
        np.testing.assert_array_equal(stored, atlas.hemispheres)
        assert atlas.hemisphere_from_coords((0, 0, 0), as_string=True) == "right"


@check
def a_place_is_in_the_structure_that_was_drawn_there():
    for resolution, atlas in ATLASES.items():
        for place in np.argwhere(LABELS[resolution])[:: LABELS[resolution].size // 20]:
            found = atlas.structure_from_coords((place + 0.5) * resolution, microns=True)
            assert found == LABELS[resolution][tuple(place)]
        assert atlas.structure_from_coords((0, 0, 0), as_acronym=True) == "Outside atlas"


@check
def meshes_lie_where_their_structures_do_and_enclose_as_much():
    size = EXPECTED["mesh_resolution"]
    atlas = ATLASES[size]
    for identifier in EXPECTED["asked"]:
        mask = expected_mask(size, identifier)
        mesh = atlas.mesh_from_structure(identifier)
        places = np.argwhere(mask)
        assert np.abs(mesh.points.min(axis=0) - places.min(axis=0) * size).max() <= 2 * size
        assert np.abs(mesh.points.max(axis=0) - (places.max(axis=0) + 1) * size).max() <= 2 * size
        a, b, c = (mesh.points[mesh.cells[0].data[:, corner]] for corner in range(3))
        volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
        drawn = binary_fill_holes(mask).sum() * float(size) ** 3  # as BrainGlobe's own meshes have them
        assert 0.8 < volume / drawn < 1.25, (identifier, volume / drawn)
    assert atlas.root_mesh().points.shape[1] == 3


@check
def every_structure_that_occurs_has_a_mesh():
    finest = min(LABELS)
    present = {id for value in DRAWN[finest][0] for id in TREE.get(int(value), ())}
    folder = ATLASES[finest].meshfile_from_structure("root").parent
    assert {int(path.name) for path in folder.iterdir() if path.name.isdigit()} == present


if __name__ == "__main__":
    sys.exit(run("brainglobe"))
