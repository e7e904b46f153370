"""Annotations in any orientation are drawn where they lie, at every level, if they fill the reference space."""

import numpy as np
import pytest
import zarr

import institute_assets as institute
import lumps
from atlaszarr import region_volumes
from atlaszarr.errors import InputError
from atlaszarr.geometry.plane import PLANES
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.previews.annotation_planes import label_planes
from atlaszarr.terminology.terminology import Terminology
from codes import raises

SPACE = reference_space(9)
#: Sides at which z, y and x begin, the axes p, i, r that they are, and which of them are reversed.
ORIENTATIONS = {
    "RAS": (institute.RAS, (1, 0, 2), (0, 1)),
    "LPS": (("inferior-to-superior", "anterior-to-posterior", "right-to-left"), (1, 0, 2), (0, 2)),
    "x first": (("left-to-right", "inferior-to-superior", "posterior-to-anterior"), (2, 1, 0), (1, 2)),
    "reversed": (("posterior-to-anterior", "inferior-to-superior", "left-to-right"), (0, 1, 2), (0, 1)),
}


def write(folder, values, words, size=200.0):
    """An image of two levels, the second of which has every second voxel; its first voxel lies anywhere."""
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    axes = [
        {"name": name, "type": "space", "unit": "micrometer", "orientation": {"type": "anatomical", "value": word}}
        for name, word in zip("zyx", words, strict=True)
    ]
    datasets = []
    for level, part in enumerate((values, values[::2, ::2, ::2])):
        config = {"write_empty_chunks": True}
        group.create_array(f"s{level}", data=np.ascontiguousarray(part), chunks=(32, 32, 32), config=config)
        steps = [
            {"type": "scale", "scale": [size * 2**level] * 3},
            {"type": "translation", "translation": [-5000.0, 700.0, -80.0]},
        ]
        datasets.append({"path": f"s{level}", "coordinateTransformations": steps})
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    return folder


@pytest.fixture(params=ORIENTATIONS)
def image(request, tmp_path):
    words, order, flipped = ORIENTATIONS[request.param]
    values = np.flip(lumps.labels().transpose(order), flipped)
    return write(tmp_path / "x.ome.zarr", values, words)


def at(plane, rows, columns):
    """The labels of a plane at positions in um."""
    index = [
        np.floor((np.asarray(um) - corner) / size).astype(int)
        for um, corner, size in zip((rows, columns), plane.corner, plane.size, strict=True)
    ]
    return plane.labels[np.ix_(*index)]


@pytest.mark.parametrize("name", ["coronal", "sagittal", "transverse"])
@pytest.mark.parametrize("resolution", [200.0, 400.0])
def test_every_plane_has_the_labels_at_their_positions(image, name, resolution):
    plane, volume = PLANES[name], lumps.labels()
    depth = {"coronal": 25, "sagittal": 21, "transverse": 15}[name]
    (found,) = label_planes(image, plane, [depth * 200 + 100.0], resolution, SPACE)
    assert found.size == pytest.approx((resolution, resolution))
    section = np.take(volume, depth, axis=plane.fixed)
    section = section if plane.rows < plane.columns else section.T
    # Voxels that the coarse level has kept lie in the middle of its own.
    centres = [np.arange(found.labels.shape[k]) * resolution + found.corner[k] + resolution / 2 for k in (0, 1)]
    inside = [at_axis[(at_axis > 0) & (at_axis < n * 200)] for at_axis, n in zip(centres, section.shape, strict=True)]
    index = [np.floor(positions / 200).astype(int) for positions in inside]
    expected = section[np.ix_(*index)]
    if resolution == 200:
        np.testing.assert_array_equal(at(found, *inside), expected)
    else:  # the plane itself may be the next voxel
        assert (at(found, *inside) == expected).mean() > 0.97


def test_a_part_of_the_space_in_another_orientation_is_refused_since_it_may_lie_anywhere(tmp_path):
    values = np.flip(lumps.labels().transpose(1, 0, 2), (0, 1))[5:]
    image = write(tmp_path / "x.ome.zarr", values, institute.RAS)
    with raises(InputError, "unsupported-orientation") as caught:
        label_planes(image, PLANES["coronal"], [5100.0], 200.0, SPACE)
    assert "inferior-to-superior" in str(caught.value) or "posterior-to-anterior" in str(caught.value)


@pytest.mark.parametrize("word", ["proximal-to-distal", "left-to-right", "up"])
def test_an_orientation_that_is_not_known_is_named(tmp_path, word):
    image = write(tmp_path / "x.ome.zarr", lumps.labels(), ("anterior-to-posterior", word, "left-to-right"))
    with raises(InputError, "unsupported-orientation") as caught:
        label_planes(image, PLANES["coronal"], [5100.0], 200.0, SPACE)
    assert word in str(caught.value)


@pytest.mark.parametrize("name", ["RAS", "LPS", "reversed"])
def test_the_sides_are_those_of_the_x_axis(tmp_path, name):
    words, order, flipped = ORIENTATIONS[name]
    image = write(tmp_path / "x.ome.zarr", np.flip(lumps.labels().transpose(order), flipped), words)
    terminology = Terminology.from_structure_graph(lumps.graph())
    table = region_volumes(image, terminology, by_hemisphere=True)  # no warning that the midline is assumed
    assert table.loc[10, "volume_left_mm3"] == pytest.approx(lumps.LL_MM3)
    assert table.loc[10, "volume_right_mm3"] == 0
    low = "right" if name == "LPS" else "left"
    assert table.attrs["hemispheres"].startswith(f"{low} is low {'x' if name == 'LPS' else 'r'}")
