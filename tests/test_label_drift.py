"""The real annotation, reduced: regions neither grow nor shrink with the level."""

from fractions import Fraction
from pathlib import Path

import nrrd
import numpy as np
import pytest

from atlaszarr.reduction import reduce

ANNOTATION = Path(__file__).parents[2] / "shared" / "data" / "ccf" / "annotation_25_ccf2017.nrrd"


@pytest.fixture(scope="module")
def annotation():
    if not ANNOTATION.exists():
        pytest.skip("the real data is not beside the project")
    return np.ascontiguousarray(nrrd.read(ANNOTATION)[0])


@pytest.mark.parametrize(("first", "tolerance"), [(Fraction(2), 0.002), (Fraction(5, 2), 0.005)])
def test_the_foreground_keeps_its_volume_at_every_level(annotation, first, tolerance):
    volume, size = np.count_nonzero(annotation), Fraction(1)
    level = annotation
    # To voxels of 200 and 250 um: one more level has 5000 voxels of brain, and ten of them are 0.2 %.
    for factor in (first, Fraction(2), Fraction(2)):
        level = reduce(level, (factor,) * 3, "mode")
        size *= factor
        assert np.count_nonzero(level) * float(size**3) == pytest.approx(volume, rel=tolerance)
        assert set(np.unique(level)) <= set(np.unique(annotation))
