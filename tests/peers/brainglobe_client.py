"""Holds what `brainglobe_atlas.py` wrote to what BrainGlobe's reader makes of it, with no network to fall back on.

Runs in the reader's own environment, without atlaszarr. ATLAS_FOLDER holds `brainglobe-atlasapi` and what
is to be found in it: see `brainglobe_atlas.py`.
"""

import contextlib
import io
import json
import os
import socket
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import requests
from checks import check, run

FOLDER = Path(os.environ["ATLAS_FOLDER"])
# Both are read when the reader is imported.
os.environ["BRAINGLOBE_CONFIG_DIR"] = str(FOLDER / "configuration")
(FOLDER / "configuration").mkdir(exist_ok=True)
(FOLDER / "configuration" / "bg_config.conf").write_text(
    f"[default_dirs]\nbrainglobe_dir = {FOLDER}\ninterm_download_dir = {FOLDER}\n"
)

from brainglobe_atlasapi import BrainGlobeAtlas, list_atlases, show_atlases  # noqa: E402
from brainglobe_atlasapi.atlas_generation import validate_atlases  # noqa: E402
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


#: The names of all atlases.
LISTED = {f"{EXPECTED['name']}_{resolution}um" for resolution in LABELS}


@contextlib.contextmanager
def offline():
    """No name is resolved, as on a machine without a network."""

    def unknown(*_, **__):
        raise socket.gaierror("no network here")

    before, socket.getaddrinfo = socket.getaddrinfo, unknown
    try:
        yield
    finally:
        socket.getaddrinfo = before


@contextlib.contextmanager
def online(official):
    """Every request of `requests` is answered: one for BrainGlobe's own list with its text, others with nothing."""

    class Answering(requests.adapters.BaseAdapter):
        def send(self, request, **_):
            answer = requests.Response()
            answer.status_code, answer.url = 200, request.url
            answer.raw = io.BytesIO(official if request.url.endswith("/atlases/last_versions.conf") else b"")
            return answer

    before, requests.Session.get_adapter = requests.Session.get_adapter, lambda *_, **__: Answering()
    try:
        yield
    finally:
        requests.Session.get_adapter = before


#: Labels and, for every voxel, which of them it has; so that a mask of many labels takes no time.
DRAWN = {resolution: np.unique(labels, return_inverse=True) for resolution, labels in LABELS.items()}


def expected_mask(resolution, identifier):
    """Where a structure or one below it is."""
    values, which = DRAWN[resolution]
    return np.array([identifier in TREE.get(int(value), ()) for value in values])[which]


def present(resolution):
    """The structures that have a voxel at a resolution, themselves or by a descendant."""
    return {id for value in DRAWN[resolution][0] for id in TREE.get(int(value), ())}


FINEST, COARSEST = min(LABELS), max(LABELS)


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
def its_structures_are_those_of_the_terminology_that_occur():
    for atlas in ATLASES.values():
        assert set(atlas.structures) == present(FINEST)
        for identifier in present(FINEST):
            structure = atlas.structures[identifier]
            assert structure["structure_id_path"] == TREE[identifier]
            assert atlas.structures[structure["acronym"]]["id"] == identifier
            assert structure["name"] == EXPECTED["names"][str(identifier)]
        assert atlas.structures["root"]["id"] == atlas.hierarchy.root
    return f"{len(present(FINEST))} of {len(TREE)} structures"


@check
def masks_are_the_structure_with_its_descendants():
    for resolution, atlas in ATLASES.items():
        for identifier in EXPECTED["asked"]:
            mask = atlas.get_structure_mask(identifier)
            assert mask.dtype == np.uint8
            np.testing.assert_array_equal(mask, expected_mask(resolution, identifier))


@check
def a_structure_that_occurs_at_a_finer_resolution_alone_has_an_empty_mask():
    vanished = sorted(present(FINEST) - present(COARSEST))
    for identifier in vanished[:5]:
        assert not ATLASES[COARSEST].get_structure_mask(identifier).any()
        np.testing.assert_array_equal(ATLASES[FINEST].get_structure_mask(identifier), expected_mask(FINEST, identifier))
    return f"{len(vanished)} structures"


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
def every_structure_that_occurs_has_a_mesh_and_no_other():
    folder = ATLASES[FINEST].meshfile_from_structure("root").parent
    assert {int(path.name) for path in folder.iterdir() if path.name.isdigit()} == present(FINEST)


@check
def its_own_validators_pass_but_the_one_that_knows_the_names_of_its_own_atlases():
    validators = [*validate_atlases.get_all_validation_functions(), validate_atlases.validate_metadata]
    for atlas in ATLASES.values():
        failed = {}
        for validate in validators:
            try:
                assert validate(atlas)
            except AssertionError as error:
                failed[validate.__name__] = str(error)
        assert failed.keys() == {"validate_atlas_name_listed"}, (atlas.atlas_name, failed)
    passed = [one.__name__ for one in validators if one.__name__ not in failed]
    return f"{len(passed)} of {len(validators)} pass: {', '.join(passed)}"


@check
def it_lists_the_atlas_offline():
    with offline():
        assert list_atlases.get_all_atlases_lastversions().keys() == LISTED
        assert_listed()


@check
def it_lists_the_atlas_online_next_to_its_own():
    cache = FOLDER / "brainglobe-atlasapi" / "atlases" / "last_versions.conf"
    before = cache.read_bytes()
    try:
        with online(b"[atlases]\nexample_mouse_100um = 1.2\n"):
            assert list_atlases.get_all_atlases_lastversions().keys() == {"example_mouse_100um", *LISTED}
            assert_listed()
        with offline():  # what it has fetched is now its list
            assert list_atlases.get_all_atlases_lastversions().keys() == {"example_mouse_100um", *LISTED}
    finally:
        cache.write_bytes(before)


def assert_listed():
    downloaded = list_atlases.get_atlases_lastversions()
    assert downloaded.keys() == LISTED
    for name, entry in downloaded.items():
        assert entry["downloaded"], name
        assert entry["updated"], name
        assert entry["version"] == entry["latest_version"] == EXPECTED["version"]
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        show_atlases(table_width=120)
    for name in LISTED:
        assert name in shown.getvalue()


@check
def registered_datasets_are_its_additional_references():
    expected = dict(np.load(FOLDER / "references.npz"))
    for atlas in ATLASES.values():
        assert sorted(atlas.additional_references.references_names) == sorted(expected)
        for name in expected:
            assert atlas.additional_references[name].shape == atlas.shape
    for name, values in expected.items():
        assert values.any()
        np.testing.assert_array_equal(ATLASES[100].additional_references[name], values)
    return ", ".join(sorted(expected)) or "none in this atlas"


@check
def voxels_have_the_values_that_its_own_tests_record():
    recorded = EXPECTED["recorded"]
    if not recorded:
        return "none of this atlas"
    atlas = ATLASES[recorded["resolution"]]
    region = tuple(slice(*bounds) for bounds in recorded["region"])
    for name, values in recorded["stacks"].items():
        np.testing.assert_array_equal(getattr(atlas, name)[region], values, err_msg=name)
    for place, structure, side in recorded["places"]:
        assert atlas.structure_from_coords(place) == structure
        assert atlas.hemisphere_from_coords(place, as_string=True) == side
    return ", ".join(recorded["stacks"])


if __name__ == "__main__":
    sys.exit(run(f"brainglobe-atlasapi {version('brainglobe-atlasapi')}"))
