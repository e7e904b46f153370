"""One session with the Allen Brain Atlas API: records, section images, the structure graph."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import ImageError, InputError, NotFoundError, ServiceError
from . import rma
from .cache import ImageCache, default_location
from .http import Http
from .images import ImageRequest, MissingImage, Pixels, SectionImage, check_options
from .records import SectionDataset, image_box
from .search import search, similar_gene

if TYPE_CHECKING:
    from pandas import DataFrame

    from ..terminology.terminology import Terminology

API_URL = "https://api.brain-map.org/api/v2"
#: Bytes; a page of 2000 section images is about 2 MB.
_LARGEST_JSON = 2**25
_DATASET_INCLUDE = ("alignment3d", "genes", "products", "plane_of_section", "specimen(donor(age))")


class AllenClient:
    """A client of the Allen API. Safe to use from many threads; a pickled copy opens its own connections.

    Parameters
    ----------
    api_url : str, optional
        Ending in ``/api/v2``; default ``$ATLASZARR_API_URL``, else the Allen Institute's.
    cache : str or path-like, optional
        A folder or fsspec URL for section images, or "none"; default ``$ATLASZARR_CACHE``, else the user's
        cache folder. Metadata is never cached. A cache that cannot be used is a warning, and is not tried again.
    concurrency : int
        The most requests under way; over a whole cluster if a `distributed` client is active.
    rate : float
        The most requests per second, over a whole cluster too.
    timeout : tuple of float
        Seconds to connect, and seconds without a byte.
    retries : int
        How often a failed request is tried again; see `atlaszarr.allen.http.Http` for the waits.
    backoff : float
        Scale of the waits between tries, in seconds.
    cache_options : mapping, optional
        Storage options of a `cache` that is a URL, for instance ``endpoint_url``.

    Raises
    ------
    InputError
        If `api_url` is not an HTTP URL, or `cache` is neither a folder nor a URL that can be opened.
    """

    def __init__(
        self,
        api_url: str | None = None,
        cache: str | os.PathLike[str] | None = None,
        *,
        concurrency: int = 6,
        rate: float = 20.0,
        timeout: tuple[float, float] = (10.0, 60.0),
        retries: int = 5,
        backoff: float = 0.5,
        cache_options: Mapping[str, Any] | None = None,
    ) -> None:
        url = api_url or os.environ.get("ATLASZARR_API_URL") or API_URL
        if "@" in url or "?" in url:
            # Every message and every report would show them.
            raise InputError("api_url must hold no user name, password or parameters; give the plain address")
        if not url.startswith(("http://", "https://")):
            raise InputError(f"api_url {url!r} is not an http or https URL; the default is {API_URL}")
        if concurrency < 1 or not rate > 0:
            raise InputError(f"concurrency {concurrency} and rate {rate} must be positive")
        self.api_url = url.rstrip("/")
        self.concurrency = concurrency
        location = default_location() if cache is None else os.fspath(cache)
        self.cache = None if location in (None, "", "none") else ImageCache(location, cache_options)
        self._http = Http(concurrency, rate, timeout, retries, backoff)

    def __enter__(self) -> AllenClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __repr__(self) -> str:
        return f"AllenClient({self.api_url!r})"

    def section_dataset(self, id: int) -> SectionDataset:
        """The record of a section dataset with all its sections.

        Raises
        ------
        NotFoundError
            If there is no such dataset.
        RecordError
            If the record contradicts itself.
        ServiceError
            If the API cannot be reached, refuses, or answers with other records.
        """
        found, _ = self._query("SectionDataSet", include=_DATASET_INCLUDE, where={"id": id})
        if not found:
            raise NotFoundError(f"there is no section dataset {id}; `atlaszarr search` lists what there is")
        images, _ = self._query("SectionImage", include=["alignment2d"], where={"data_set_id": id})
        return SectionDataset.from_json(found[0], images)

    def search(
        self,
        *,
        gene: str | None = None,
        plane: str | None = None,
        product: str | None = None,
        specimen: int | None = None,
        id: int | None = None,
        images: bool = False,
        limit: int | None = 50,
    ) -> DataFrame:
        """Section datasets that meet all criteria, or their section images.

        Parameters
        ----------
        gene : str, optional
            Acronym in any case, for instance ``Prox1`` or ``prox1``; ``*`` stands for any characters.
        plane : str, optional
            ``coronal``, ``sagittal`` or ``transverse``, which ``horizontal`` and ``axial`` mean too.
        product : str, optional
            Abbreviation, for instance ``Mouse``.
        specimen, id : int, optional
            Ids of a specimen, of a section dataset.
        images : bool
            Return section images instead of datasets.
        limit : int, optional
            Most datasets; None for all.

        Returns
        -------
        DataFrame
            Indexed by id. Of datasets: gene, plane, product, reference_space, thickness_um, specimen, failed,
            age and sex (of the donor), sections (the number of section images), gene_name; of images: dataset,
            section_number, width, height, resolution_um, tiers, expression, failed. Whole numbers are Int64,
            missing ones `pandas.NA`; `sections` is missing where there are more than 200 datasets or 4000 images.
            ``attrs["datasets"]`` is the number of datasets that meet the criteria, whatever the limit.

        Raises
        ------
        InputError
            If a criterion cannot be expressed.
        RecordError
            If a record holds a value of the wrong type.
        ServiceError
            If the API cannot be reached, refuses, or answers with other records.
        """
        return search(self._query, gene, plane, product, specimen, id, images, limit)

    def similar_gene(self, gene: str) -> str | None:
        """The acronym most similar to one that `search` does not find; None if it exists, or nothing is similar.

        Raises
        ------
        InputError
            If the acronym cannot be expressed.
        """
        return similar_gene(self._query, gene)

    def structure_graph(self, id: int = 1) -> Terminology:
        """The structures of an ontology; 1 is the adult mouse brain."""
        from ..terminology.terminology import Terminology

        url = f"{self.api_url}/structure_graph_download/{rma.identifier(id)}.json"
        return Terminology.from_structure_graph(rma.envelope(self._get(url), url)["msg"])

    def image(
        self,
        id: int,
        downsample: int = 0,
        view: str | None = None,
        roi: tuple[int, int, int, int] | None = None,
        quality: int | None = None,
        range: tuple[int, ...] | None = None,
    ) -> Pixels:
        """One section image, whole or a region of it.

        Parameters
        ----------
        id : int
            SectionImage id.
        downsample : int
            Tier: every step halves.
        view : str, optional
            ``expression`` for the expression mask.
        roi : tuple of int, optional
            (left, top, width, height): the corner in full-resolution pixels, the size in pixels of the tier.
        quality : int, optional
            JPEG quality, 0 to 100.
        range : tuple of int, optional
            (r0, r1, g0, g1, b0, b1) of a fluorescence image, 0 to 4095.

        Returns
        -------
        ndarray, uint8, shape (height, width, 3)

        Raises
        ------
        InputError
            If the region or the tier does not lie within the image.
        NotFoundError
            If there is no such image.
        ImageError, ServiceError
            If it could not be fetched.
        """
        request = self.image_request(id, downsample, view, roi, quality, range)
        return request.decode(self.fetch(request).body)

    def image_request(
        self,
        id: int,
        downsample: int = 0,
        view: str | None = None,
        roi: tuple[int, int, int, int] | None = None,
        quality: int | None = None,
        range: tuple[int, ...] | None = None,
    ) -> ImageRequest:
        """The request of `image`, checked against the image's record; `fetch` takes it."""
        id, view = rma.identifier(id), view or "primary"
        check_options(view, quality, range)
        found, _ = self._query("SectionImage", where={"id": id})
        if not found:
            raise NotFoundError(f"there is no section image {id}; `atlaszarr search --images` lists those of a dataset")
        x, y, width, height = image_box(found[0], f"section image {id}")
        if downsample < 0 or not (width >> downsample and height >> downsample):
            raise InputError(
                f"downsample {downsample} leaves nothing of section image {id} ({width} x {height} pixels)"
            )
        width, height = width >> downsample, height >> downsample
        if roi is None:
            return ImageRequest(id, width, height, downsample, view, quality=quality, range=range)
        left, top, w, h = roi
        if min(left, top) < 0 or min(w, h) < 1 or (left >> downsample) + w > width or (top >> downsample) + h > height:
            raise InputError(
                f"region {','.join(map(str, roi))} does not lie within section image {id}, which is "
                f"{width} x {height} pixels at downsample {downsample} (left and top count full-resolution pixels)"
            )
        return ImageRequest(id, w, h, downsample, view, x + left, y + top, quality, range)

    def fetch(self, request: ImageRequest) -> SectionImage:
        """A section image as JPEG, from the cache or from the service, checked either way.

        An answer that fails its checks is fetched again, as after any transient failure.

        Raises
        ------
        ImageError, ServiceError
            If it could not be fetched.
        """
        url, key = request.url(self.api_url), request.key(self.api_url)
        if self.cache and (kept := self.cache.get(key)) is not None:
            with suppress(ImageError):
                return _checked(request, kept)
        image = self._http.get(url, request.largest_body, partial(_checked, request))
        if self.cache:
            self.cache.put(key, image.body)
        return image

    def try_fetch(self, request: ImageRequest) -> SectionImage | MissingImage:
        """The same as `fetch`, with a failure returned, not raised."""
        try:
            return self.fetch(request)
        except (ImageError, ServiceError) as error:
            return MissingImage(request, request.url(self.api_url), str(error))

    def has_cached(self, request: ImageRequest) -> bool:
        """Whether the cache has an entry for a section image; its content is not checked."""
        return self.cache is not None and request.key(self.api_url) in self.cache

    def _get(self, url: str) -> bytes:
        return self._http.get(url, _LARGEST_JSON, bytes)

    def _query(self, model: str, *args: Any, **options: Any) -> tuple[list[dict[str, Any]], int]:
        return rma.query(self._get, self.api_url, model, *args, **options)


def _checked(request: ImageRequest, body: bytes) -> SectionImage:
    """An answer that decodes, whose pixels are then kept for their next use."""
    image = SectionImage(request, body)
    image.pixels()
    return image
