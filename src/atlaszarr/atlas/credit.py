"""Whom the reference volumes are of, and on what terms: in the metadata of every volume of an atlas."""

from ..credit import CREDIT as _ALLEN

CREDIT = {
    "citation": "Wang, Q. et al. (2020) The Allen Mouse Brain Common Coordinate Framework: a 3D reference atlas. "
    "Cell 181, 936-953, doi:10.1016/j.cell.2020.04.007; Allen Institute for Brain Science",
    "terms": _ALLEN["terms"],
}
