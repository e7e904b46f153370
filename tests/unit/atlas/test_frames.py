"""One frame for all volumes of an atlas: the CCF under each of its headers, other atlases by theirs, sizes, origins."""

import json

import nibabel
import nrrd
import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from ngff_zarr import from_ngff_zarr

from atlaszarr import Terminology, build_atlas, region_volumes, verify
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import AtlaszarrWarning, InputError
from atlaszarr.geometry.spaces import ORIENTATION
from atlaszarr.reference_volumes import open_annotation
from atlaszarr.reference_volumes.frame import frame_of
from atlaszarr.reference_volumes.header import Header
from atlaszarr.reference_volumes.orientation import Orientation
from atlaszarr.writing import write_multiscales
from codes import raises
from lumps import LL_MM3, graph, labels, template

ONTOLOGY = Terminology.from_structure_graph(graph())
SET = "annotation-sets/tiny-annotation/1"
#: Columns: the direction of the axes p, i, r in left-posterior-superior.
TRUE = np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], float)
LPS_TO_RAS = np.diag([-1, -1, 1])


def as_nrrd(path, values, directions, unit=None, origin=(0, 0, 0), space="left-posterior-superior"):
    header = {
        "space": space,
        "space directions": np.asarray(directions).T,
        "space origin": np.array(origin, float),
        "kinds": ["domain"] * 3,
        "encoding": "gzip",
    }
    nrrd.write(str(path), values, header | ({"space units": [unit] * 3} if unit else {}))
    return path


def as_nifti(path, values, directions, unit="mm", origin=(0, 0, 0)):
    """Directions and origin are in left-posterior-superior, as ITK has them."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = LPS_TO_RAS @ directions, LPS_TO_RAS @ np.array(origin, float)
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def as_ome_zarr(path, values, orientation=ORIENTATION, **geometry):
    write_multiscales(values, path, rule="mode", geometry=Geometry(**geometry, orientation=orientation), levels=1)
    return path


IDENTITY = np.eye(3)
#: A volume that is not the CCF.
CUBE = labels()[:40, :, 10:50]
#: Every header of the CCF that is in circulation, and the options that it needs.
CCF = {
    "old NRRD": lambda p, v: (as_nrrd(p / "v.nrrd", v, 200 * IDENTITY), {}),
    "old NRRD, moved": lambda p, v: (as_nrrd(p / "v.nrrd", v, 200 * IDENTITY, origin=(1, 0, 0)), {}),
    "old NRRD in um": lambda p, v: (as_nrrd(p / "v.nrrd", v, 200 * IDENTITY, "um"), {}),
    "old NRRD in mm": lambda p, v: (as_nrrd(p / "v.nrrd", v, 0.2 * IDENTITY, "mm"), {}),
    "corrected NRRD in mm": lambda p, v: (as_nrrd(p / "v.nrrd", v, 0.2 * TRUE, "mm"), {}),
    "corrected NRRD without unit": lambda p, v: (
        as_nrrd(p / "v.nrrd", v, 0.2 * TRUE, origin=(5.6, -5.3, 5.2)),
        {},
    ),
    "corrected NRRD, um without unit": lambda p, v: (as_nrrd(p / "v.nrrd", v, 200 * TRUE), {}),
    "corrected NIfTI": lambda p, v: (as_nifti(p / "v.nii.gz", v, 0.2 * TRUE, origin=(5.6, -5.3, 5.2)), {}),
    "corrected NIfTI in um": lambda p, v: (as_nifti(p / "v.nii.gz", v, 200 * TRUE, "micron"), {}),
    "corrected NIfTI without unit": lambda p, v: (as_nifti(p / "v.nii.gz", v, 0.2 * TRUE, "unknown"), {}),
    "ITK's NIfTI, um as mm": lambda p, v: (as_nifti(p / "v.nii.gz", v, 200 * IDENTITY), {}),
    "ITK's NIfTI in mm": lambda p, v: (as_nifti(p / "v.nii", v, 0.2 * IDENTITY), {}),
    "NRRD in another space": lambda p, v: (
        as_nrrd(p / "v.nrrd", v, 200 * IDENTITY, "um", space="scanner-xyz"),
        {},
    ),
    "NIfTI in RAS order": lambda p, v: (
        as_nifti(p / "v.nii", v.transpose(2, 0, 1)[:, ::-1, ::-1], LPS_TO_RAS * 0.2),
        {},
    ),
    "TIFF": lambda p, v: (tifffile.imwrite(p / "v.tif", v) or p / "v.tif", {"voxel_size": 200}),
    "OME-Zarr": lambda p, v: (as_ome_zarr(p / "v.ome.zarr", v, scale=(0.2,) * 3, translation=(0.095,) * 3), {}),
    "OME-Zarr without orientation": lambda p, v: (as_ome_zarr(p / "v.ome.zarr", v, {}, scale=(0.2,) * 3), {}),
    "OME-Zarr of BrainGlobe": lambda p, v: (
        as_ome_zarr(p / "v.ome.zarr", v, ORIENTATION | {"x": "right-to-left"}, scale=(0.2,) * 3),
        {},
    ),
}


@pytest.mark.first(3)
@pytest.mark.parametrize("name", CCF)
def test_the_ccf_is_the_same_voxels_in_the_same_places_under_every_header(name, tmp_path):
    path, options = CCF[name](tmp_path, labels())
    with open_annotation(path, tmp_path, **options) as found:
        np.testing.assert_array_equal(found.array, labels())
        assert found.voxel_size == (200.0, 200.0, 200.0)
        assert found.is_ccf
        assert found.position is None
        assert found.contradictions == ()
        if "old" in name or "ITK" in name:
            (remark,) = (text for text in found.remarks if "read as p, i, r (asl)" in text)
            assert "left-posterior-superior" in remark
            assert "spacing" in remark  # the numbers of the header
    target = tmp_path / "atlas"
    report = build_atlas(target, annotation=path, ontology=ONTOLOGY, **options)
    table = pd.read_csv(report.volumes, index_col="identifier")
    assert table.loc[10, "volume_mm3"] == pytest.approx(LL_MM3)
    assert table.loc[10, "volume_left_mm3"] == pytest.approx(LL_MM3)
    image = from_ngff_zarr(report.images[0].target).images[0]
    assert image.translation == {"z": 0.095, "y": 0.095, "x": 0.095}
    assert image.scale == {"z": 0.2, "y": 0.2, "x": 0.2}


@pytest.mark.parametrize("origin", ["rai", None])
def test_the_ccf_is_recognised_in_a_format_without_units(origin):
    """As in the grids of the Allen API, whose MetaImage has um and at most the identity as its axes."""
    header = Header(
        "energy.mhd",
        (67, 41, 58),
        np.dtype("f4"),
        fastest_first=True,
        spacing=(200000.0,) * 3,
        origin=origin,
        position=(0.0,) * 3,
        numbers="spacing 200 x 200 x 200 (no unit), origin 0, 0, 0",
        unit_assumed=True,
    )
    frame = frame_of(header, None, None)
    assert (frame.begins, frame.voxel_size, frame.is_ccf) == ("asl", (200.0, 200.0, 200.0), True)
    assert frame.orientation == Orientation.of("asl")
    (remark,) = frame.remarks
    assert header.numbers in remark


def test_volumes_of_the_ccf_with_different_headers_make_one_atlas(tmp_path):
    annotation, _ = CCF["old NRRD"](tmp_path, labels())
    other, _ = CCF["corrected NIfTI"](tmp_path, template())
    target = tmp_path / "atlas"
    build_atlas(target, annotation=annotation, template=other, ontology=ONTOLOGY, name="tiny", version="1")
    levels = [zarr.open_array(target / path / "0", mode="r")[:] for path in
              (f"{SET}/annotation.ome.zarr", "templates/tiny-template/1/template.ome.zarr")]  # fmt: skip
    np.testing.assert_array_equal(levels[0] == 10, levels[1] == 900)


SCRAMBLED = {
    "identity in RAS": lambda p, v: as_nifti(p / "v.nii", v, LPS_TO_RAS * 0.2),
    "identity in RAS, um without unit": lambda p, v: as_nifti(p / "v.nii", v, LPS_TO_RAS * 200.0, "unknown"),
    "axes reversed by numpy, then ITK": lambda p, v: as_nifti(p / "v.nii", v.transpose(2, 1, 0), 0.2 * IDENTITY),
    "mirrored old NRRD": lambda p, v: as_nrrd(p / "v.nrrd", v, 200 * np.diag([-1, 1, 1])),
    "OME-Zarr": lambda p, v: as_ome_zarr(
        p / "v.ome.zarr", v, {**ORIENTATION, "z": ORIENTATION["y"], "y": ORIENTATION["z"]}, scale=(0.2,) * 3
    ),
}


@pytest.mark.parametrize("name", SCRAMBLED)
def test_a_header_that_contradicts_the_extent_of_the_ccf_is_refused_until_the_axes_are_given(name, tmp_path):
    path = SCRAMBLED[name](tmp_path, labels())
    with raises(InputError, "contradictory-header") as caught, open_annotation(path, tmp_path):
        pass
    assert "--orientation" in str(caught.value)
    assert "0.2" in str(caught.value) or "200" in str(caught.value)
    letters = "lsa" if "reversed" in name else "asl"
    with open_annotation(path, tmp_path, orientation=letters, voxel_size=200) as found:
        np.testing.assert_array_equal(found.array, labels())
        assert found.is_ccf
        assert any("by its header" in text for text in found.contradictions)


def test_a_size_that_is_the_number_of_a_header_without_a_unit_does_not_contradict_it(tmp_path):
    path, _ = CCF["old NRRD"](tmp_path, labels())
    with open_annotation(path, tmp_path, voxel_size=200) as found:
        assert found.contradictions == ()
    with open_annotation(path, tmp_path, voxel_size=100, orientation="asl") as found:
        assert len(found.contradictions) == 2


def test_sizes_of_the_ccf_are_remarked_on_also_if_its_orientation_is_given(tmp_path):
    path, _ = CCF["ITK's NIfTI, um as mm"](tmp_path, labels())
    with open_annotation(path, tmp_path, orientation="asl") as found:
        assert found.voxel_size == (200.0, 200.0, 200.0)
        np.testing.assert_array_equal(found.array, labels())
        (axes,) = found.contradictions
        assert "begin at rai by its header" in axes
        assert any("are read as 200 um" in text for text in found.remarks)


def test_grids_of_the_ccf_that_are_rounded_differently_make_one_atlas(tmp_path):
    annotation, _ = CCF["old NRRD"](tmp_path, labels())
    grid = as_nifti(tmp_path / "t.nii", np.ones((67, 41, 58), np.uint16), 0.2 * TRUE)
    report = build_atlas(tmp_path / "atlas", annotation=annotation, template=grid, ontology=ONTOLOGY)
    for image in report.images[:2]:
        assert from_ngff_zarr(image.target).images[0].translation == {"z": 0.095, "y": 0.095, "x": 0.095}


CROPPED = {
    "old NRRD": lambda p, v: as_nrrd(p / "v.nrrd", v, 200 * IDENTITY),
    "ITK's NIfTI, um as mm": lambda p, v: as_nifti(p / "v.nii", v, 200 * IDENTITY),
}


@pytest.mark.parametrize("name", CROPPED)
def test_a_part_of_the_ccf_under_its_wrong_header_needs_its_orientation_also_if_its_size_is_given(name, tmp_path):
    path = CROPPED[name](tmp_path, labels()[..., :29])
    for options in ({}, {"voxel_size": 200}):
        with raises(InputError, "missing-orientation") as caught, open_annotation(path, tmp_path, **options):
            pass
        assert "spacing 200 x 200 x 200" in str(caught.value)
    with open_annotation(path, tmp_path, orientation="asl", voxel_size=200) as found:
        np.testing.assert_array_equal(found.array, labels()[..., :29])
        assert not found.is_ccf


@pytest.mark.parametrize("part", [slice(0, 29), slice(29, 57)])
def test_an_atlas_of_a_part_of_the_ccf_is_refused_since_its_middle_is_not_the_midline(part, tmp_path):
    path = as_nrrd(tmp_path / "a.nrrd", labels()[..., part], 200 * IDENTITY)
    with raises(InputError, "part-of-ccf") as caught:
        other_atlas(tmp_path, path, orientation="asl", voxel_size=200)
    assert f"{200 * labels()[..., part].shape[2]} um along x" in str(caught.value)
    assert not (tmp_path / "atlas").exists()


def test_a_remark_says_that_the_midline_of_another_atlas_is_assumed(tmp_path):
    report = other_atlas(tmp_path, as_nrrd(tmp_path / "a.nrrd", labels()[:50], 0.2 * TRUE, "mm"))
    record = json.loads((tmp_path / "atlas/atlaszarr/tiny-1.json").read_text())
    assert [text for text in report.remarks if "midline" in text] == [
        text for text in record["remarks"] if "the midline is assumed in the middle" in text
    ]
    assert len([text for text in report.remarks if "midline" in text]) == 1
    with pytest.warns(AtlaszarrWarning, match="the midline is assumed in the middle"):
        region_volumes(report.images[0].target, by_hemisphere=True)


@pytest.mark.parametrize("unit", ["mm", None])
def test_a_volume_that_may_be_left_posterior_superior_is_read_by_its_header(unit, tmp_path):
    path = as_nrrd(tmp_path / "v.nrrd", CUBE, 0.1 * IDENTITY, unit)
    with open_annotation(path, tmp_path) as found:
        np.testing.assert_array_equal(found.array, CUBE.transpose(1, 2, 0)[:, ::-1, ::-1])
        assert any("begin at rai, by its header" in remark for remark in found.remarks)
        assert any("millimetres are assumed" in remark for remark in found.remarks) == (unit is None)


def test_axes_that_are_oblique_are_not_recognised(tmp_path):
    directions = 0.2 * TRUE
    directions[0, 0] = 0.01
    path = as_nifti(tmp_path / "v.nii", labels(), directions)
    with raises(InputError, "missing-orientation") as caught, open_annotation(path, tmp_path):
        pass
    assert "oblique" in str(caught.value)


# Sizes

BRAIN = np.ones((20, 16, 18), np.uint8)


@pytest.mark.parametrize(
    ("spacing", "unit"),
    [(200, "mm"), (5.1, "mm"), (25, "mm"), (0.09, "micron"), (0.025, "micron"), (25, "unknown"), (1, "meter")],
)
def test_an_implausible_voxel_or_volume_is_refused_until_its_size_is_given(spacing, unit, tmp_path):
    path = as_nifti(tmp_path / "v.nii", BRAIN, spacing * TRUE, unit)
    with raises(InputError, "implausible-size") as caught, open_annotation(path, tmp_path):
        pass
    assert f"spacing {spacing} x {spacing} x {spacing}" in str(caught.value)
    assert "--voxel-size" in str(caught.value)
    with open_annotation(path, tmp_path, voxel_size=25) as found:
        assert found.voxel_size == (25.0, 25.0, 25.0)
        # 25 without a unit may be um.
        assert len(found.contradictions) == ((spacing, unit) != (25, "unknown"))


def test_a_volume_longer_than_half_a_metre_is_refused(tmp_path):
    path = as_nifti(tmp_path / "v.nii", np.ones((101, 2, 2), np.uint8), 5 * TRUE)
    with raises(InputError, "implausible-size") as caught, open_annotation(path, tmp_path):
        pass
    assert "505 mm" in str(caught.value)


def test_the_size_of_the_ccf_in_mm_that_are_um_is_refused_under_a_corrected_header(tmp_path):
    path = as_nifti(tmp_path / "v.nii", labels(), 200 * TRUE)
    with raises(InputError, "implausible-size"), open_annotation(path, tmp_path):
        pass
    with open_annotation(path, tmp_path, voxel_size=200) as found:
        assert found.is_ccf
        np.testing.assert_array_equal(found.array, labels())


def test_an_ome_zarr_has_the_same_bounds_in_every_command(tmp_path, command):
    path = as_ome_zarr(tmp_path / "v.ome.zarr", labels(), scale=(200.0,) * 3)
    (tmp_path / "terminology.csv").write_text(ONTOLOGY.to_csv())
    with raises(InputError, "implausible-size"), open_annotation(path, tmp_path):
        pass
    with raises(InputError, "implausible-size"):
        region_volumes(path)
    with pytest.warns(AtlaszarrWarning, match="200000 um by its metadata"):
        assert region_volumes(path, voxel_size=200).loc[10, "volume_mm3"] == pytest.approx(LL_MM3)
    refused = command("volumes", path, "--region", "LL")
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    for size in ("200", "200,200,200"):
        ran = command("volumes", path, "--region", "LL", "--voxel-size", size, "-q")
        assert (ran.code, ran.out) == (0, "Left lump: 3.84 mm3\n")
        assert "as given" in ran.err


def test_a_unit_that_is_assumed_gets_a_remark_with_the_numbers_of_the_header(tmp_path):
    path = as_nifti(tmp_path / "v.nii", BRAIN, 0.5 * TRUE, "unknown")
    with open_annotation(path, tmp_path) as found:
        assert found.voxel_size == (500.0, 500.0, 500.0)
        (remark,) = (text for text in found.remarks if "no unit" in text)
    assert "spacing 0.5 x 0.5 x 0.5" in remark
    assert "millimetres" in remark
    with open_annotation(path, tmp_path, voxel_size=1000) as found:
        (remark,) = found.contradictions
    assert "500 um by its metadata (spacing 0.5 x 0.5 x 0.5 (no unit)" in remark


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1,2", "1,2,3,4", "x", "1,,2", "1_000", "٢٠٠", "1e999"])
def test_an_invalid_voxel_size_is_refused_by_both_commands(text, tmp_path, command):
    for arguments in (["volumes", tmp_path / "a.ome.zarr"], ["atlas", tmp_path / "t", "--annotation", tmp_path / "a"]):
        ran = command(*arguments, f"--voxel-size={text}")
        assert (ran.code, len(ran.err.splitlines())) == (2, 1)
        assert repr(text) in ran.err


def test_a_voxel_size_of_three_lengths_is_along_z_y_x_of_the_result(tmp_path):
    path = as_nifti(tmp_path / "v.nii", np.ones((9, 10, 11), np.uint8), LPS_TO_RAS * 0.2)
    with open_annotation(path, tmp_path, voxel_size=(300, 100, 200)) as found:
        assert found.array.shape == (10, 11, 9)
        assert found.voxel_size == (300.0, 100.0, 200.0)


def test_an_option_that_contradicts_a_header_is_remarked_on_also_under_q_and_recorded(tmp_path, command):
    path = as_nifti(tmp_path / "v.nii", labels()[:50], 0.2 * TRUE)
    (tmp_path / "t.csv").write_text(ONTOLOGY.to_csv())
    target = tmp_path / "atlas"
    arguments = ["atlas", target, "--annotation", path, "--ontology", tmp_path / "t.csv", "--name", "tiny"]
    ran = command(*arguments, "--version", "1", "-q", "--voxel-size", "100,200,200", "--orientation", "psl")
    assert ran.code == 0
    axes, sizes = ran.err.splitlines()
    assert "begin at asl by its header" in axes
    assert "read as psl, as given" in axes
    assert "read as 100 x 200 x 200 um, as given" in sizes
    assert {text in json.loads((target / "atlaszarr/tiny-1.json").read_text())["remarks"] for text in
            (line.removeprefix("atlaszarr: ") for line in ran.err.splitlines())} == {True}  # fmt: skip


@pytest.mark.parametrize("kind", ["annotation", "template"])
def test_one_voxel_size_is_not_that_of_several_resolutions(kind, tmp_path):
    fine = as_nrrd(tmp_path / "a.nrrd", labels(), 200 * IDENTITY)
    coarse = as_nrrd(tmp_path / "b.nrrd", np.ascontiguousarray(labels()[::2, ::2, ::2]), 400 * IDENTITY)
    given = {"annotation": fine, "template": ()} | {kind: [fine, coarse]}
    with raises(InputError, "one-voxel-size"):
        other_atlas(tmp_path, **given, voxel_size=200)
    assert not (tmp_path / "atlas").exists()


@pytest.mark.parametrize("letters", ["pir", "asr", "asl", "psl"])
@pytest.mark.parametrize("name", ["TIFF", "NRRD"])
def test_an_orientation_that_turns_a_file_of_the_ccf_is_remarked_on(letters, name, tmp_path):
    """AllenSDK names the sides at which axes end: pir there is asl here."""
    path = tmp_path / "v.tif"
    if name == "TIFF":
        tifffile.imwrite(path, labels())
    else:
        path = as_nrrd(tmp_path / "v.nrrd", labels(), 200 * IDENTITY)
    with open_annotation(path, tmp_path, orientation=letters, voxel_size=200) as found:
        named = [text for text in found.contradictions if "whose files begin at asl" in text]
        assert len(named) == (letters in ("pir", "psl"))
        assert all(f"read as {letters}, as given" in text for text in named)


# Volumes of one atlas


def other_atlas(folder, annotation, template=(), **options):
    return build_atlas(
        folder / "atlas",
        annotation=annotation,
        template=template,
        ontology=ONTOLOGY,
        name="tiny",
        version="1",
        **options,
    )


VOLUMES = np.where(CUBE == 10, np.uint16(900), np.uint16(100))


@pytest.mark.parametrize(
    ("directions", "origin", "code", "named"),
    [
        (0.2 * TRUE @ np.diag([1, 1, -1]), (0, 0, 0), "orientation-mismatch", "asr"),
        (0.2 * TRUE @ np.diag([-1, 1, 1]), (0, 0, 0), "orientation-mismatch", "psl"),
        (0.2 * IDENTITY, (0, 0, 0), "orientation-mismatch", "rai"),
        (0.2 * TRUE, (0.5, 0, 0), "origin-mismatch", "500"),
        (0.2 * TRUE, (0.2, 0, 0), "origin-mismatch", "200"),
        (0.2 * TRUE, (0, 0.1, 0), "origin-mismatch", "100"),
        (0.25 * TRUE, (0, 0, 0), "extent-mismatch", "10000"),
    ],
)
def test_volumes_that_disagree_are_refused_where_they_are_not_the_ccf(directions, origin, code, named, tmp_path):
    annotation = as_nifti(tmp_path / "a.nii", CUBE, 0.2 * TRUE)
    other = as_nifti(tmp_path / "t.nii", VOLUMES, directions, origin=origin)
    with raises(InputError, code) as caught:
        other_atlas(tmp_path, annotation, other)
    assert named in str(caught.value)
    assert str(annotation) in str(caught.value)
    assert str(other) in str(caught.value)
    assert not (tmp_path / "atlas").exists()


def test_volumes_whose_axes_lie_differently_in_their_files_make_one_atlas(tmp_path):
    values = labels()[:50]
    annotation = as_nifti(tmp_path / "a.nii", values, 0.2 * TRUE, origin=(1, 2, 3))
    stored = np.where(values == 10, np.uint16(900), np.uint16(100)).transpose(2, 0, 1)[:, ::-1, ::-1]
    # Right, anterior and superior grow with the axes: the first voxel is the last but along r.
    n, m, _ = values.shape
    other = as_nifti(tmp_path / "t.nii", stored, LPS_TO_RAS * 0.2, origin=(1, 2 + 0.2 * (n - 1), 3 - 0.2 * (m - 1)))
    report = other_atlas(tmp_path, annotation, other)
    one, two = (zarr.open_array(f"{image.target}/0", mode="r")[:] for image in report.images[:2])
    np.testing.assert_array_equal(one == 10, two == 900)
    for image in report.images[:3]:
        assert from_ngff_zarr(image.target).images[0].translation == {"z": 2.0, "y": -3.0, "x": -1.0}


# Origins


def test_an_atlas_other_than_the_ccf_keeps_the_origin_of_its_headers_at_every_level(tmp_path):
    fine = np.repeat(np.repeat(np.repeat(CUBE[:40, :20, :36], 2, 0), 2, 1), 2, 2)
    annotation = as_nrrd(tmp_path / "a.nrrd", fine, 0.02 * TRUE, "mm", origin=(4, -3, 2))
    template = as_nifti(
        tmp_path / "t.nii.gz", fine[::2, ::2, ::2].astype("u2"), 0.04 * TRUE, origin=(3.99, -2.99, 1.99)
    )
    report = other_atlas(tmp_path, annotation, template, chunk=16)
    levels = from_ngff_zarr(report.images[0].target).images
    assert [level.translation for level in levels[:3]] == [
        {"z": -3.0, "y": -2.0, "x": -4.0},
        {"z": -2.99, "y": -1.99, "x": -3.99},
        {"z": -2.97, "y": -1.97, "x": -3.97},
    ]
    template_levels = from_ngff_zarr(report.images[1].target).images
    assert template_levels[0].translation == {"z": -2.99, "y": -1.99, "x": -3.99}
    hemispheres = from_ngff_zarr(report.images[2].target).images
    assert [level.translation for level in hemispheres] == [level.translation for level in levels]
    assert verify(tmp_path / "atlas", deep=True).ok


def test_a_volume_without_an_origin_shares_that_of_the_others(tmp_path):
    template = as_nifti(tmp_path / "t.nii", VOLUMES, 0.2 * TRUE, origin=(1, 2, 3))
    tifffile.imwrite(tmp_path / "a.tif", CUBE)
    report = other_atlas(tmp_path, tmp_path / "a.tif", template, orientation="asl", voxel_size=200)
    for image in report.images[:3]:
        assert from_ngff_zarr(image.target).images[0].translation == {"z": 2.0, "y": -3.0, "x": -1.0}


def test_without_any_origin_the_centre_of_the_first_voxel_is_0(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", CUBE)
    report = other_atlas(tmp_path, tmp_path / "a.tif", (), orientation="asl", voxel_size=25)
    levels = from_ngff_zarr(report.images[0].target).images
    assert [level.translation["z"] for level in levels] == [0.0, 0.0125, 0.0375]


def test_an_axis_that_is_flipped_begins_at_the_other_end(tmp_path):
    path = as_nifti(tmp_path / "a.nii", CUBE, 0.2 * TRUE @ np.diag([-1, 1, 1]), origin=(1, 2, 3))
    with open_annotation(path, tmp_path) as found:
        np.testing.assert_array_equal(found.array, CUBE[::-1])
        assert found.position == (2000 - 200 * (len(CUBE) - 1), -3000, -1000)
