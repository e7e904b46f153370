"""The downsampled real annotation: regions neither grow nor shrink with the level."""

from fractions import Fraction
from pathlib import Path

import nrrd
import numpy as np
import pytest

from atlaszarr.engine.downsampling import reduce

ANNOTATION = Path(__file__).parents[4] / "shared" / "data" / "ccf" / "annotation_25_ccf2017.nrrd"


@pytest.fixture(scope="module")
def annotation():
    if not ANNOTATION.exists():
        pytest.skip("the real annotation is not available")
    return np.ascontiguousarray(nrrd.read(ANNOTATION)[0])


@pytest.mark.parametrize(("first", "tolerance"), [(Fraction(2), 0.002), (Fraction(5, 2), 0.005)])
@pytest.mark.slow
def test_the_foreground_keeps_its_volume_at_every_level(annotation, first, tolerance):
    volume, size = np.count_nonzero(annotation), Fraction(1)
    level = annotation
    # To voxels of 200 and 250 um: one more level has 5000 voxels of brain, and ten of them are 0.2 %.
    for factor in (first, Fraction(2), Fraction(2)):
        level = reduce(level, (factor,) * 3, "mode")
        size *= factor
        assert np.count_nonzero(level) * float(size**3) == pytest.approx(volume, rel=tolerance)
        assert set(np.unique(level)) <= set(np.unique(annotation))


@pytest.mark.slow
def test_ties_are_broken_symmetrically_and_leave_no_checkerboard(annotation):
    level, volume = annotation, np.count_nonzero(annotation)
    for k, expected in enumerate((0.00045, 0.00146, 0.00178), 1):
        parent, level = level, reduce(level, (Fraction(2),) * 3, "mode")
        foreground = level != 0
        assert np.count_nonzero(foreground) * 8**k / volume - 1 == pytest.approx(expected, abs=5e-6)
        mirrored = reduce(parent[..., ::-1], (Fraction(2),) * 3, "mode")
        np.testing.assert_array_equal(mirrored, level[..., ::-1])
        assert isolated_within_planes(foreground) <= 2


def isolated_within_planes(foreground):
    """Voxels without any of their four neighbours within the plane, for the worst of the three ways to cut planes."""
    counts = []
    for axis in range(3):
        padded = np.pad(np.moveaxis(foreground, axis, 0), ((0, 0), (1, 1), (1, 1)))
        neighbours = padded[:, :-2, 1:-1] | padded[:, 2:, 1:-1] | padded[:, 1:-1, :-2] | padded[:, 1:-1, 2:]
        counts.append(np.count_nonzero(padded[:, 1:-1, 1:-1] & ~neighbours))
    return max(counts)
