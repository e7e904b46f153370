"""Citation and terms of use of the data, for the metadata of every output. Nothing is credited that is not known."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from .errors import InputError

_TERMS = "https://alleninstitute.org/terms-of-use/"

#: Of section datasets.
SECTIONS = {
    "citation": "Lein, E.S. et al. (2007) Genome-wide atlas of gene expression in the adult mouse brain. "
    "Nature 445, 168-176, doi:10.1038/nature05453; Allen Mouse Brain Atlas, Allen Institute for Brain Science",
    "terms": _TERMS,
}

#: Domains of the Allen Institute: of its API (api.brain-map.org) and its downloads (download.alleninstitute.org).
DOMAINS = ("alleninstitute.org", "brain-map.org")
#: Buckets of the Allen Institute on S3: of the Mouse Brain Atlas and the Brain Cell Atlas (registry.opendata.aws), and
#: of its atlases (atlas-assets.readthedocs.io).
BUCKETS = ("allen-mouse-brain-atlas", "allen-brain-cell-atlas", "allen-atlas-assets")


@dataclass(frozen=True)
class Credit:
    """Whose data an atlas is made of.

    Attributes
    ----------
    citation, terms, species : str or None
        None if it is not known.
    symmetric : bool
        Whether the left half mirrors the right one; False if it is not known.
    short : str or None
        The citation as BrainGlobe prints it.
    link : str
        A page about the atlas; empty if it is not known.
    institution, funder, project : str or None
        The names of the institution and the funder in aind-data-schema, and of the project; None if not known.
    investigators : tuple of str
        Empty if they are not known.
    """

    citation: str | None = None
    terms: str | None = None
    species: str | None = None
    symmetric: bool = False
    short: str | None = None
    link: str = ""
    institution: str | None = None
    funder: str | None = None
    project: str | None = None
    investigators: tuple[str, ...] = ()

    def texts(self) -> dict[str, str]:
        """Citation and terms, if they are known, for the metadata of an image."""
        return {name: text for name in ("citation", "terms") if (text := getattr(self, name)) is not None}

    def to_dict(self) -> dict[str, str | bool]:
        """What is known, for the record of an atlas."""
        species = {} if self.species is None else {"species": self.species}
        return {**self.texts(), **species, "symmetric": self.symmetric}


#: Of the CCFv3 of the adult mouse. Institution, funder and project as the Allen Institute has them for its own assets
#: of it; the investigators are the first and the last author of the paper.
CCF = Credit(
    "Wang, Q. et al. (2020) The Allen Mouse Brain Common Coordinate Framework: a 3D reference atlas. "
    "Cell 181, 936-953, doi:10.1016/j.cell.2020.04.007; Allen Institute for Brain Science",
    _TERMS,
    "Mus musculus",
    symmetric=True,
    short="Wang et al 2020, https://doi.org/10.1016/j.cell.2020.04.007",
    link="https://atlas.brain-map.org",
    institution="Allen Institute for Brain Science",
    funder="Allen Institute",
    project="Allen Mouse Brain Common Coordinate Framework",
    investigators=("Quanxin Wang", "Lydia Ng"),
)
#: Of section datasets of the mouse: institution, funder and investigators as for the CCF.
SECTION_DATASET = Credit(
    SECTIONS["citation"],
    SECTIONS["terms"],
    "Mus musculus",
    institution="Allen Institute for Brain Science",
    funder="Allen Institute",
    project="Allen Mouse Brain Atlas",
    investigators=("Ed Lein", "Allan Jones"),
)
#: Of any other atlas that the Allen Institute serves.
INSTITUTE = Credit("Allen Institute for Brain Science", _TERMS, institution="Allen Institute for Brain Science")


def credit_of(
    is_ccf: bool,
    in_frame: bool,
    sources: Iterable[str | os.PathLike[str]],
    citation: str | None,
    terms: str | None,
    species: str | None,
    asymmetric: bool | None,
) -> Credit:
    """The credit of an atlas: what is given, else what is known.

    Parameters
    ----------
    is_ccf : bool
        Whether the annotation is recognised as the CCF.
    in_frame : bool
        Whether it has the extent and the axes of the CCF.
    sources : iterable of str or path-like
        All sources of the atlas.
    citation, terms, species : str, optional
    asymmetric : bool, optional

    Raises
    ------
    InputError
        If a text is empty.
    """
    given = {"citation": citation, "terms": terms, "species": species}
    for name, text in given.items():
        if text is not None and not (isinstance(text, str) and text.strip()):
            raise InputError(f"{name} {text!r} must be a text; leave --{name} out", code="invalid-value")
    known = Credit()
    if is_ccf:
        known = CCF
    elif is_institutes(os.fspath(source) for source in sources):
        known = CCF if in_frame else INSTITUTE
    if citation is not None:
        known = replace(known, short=None)
    if asymmetric is not None:
        known = replace(known, symmetric=not asymmetric)
    texts: Any = {name: text.strip() for name, text in given.items() if text is not None}
    return replace(known, **texts)


def is_institutes(urls: Iterable[str]) -> bool:
    """Whether all URLs, of which there must be one, lead to a host or a bucket of the Allen Institute."""
    found = list(urls)
    return bool(found) and all(map(_is_institutes, found))


def _is_institutes(url: str) -> bool:
    parts = urlsplit(url.rpartition("::")[2])
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme.lower() in ("s3", "s3a"):
        return host in BUCKETS
    if parts.scheme.lower() not in ("http", "https", "ftp"):
        return False
    if any(host == domain or host.endswith(f".{domain}") for domain in DOMAINS):
        return True
    # bucket.s3.region.amazonaws.com/key, or s3.region.amazonaws.com/bucket/key
    if (match := re.fullmatch(r"(?:(.+)\.)?s3(?:[.-][a-z0-9-]+)?\.amazonaws\.com", host)) is None:
        return False
    return (match[1] or parts.path.lstrip("/").partition("/")[0]) in BUCKETS
