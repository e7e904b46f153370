"""The phantom's reference volumes: their content, and that every write gives the same bytes."""

import numpy as np
import pytest

from atlaszarr.reference_volumes import open_annotation, open_template
from atlaszarr.testing import phantom_volumes
from atlaszarr.testing.phantom import default_phantom


@pytest.mark.parametrize("resolution", [100, 150])
def test_the_reference_volumes_record_their_orientation_and_equal_the_closed_form(tmp_path, resolution):
    phantom, body = default_phantom(), phantom_volumes.annotation_nrrd(default_phantom(), resolution)
    (tmp_path / "annotation.nrrd").write_bytes(body)
    (tmp_path / "template.nrrd").write_bytes(phantom_volumes.template_nrrd(phantom, resolution))
    with open_annotation(tmp_path / "annotation.nrrd", tmp_path) as annotation:
        np.testing.assert_array_equal(annotation.array[:], phantom.annotation(resolution))
        assert annotation.voxel_size == (resolution,) * 3
    with open_template(tmp_path / "template.nrrd", tmp_path) as template:
        found = np.asarray(template.array[:])
    at = np.random.default_rng(3).integers(0, found.shape, (2000, 3))
    expected = phantom.rgb((at + 0.5) * resolution).mean(axis=-1)
    assert found.dtype == np.uint16
    np.testing.assert_allclose(found[tuple(at.T)], expected, rtol=0, atol=0.5 + 1e-9)


def test_the_reference_volumes_are_the_same_bytes_in_every_write():
    header = phantom_volumes.annotation_nrrd(default_phantom(), 200).partition(b"\n\n")[0]
    assert b"#" not in header  # pynrrd's comment holds the time
