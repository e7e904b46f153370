"""The real CCF at 50 um as SimpleITK, nibabel and tifffile write it: the same volumes and sides, or refused.

Figures: README of the data. The headers of SimpleITK are made by hand, as it writes them after reading the NRRD of the
Allen Institute: of NRRD the same header, of NIfTI a diagonal affine with um that are called mm.
"""

from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
import tifffile

from atlaszarr import Terminology, region_volumes
from atlaszarr.errors import InputError
from atlaszarr.reference_volumes import open_annotation
from codes import raises

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs the real data in ../shared/data")
RSP_MM3 = 10.4808
#: Of the axes p, i, r in right-anterior-superior, in mm.
TRUE = np.array([[0, 0, 0.05, 0], [-0.05, 0, 0, 0], [0, -0.05, 0, 0], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def labels():
    return nrrd.read(str(DATA / "ccf/annotation_50_ccf2017.nrrd"))[0]


@pytest.fixture(scope="module")
def terminology():
    return Terminology.read(DATA / "ontology/structure_graph_1.json")


def as_nifti(path, values, affine, unit="mm"):
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_qform(affine, 1)
    image.header.set_sform(affine, 1)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)


def as_nrrd(path, values, size):
    directions = {"space": "left-posterior-superior", "space directions": np.eye(3) * size, "space origin": np.zeros(3)}
    nrrd.write(str(path), values, directions | {"kinds": ["domain"] * 3, "encoding": "gzip"}, compression_level=1)


READ = {
    "SimpleITK.nii.gz": lambda p, v: as_nifti(p, v, np.diag([-50.0, -50, 50, 1])),
    "SimpleITK-spaced.nii": lambda p, v: as_nifti(p, v, np.diag([-0.05, -0.05, 0.05, 1])),
    "SimpleITK.nrrd": lambda p, v: as_nrrd(p, v, 50),
    "SimpleITK-spaced.nrrd": lambda p, v: as_nrrd(p, v, 0.05),
    "nibabel.nii.gz": lambda p, v: as_nifti(p, v, TRUE),
    "nibabel-unitless.nii": lambda p, v: as_nifti(p, v, TRUE, "unknown"),
    "tifffile.tif": lambda p, v: tifffile.imwrite(p, v, compression="zlib"),
}
REFUSED = {
    "nibabel.nii": lambda p, v: as_nifti(p, v, np.diag([0.05, 0.05, 0.05, 1])),
    "nibabel-um.nii": lambda p, v: as_nifti(p, v, np.diag([50.0, 50, 50, 1]), "unknown"),
    "transposed.nii": lambda p, v: as_nifti(p, v.transpose(2, 1, 0), np.diag([-0.05, -0.05, 0.05, 1])),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_the_ccf_that_another_program_wrote_has_the_known_volumes_on_both_sides(name, labels, terminology, tmp_path):
    READ[name](tmp_path / name, labels)
    options = {"voxel_size": 50} if "tif" in name else {}
    with open_annotation(tmp_path / name, tmp_path, **options) as found:
        assert found.is_ccf
        np.testing.assert_array_equal(found.array, labels)
        table = region_volumes(found.array, terminology, by_hemisphere=True, voxel_size=found.voxel_size)
    assert table.loc[terminology["RSP"].id, "volume_mm3"] == pytest.approx(RSP_MM3, abs=5e-5)
    cortex = table.loc[terminology["CBX"].id]
    assert cortex["volume_left_mm3"] / cortex["volume_mm3"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", REFUSED)
def test_the_ccf_under_a_header_that_contradicts_its_extent_is_refused(name, labels, tmp_path):
    REFUSED[name](tmp_path / name, labels)
    with raises(InputError, "contradictory-header") as caught, open_annotation(tmp_path / name, tmp_path):
        pass
    assert "50" in str(caught.value) or "0.05" in str(caught.value)
