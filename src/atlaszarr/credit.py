"""Citation and terms of use of the data, for the metadata of every output."""

_TERMS = "https://alleninstitute.org/terms-of-use/"

#: Of section datasets.
SECTIONS = {
    "citation": "Lein, E.S. et al. (2007) Genome-wide atlas of gene expression in the adult mouse brain. "
    "Nature 445, 168-176, doi:10.1038/nature05453; Allen Mouse Brain Atlas, Allen Institute for Brain Science",
    "terms": _TERMS,
}

#: Of the volumes of an atlas.
REFERENCE_VOLUMES = {
    "citation": "Wang, Q. et al. (2020) The Allen Mouse Brain Common Coordinate Framework: a 3D reference atlas. "
    "Cell 181, 936-953, doi:10.1016/j.cell.2020.04.007; Allen Institute for Brain Science",
    "terms": _TERMS,
}
