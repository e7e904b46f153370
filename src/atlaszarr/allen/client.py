"""A client of the Allen Brain Atlas API: records, from the API or from a catalogue, section images, structures."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..catalogue.catalogue import Catalogue
from ..errors import ImageError, InputError, NotFoundError, RecordError, ServiceError
from ..stores.locations import shown
from ..stores.target import Target
from . import rma
from .cache import ImageCache, default_location
from .http import Http
from .image_source import ImageFetch, Images, ImageSource, single
from .images import LARGEST_IMAGE, ImageRequest, MissingImage, Pixels, SectionImage, tier_size, validate_options
from .records import MOST_SECTIONS, Record, SectionDataset, image_box, number_of
from .search import search, similar_gene
from .slide_images import ImageOutline, SlideCrop, refuse_options, slide_crop

if TYPE_CHECKING:
    from pandas import DataFrame

    from ..catalogue.snapshot import CatalogueReport
    from ..terminology.terminology import Terminology

API_URL = "https://api.brain-map.org/api/v2"
_API_PATH = "/api/v2"
_NOT_FOUND = 404
#: Bytes: three grids of 67 x 41 x 58 float32 have 2 MB before they are compressed.
_LARGEST_GRIDS = 2**25
_Parsed = TypeVar("_Parsed")
#: Bytes; a page of 2000 section datasets is about 6 MB. Decoded, the worst JSON of this size takes half a GB.
_LARGEST_JSON = 2**24
_DATASET_INCLUDE = ("alignment3d", "genes", "products", "plane_of_section", "specimen(donor(age))")


class AllenClient:
    """A client of the Allen API. Safe to use from many threads; a pickled copy opens its own connections.

    Parameters
    ----------
    api_url : str, optional
        The base URL, ending in ``/api/v2``; default ``$ATLASZARR_API_URL``, else the Allen Institute's API.
    cache : str or path-like, optional
        A folder or fsspec URL for section images, or "none"; default ``$ATLASZARR_CACHE``, else the user's
        cache folder. Metadata is never cached. A cache that fails emits a warning and is disabled.
    concurrency : int
        Maximum number of concurrent requests; for the whole cluster if a `distributed` client is active.
    rate : float
        Maximum number of requests per second; for the whole cluster too.
    timeout : tuple of float
        Seconds to connect, and seconds to wait for the next byte.
    retries : int
        Maximum number of retries of a failed request; see `atlaszarr.allen.http.Http` for the waits.
    backoff : float
        Scale of the waits between tries, in seconds.
    cache_options : mapping, optional
        Storage options for a `cache` that is a URL, for instance ``endpoint_url``.
    image_source : str or path-like
        Where the pixels of section images come from: ``api``, or a folder or URL with the slides and records of the
        Allen Institute's open-data bucket, ``s3://allen-mouse-brain-atlas``. All other records, among them the
        alignments, still come from the API, or from a catalogue.
    image_source_options : mapping, optional
        Storage options for an `image_source` that is a URL. The bucket of the Allen Institute is read anonymously, in
        region us-west-2, by default. They are never printed or written.
    catalogue : str or path-like, optional
        A folder or fsspec URL with a catalogue of `write_catalogue`: all records come from it, and no request for
        metadata is made.
    catalogue_options : mapping, optional
        Storage options for a `catalogue` that is a URL.

    Raises
    ------
    InputError
        If `api_url` is not an HTTP URL or holds credentials, if `cache` or `image_source` is neither a folder nor a
        valid URL, if `image_source_options` are given for the API, if `catalogue` is not a finished catalogue, or if
        `concurrency` or `rate` is not positive.
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
        image_source: str | os.PathLike[str] = "api",
        image_source_options: Mapping[str, Any] | None = None,
        catalogue: str | os.PathLike[str] | None = None,
        catalogue_options: Mapping[str, Any] | None = None,
    ) -> None:
        url = api_url or os.environ.get("ATLASZARR_API_URL") or API_URL
        if "@" in url or shown(url) != url:
            # Messages and reports show the URL.
            raise InputError(
                "api_url must not hold a user name, password or parameters; give the plain URL",
                code="credentials-in-url",
            )
        if not url.startswith(("http://", "https://")):
            raise InputError(
                f"api_url {url!r} is not an http or https URL; the default is {API_URL}", code="not-an-http-url"
            )
        if concurrency < 1 or not rate > 0:
            raise InputError(f"concurrency {concurrency} and rate {rate} must be positive", code="out-of-range")
        self.api_url = url.rstrip("/")
        self.concurrency = concurrency
        location = default_location() if cache is None else os.fspath(cache)
        self.cache = None if location in (None, "", "none") else ImageCache(location, cache_options)
        if image_source == "api" and image_source_options:
            raise InputError(
                f"image source option {next(iter(image_source_options))!r} is not supported for the API; give "
                "image_source (--image-source) a URL",
                code="not-supported",
            )
        #: The slides that section images come from; None for the API.
        self.image_source = None if image_source == "api" else ImageSource(image_source, image_source_options)
        self.catalogue = None if catalogue is None else Catalogue(catalogue, catalogue_options)
        self._http = Http(concurrency, rate, timeout, retries, backoff)

    def __enter__(self) -> AllenClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __repr__(self) -> str:
        source = "" if self.image_source is None else f", image_source={self.image_source.url!r}"
        return f"AllenClient({self.api_url!r}{source})"

    @property
    def images_url(self) -> str:
        """The URL that section images come from: that of the image source, or of the API."""
        return self.api_url if self.image_source is None else self.image_source.url

    def section_dataset(self, id: int) -> SectionDataset:
        """Fetch a section dataset with all its sections.

        Raises
        ------
        InputError
            If `id` is not a whole number.
        NotFoundError
            If the dataset does not exist.
        RecordError
            If its record is invalid.
        ServiceError
            If the API cannot be reached, refuses the query, or answers with other records.
        """
        return self.imaged(self._recorded(id))

    def _recorded(self, id: int) -> SectionDataset:
        """A section dataset from the records of the API or the catalogue alone."""
        records, _ = self._query("SectionDataSet", include=_DATASET_INCLUDE, where={"id": id})
        if not records:
            raise NotFoundError(
                f"section dataset {id} {self._is_missing}; `atlaszarr search` lists the datasets",
                code="dataset-not-found",
            )
        images, _ = self._query("SectionImage", include=["alignment2d"], where={"data_set_id": id}, most=MOST_SECTIONS)
        return SectionDataset.from_json(records[0], images)

    def imaged(self, dataset: SectionDataset | int) -> SectionDataset:
        """A dataset, or that of an id, whose images come from the image source of this client.

        Raises
        ------
        NotFoundError
            If the dataset does not exist, or the image source lacks it.
        RecordError
            If its record there is not valid.
        ServiceError
            If the image source cannot be read.
        InputError, RecordError, ServiceError
            As in `section_dataset`, for an id.
        """
        if not isinstance(dataset, SectionDataset):
            return self.section_dataset(dataset)
        if self.image_source is not None:
            has_places = all(section.slide is not None for section in dataset.sections)
            return dataset if has_places else self.image_source.imaged(dataset)
        return _without_slides(dataset)

    def catalogue_of(self, dataset: SectionDataset) -> Catalogue | None:
        """The catalogue of this client, if it has the records of a dataset as they are in the dataset; else None."""
        if self.catalogue is None:
            return None
        try:
            same = self._recorded(dataset.id) == _without_slides(dataset)
        except (NotFoundError, RecordError):
            same = False
        return self.catalogue if same else None

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
        """Search for section datasets that meet all criteria, or for their section images.

        Parameters
        ----------
        gene : str, optional
            Acronym, case-insensitive, for instance ``Prox1``; ``*`` matches any characters.
        plane : str, optional
            ``coronal``, ``sagittal`` or ``transverse`` (aliases ``horizontal`` and ``axial``).
        product : str, optional
            Abbreviation, for instance ``Mouse``.
        specimen, id : int, optional
            Id of a specimen, id of a section dataset.
        images : bool
            Return section images instead of datasets.
        limit : int, optional
            Maximum number of datasets; None for all.

        Returns
        -------
        DataFrame
            Indexed by id. Columns for datasets: gene, plane, product, reference_space, thickness_um, specimen, failed,
            age and sex (of the donor), sections (the number of section images), gene_name; for images: dataset,
            section_number, width, height, resolution_um, tiers, expression, failed. Whole numbers are Int64,
            missing ones `pandas.NA`; `sections` is missing for more than 200 datasets or 4000 images.
            ``attrs["datasets"]`` is the number of datasets that meet the criteria, regardless of the limit.

        Raises
        ------
        InputError
            If a criterion is invalid.
        RecordError
            If a record holds a value of the wrong type.
        ServiceError
            If the API cannot be reached, refuses the query, or answers with other records.
        """
        return search(self._query, gene, plane, product, specimen, id, images, limit)

    def similar_gene(self, gene: str) -> str | None:
        """The acronym most similar to a gene that `search` does not find; None if the gene exists or none is similar.

        Raises
        ------
        InputError
            If the acronym holds a character that a query cannot express.
        """
        return similar_gene(self._query, gene)

    def write_catalogue(
        self,
        location: str | os.PathLike[str],
        *,
        product: str | None = None,
        ids: Sequence[int] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> CatalogueReport:
        """Write a catalogue: a snapshot of the records of section datasets and their images, as two tables.

        ``datasets.parquet`` has a row for each section dataset, with its 3-D alignment, ``images.parquet`` one for each
        of their section images, with its 2-D alignment; ``catalogue.json`` is written last. The same call resumes one
        that was interrupted, at the page of records where it stopped. A client with the `catalogue` makes no request
        for metadata.

        Parameters
        ----------
        location : str or path-like
            An empty folder, or any URL that fsspec opens.
        product : str, optional
            Abbreviation of the product of the section datasets, for instance ``Mouse``; default all products.
        ids : sequence of int, optional
            Ids of the section datasets; default all.
        storage_options : mapping, optional
            Options for fsspec. They are never printed or written.
        progress : callable, optional
            Called with the number of items done, their total, and their name: ``datasets``, ``images of datasets``.

        Returns
        -------
        CatalogueReport

        Raises
        ------
        InputError
            If an argument is invalid, or the location holds something else.
        NotFoundError
            If a section dataset of `ids` does not exist, or the service has no section datasets.
        RecordError
            If the number of records changes each time that they are fetched.
        ServiceError
            If the API cannot be reached, refuses a query, or answers with other records.
        TargetError
            If the location cannot be written.
        """
        from ..catalogue.snapshot import write_catalogue

        if self.catalogue is not None:
            raise InputError(
                f"a client with the catalogue {self.catalogue.url} makes no request for metadata; use one without",
                code="conflicting-options",
            )
        return write_catalogue(
            self._query,
            Target.of(location, storage_options),
            {"api_url": self.api_url},
            product=product,
            ids=None if ids is None else [rma.identifier(id) for id in ids],
            progress=progress,
        )

    def structure_graph(self, id: int = 1) -> Terminology:
        """Fetch the structures of an ontology; 1 is the adult mouse brain."""
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
        """Fetch a section image or a region of it.

        Parameters
        ----------
        id : int
            SectionImage id.
        downsample : int
            Tier: each step halves the size.
        view : str, optional
            ``expression`` for the expression mask; an image source has none.
        roi : tuple of int, optional
            (left, top, width, height): the corner in full-resolution pixels, the size in pixels of the tier.
        quality : int, optional
            JPEG quality, 0 to 100; not of an image source.
        range : tuple of int, optional
            (r0, r1, g0, g1, b0, b1) of a fluorescence image, 0 to 4095; not of an image source.

        Returns
        -------
        ndarray, uint8, shape (height, width, 3)

        Raises
        ------
        InputError
            If the region or the tier lies outside the image, or an option is invalid.
        NotFoundError
            If the image does not exist.
        ImageError, ServiceError
            If fetching fails.
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
        """The request that `image` passes to `fetch`, validated against the image's record."""
        id, view = rma.identifier(id), view or "primary"
        validate_options(view, quality, range)
        records, _ = self._query("SectionImage", where={"id": id})
        if not records:
            raise NotFoundError(
                f"section image {id} {self._is_missing}; `atlaszarr search --images` lists the images of a dataset",
                code="image-not-found",
            )
        x, y, width, height = image_box(records[0], f"section image {id}")
        if self.image_source is not None:
            refuse_options(view, quality, range)
            return self._slide_request(records[0], id, (x, y, width, height), downsample, roi)
        width, height = tier_size(id, width, height, downsample)
        if roi is None:
            _validate_size(id, width, height, downsample)
            return ImageRequest(id, width, height, downsample, view, quality=quality, range=range)
        left, top, w, h = roi
        if min(left, top) < 0 or min(w, h) < 1 or (left >> downsample) + w > width or (top >> downsample) + h > height:
            raise _outside(id, roi, (width, height), downsample)
        _validate_size(id, w, h, downsample)
        return ImageRequest(id, w, h, downsample, view, x + left, y + top, quality, range)

    def _slide_request(
        self, record: Record, id: int, box: tuple[int, ...], downsample: int, roi: tuple[int, ...] | None
    ) -> SlideCrop:
        """The request for an image on a slide, at exactly the given tier; `roi` as in `image`."""
        assert self.image_source is not None
        label = f"section image {id}"
        dataset, number = (number_of(record, key, int, label) for key in ("data_set_id", "section_number"))
        place = self.image_source.places(dataset).get(id)
        if place is None:
            raise NotFoundError(
                f"{label} is not in image source {self.image_source.url}; use --image-source api",
                code="image-not-in-source",
            )
        resolution = number_of(record, "resolution", float, label)
        x, y, width, height = box
        crop = slide_crop(ImageOutline(id, number, x, y, width, height, resolution), place, resolution, downsample)
        if not crop.problem and crop.downsample != downsample:
            crop = replace(
                crop, problem=f"the image source has no downsample_{downsample}; {crop.downsample} is the next"
            )
        if crop.problem:
            raise ImageError(f"{label} cannot be fetched: {crop.problem}", code="not-in-image-source")
        if roi is not None:
            left, top, w, h = roi
            # The pixel that holds the corner: the crop of a tier may begin before the section does.
            column, row = (
                int((at - start + 0.0) // 2**downsample) for at, start in zip((left, top), crop.offset, strict=True)
            )
            if min(left, top) < 0 or min(w, h) < 1 or column + w > crop.width or row + h > crop.height:
                raise _outside(id, roi, (crop.width, crop.height), downsample)
            crop = crop.window((x, y), (column, row, column + w, row + h))
        _validate_size(id, crop.width, crop.height, downsample)
        return crop

    def fetch(self, request: ImageRequest) -> SectionImage:
        """Fetch a section image, from the cache or from its source, and validate it: a JPEG, if that is the API.

        An invalid answer is fetched again, as after any transient failure.

        Raises
        ------
        ImageError, ServiceError
            If no valid image is received after all retries.
        """
        if isinstance(request, SlideCrop):
            image = self.try_fetch_each(ImageFetch((request,)))[request]
            if isinstance(image, MissingImage):
                raise ImageError(
                    f"section image {request.image_id} is missing: {image.reason}", code="slide-image-missing"
                )
            return image
        url, key = request.url(self.api_url), request.key(self.api_url)
        if self.cache and (body := self.cache.get(key, request.largest_body)) is not None:
            with suppress(ImageError):
                return _decoded(request, body)
        image = self._http.get(url, request.largest_body, partial(_decoded, request))
        if self.cache:
            self.cache.put(key, image.body)
        return image

    def grid_url(self, id: int, include: Sequence[str]) -> str:
        """The URL of the expression grids of a section dataset: it is not below ``/api/v2``, but at the host's root."""
        root = self.api_url.removesuffix(_API_PATH)
        return f"{root}/grid_data/download/{rma.identifier(id)}?include={','.join(include)}"

    def grid(self, id: int, include: Sequence[str], parse: Callable[[bytes], _Parsed]) -> _Parsed:
        """Fetch the expression grids of a section dataset, from the cache or from the service.

        Parameters
        ----------
        id : int
            SectionDataSet id.
        include : sequence of str
            Of ``energy``, ``density`` and ``intensity``.
        parse : callable
            Validates and converts the zip. If it raises ImageError, the grids are fetched again, as after any transient
            failure.

        Raises
        ------
        NotFoundError
            If the dataset has no grids.
        ImageError, ServiceError
            If no valid answer is received after all retries.
        """
        url = self.grid_url(id, include)
        key = hashlib.sha256(url.encode()).hexdigest()
        if self.cache and (body := self.cache.get(key, _LARGEST_GRIDS)) is not None:
            with suppress(ImageError):
                return parse(body)
        try:
            body, parsed = self._http.get(url, _LARGEST_GRIDS, lambda body: (body, parse(body)))
        except ServiceError as error:
            if error.status != _NOT_FOUND:
                raise
            raise NotFoundError(
                f"section dataset {id} has no expression grids ({url} answered with HTTP status 404); build the "
                "dataset with its expression view, and measure that instead",
                code="grid-not-found",
            ) from None
        if self.cache:
            self.cache.put(key, body)
        return parsed

    def try_fetch(self, request: ImageRequest) -> SectionImage | MissingImage:
        """Same as `fetch`, but return failures instead of raising them."""
        if isinstance(request, SlideCrop):
            return self.try_fetch_each(ImageFetch((request,)))[request]
        try:
            return self.fetch(request)
        except (ImageError, ServiceError) as error:
            return MissingImage(request, request.url(self.api_url), str(error))

    def fetches(self, requests: Iterable[ImageRequest]) -> list[ImageFetch]:
        """How to fetch images so that no byte is fetched twice: one by one from the API, else those of a slide at once.

        The headers of the slides are read.
        """
        return single(requests) if self.image_source is None else self.image_source.fetches(requests, self.cache)

    def try_fetch_each(self, fetch: ImageFetch) -> Images:
        """Fetch the images of an `ImageFetch`, and return failures instead of raising them."""
        if self.image_source is None:
            return {request: self.try_fetch(request) for request in fetch.requests}
        return self.image_source.fetch(fetch, self.cache)

    def has_cached(self, request: ImageRequest) -> bool:
        """Whether the cache has an entry for an image of the API; the entry is not validated.

        Those of slides are in the `cached` of their `fetches`.
        """
        return self.cache is not None and request.key(self.api_url) in self.cache

    def _get(self, url: str) -> bytes:
        return self._http.get(url, _LARGEST_JSON, bytes)

    def _query(self, model: str, *args: Any, **options: Any) -> tuple[list[dict[str, Any]], int]:
        if self.catalogue is None:
            return rma.query(self._get, self.api_url, model, *args, **options)
        options["where"] = {key: rma.identifier(value) for key, value in (options.get("where") or {}).items()}
        return self.catalogue.query(model, *args, **options)

    @property
    def _is_missing(self) -> str:
        return "does not exist" if self.catalogue is None else f"is not in the catalogue {self.catalogue.url}"


def _without_slides(dataset: SectionDataset) -> SectionDataset:
    """A dataset whose images come from the API."""
    if all(section.slide is None for section in dataset.sections):
        return dataset
    return replace(dataset, sections=tuple(replace(section, slide=None) for section in dataset.sections))


def _outside(id: int, roi: tuple[int, ...], size: tuple[int, int], downsample: int) -> InputError:
    return InputError(
        f"region {','.join(map(str, roi))} is outside section image {id} of {size[0]} x {size[1]} pixels at "
        f"downsample {downsample} (left and top are full-resolution pixels)",
        code="region-outside-image",
    )


def _validate_size(id: int, width: int, height: int, downsample: int) -> None:
    if width * height > LARGEST_IMAGE:
        raise InputError(
            f"section image {id} has {width} x {height} pixels at downsample {downsample}, more than "
            f"{LARGEST_IMAGE:,}; use a larger downsample or a smaller region",
            code="image-too-large",
        )


def _decoded(request: ImageRequest, body: bytes) -> SectionImage:
    """The image in a body, validated by decoding it; the pixels stay in memory for their next use."""
    image = SectionImage(request, body)
    image.pixels()
    return image
