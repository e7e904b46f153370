"""Whom the data is of, and on what terms: in the metadata of every output."""

CREDIT = {
    "citation": "Lein, E.S. et al. (2007) Genome-wide atlas of gene expression in the adult mouse brain. "
    "Nature 445, 168-176, doi:10.1038/nature05453; Allen Mouse Brain Atlas, Allen Institute for Brain Science",
    "terms": "https://alleninstitute.org/terms-of-use/",
}
