"""Writes a catalogue from the Allen API, page by page, so that a run that was killed is resumed at the page it reached.

Every page is an object of its own under ``unfinished/`` until the tables are written; ``catalogue.json`` is written
last, and no catalogue without it is read.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..engine.lock import KEYS as LOCK_KEYS
from ..engine.lock import owning
from ..engine.notebook import table_html
from ..errors import AtlaszarrError, InputError, NotFoundError, RecordError, ServiceError, TargetError
from ..stores.documents import LARGEST, json_bytes, parse_object
from ..stores.temporary import TEMPORARY
from ..versions import version
from .columns import DATASETS, IMAGES, Columns, Record
from .criteria import Criterion
from .files import DOCUMENT, FORMAT, VERSION, Document, read_document, write_document, write_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..stores.target import Target

#: `atlaszarr.allen.rma.query` of a client's API.
Query = Callable[..., tuple[list[dict[str, Any]], int]]
#: Called with the number of items done, their total, and their name.
Progress = Callable[[int, int, str], None]

#: Records of one request: the page of `atlaszarr.allen.rma`, at most about 6 MB.
PAGE = 2000
#: Section datasets whose images are asked for at once: with 20 to 60 images each, a page or two.
_DATASETS_AT_ONCE = 50
#: Ids of section datasets in one request: they fit in a URL.
_IDS_AT_ONCE = 200
#: Times that records are fetched if their number changes meanwhile.
_TRIES = 3
#: Ids in a message or in the list of changes of the document.
_MOST_NAMED = 20
_MOST_CHANGES = 1000
#: Largest object of a page, in bytes: `PAGE` records with their whole JSON are smaller than the answer, 16 MiB.
_LARGEST_PAGE = 2**26
#: Most section images of a dataset, the same as `atlaszarr.allen.records.MOST_SECTIONS`.
_MOST_IMAGES = 10_000
#: Most datasets: six times those of the Allen Institute. Their ids are kept in memory.
_MOST_DATASETS = 250_000
_PAGES, _REQUEST = "unfinished", "unfinished/request.json"


@dataclass
class CatalogueReport:
    """The outcome of writing a catalogue.

    Attributes
    ----------
    catalogue : str
        Its folder or URL.
    state : str
        ``written``, or ``already finished``.
    date : str
        When the first record was fetched, in UTC.
    datasets, images : int
        Number of records.
    misfits : int
        Records with a value that does not fit its column; they are kept as JSON.
    requests : int
        Requests to the API of this run.
    changes : list of str
        What changed at the service while the records were fetched; the catalogue has the later state.
    size : int
        Bytes of the tables.
    """

    catalogue: str
    state: str
    date: str
    datasets: int
    images: int
    misfits: int
    requests: int
    changes: list[str]
    size: int

    def to_dict(self) -> dict[str, Any]:
        """All attributes, as JSON types."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        return table_html("Catalogue", self.to_dict().items())


@dataclass
class _Snapshot:
    """A catalogue that is being written."""

    query: Query
    target: Target
    progress: Progress | None
    begun: dict[str, Any]
    requests: int = 0

    def fetch(self, columns: Columns, criteria: Sequence[Criterion], **options: Any) -> tuple[list[Record], int]:
        self.requests += 1
        return self.query(columns.model, criteria, **options)

    def note(self, change: str) -> None:
        """Record a change at the service."""
        self.begun["changes"] = [*self.begun["changes"], change][:_MOST_CHANGES]
        self.target.write(_REQUEST, json_bytes(self.begun))


@dataclass(frozen=True)
class _Unit:
    """Records that are fetched together, in pages.

    Attributes
    ----------
    columns : Columns
    name : str
        Beginning of the names of its pages.
    criteria : tuple of Criterion
    most : int
        Number of records beyond which the answer of the service is refused.
    datasets : frozenset of int
        Ids of the section datasets that the records are, or belong to; empty for all.
    product : str, optional
        Abbreviation of a product that each section dataset has.
    """

    columns: Columns
    name: str
    criteria: tuple[Criterion, ...]
    most: int
    datasets: frozenset[int] = frozenset()
    product: str | None = None

    def key(self, page: int, last: bool) -> str:
        return f"{_PAGES}/{self.name}-{page:05d}{'-last' if last else ''}.parquet"


def write_catalogue(
    query: Query,
    target: Target,
    request: dict[str, Any],
    *,
    product: str | None = None,
    ids: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> CatalogueReport:
    """Write a catalogue; see `AllenClient.write_catalogue`.

    Parameters
    ----------
    query : callable
    target : Target
    request : dict
        What the content of the catalogue depends on, as JSON values: the URL of the API.
    product, ids, progress
        See `AllenClient.write_catalogue`.
    """
    chosen = None if ids is None else sorted(set(ids))
    if chosen is not None and not 0 < len(chosen) <= _MOST_DATASETS:
        raise InputError(f"{len(chosen)} ids are not between 1 and {_MOST_DATASETS:,}", code="out-of-range")
    selection = None if chosen is None else {"count": len(chosen), "crc32": _checksum(chosen)}
    request = {**request, "product": product, "ids": selection}
    units = _dataset_units(product, chosen)
    for criterion in units[0].criteria:
        str(criterion)  # validates the text before anything is written
    if (finished := _finished(target, request)) and not target.list_keys(_PAGES):
        return finished
    if finished is None:
        _refuse_others(target)
    with owning(replace(target, url=f"{target.url}/{_PAGES}")):
        if finished := _finished(target, request):  # by a process that had the lock, or was killed after that
            _remove_pages(target)
            return finished
        snapshot = _Snapshot(query, target, progress, _begin(target, request))
        names = set(target.list_keys(_PAGES))
        total = None if chosen is None else len(chosen)
        for unit in units:
            total = _complete(snapshot, unit, names, total)
        dataset_ids = _ids(snapshot, units, names)
        try:
            _validate_ids(dataset_ids, chosen, product)
        except AtlaszarrError:
            _remove_pages(target)
            raise
        image_units = _image_units(dataset_ids)
        for done, unit in enumerate(image_units):
            if progress:
                progress(done * _DATASETS_AT_ONCE, len(dataset_ids), "images of datasets")
            _complete(snapshot, unit, names)
        if progress:
            progress(len(dataset_ids), len(dataset_ids), "images of datasets")
        datasets = _same(_tables(snapshot, units, names), dataset_ids)
        tables = {
            columns.file: write_table(target, columns, _groups(parts, columns.group))
            for columns, parts in ((DATASETS, datasets), (IMAGES, _tables(snapshot, image_units, names)))
        }
        write_document(
            target,
            {
                "format": FORMAT,
                "version": VERSION,
                "atlaszarr": version(),
                "date": snapshot.begun["date"],
                "finished": _now(),
                "request": request,
                "changes": snapshot.begun["changes"],
                "files": {name: table.to_dict() for name, table in tables.items()},
            },
        )
        _remove_pages(target)
    return _report(target, read_document(target), "written", snapshot.requests)


def _report(target: Target, document: Document, state: str, requests: int) -> CatalogueReport:
    tables = document.tables.values()
    return CatalogueReport(
        catalogue=target.url,
        state=state,
        date=document.date,
        datasets=document.tables[DATASETS.file].rows,
        images=document.tables[IMAGES.file].rows,
        misfits=sum(table.misfits for table in tables),
        requests=requests,
        changes=list(document.changes),
        size=sum(table.size for table in tables),
    )


def _finished(target: Target, request: dict[str, Any]) -> CatalogueReport | None:
    """The report of the finished catalogue in a target; InputError if it is of another request."""
    if DOCUMENT not in target.sizes(DOCUMENT):
        return None
    document = read_document(target)
    _validate_request(target, document.request, request)
    return _report(target, document, "already finished", 0)


def _refuse_others(target: Target) -> None:
    """Raise InputError for a target that holds something else than a catalogue that was begun."""
    keys = target.list_keys()
    own: tuple[str, ...] = tuple(f"{_PAGES}/{key}" for key in LOCK_KEYS)
    if _REQUEST in keys:  # written first: without it, tables and pages are those of another program
        own = (f"{_PAGES}/", DATASETS.file, IMAGES.file)
    own = (*own, ".", f"{_PAGES}/.", TEMPORARY)  # what a killed process was writing
    if others := [key for key in (*keys, *target.links()) if not key.startswith(own)]:
        raise InputError(
            f"{target.url} is not empty (it holds {others[0]!r}); choose another folder", code="target-not-empty"
        )


def _remove_pages(target: Target) -> None:
    """Remove the pages, and last the record of what was begun, by which they are known."""
    target.remove_each(key for key in target.list_keys(_PAGES) if key != _REQUEST)
    target.remove(_PAGES)
    target.tidy(["", _PAGES])


def _begin(target: Target, request: dict[str, Any]) -> dict[str, Any]:
    """What is recorded of a catalogue that was begun in a target; written if there is nothing."""
    if (body := target.read(_REQUEST, LARGEST)) is not None:
        try:
            begun = parse_object(body)
            valid = all(isinstance(text, str) for text in (begun["date"], *begun["changes"]))
        except (ValueError, KeyError, TypeError):
            valid = False
        if not valid:
            raise InputError(
                f"{target.url}/{_REQUEST} is damaged, so the catalogue cannot be resumed; remove {_PAGES}, or choose "
                "another folder",
                code="damaged-file",
            )
        _validate_request(target, begun.get("request"), request)
        return begun
    begun = {"date": _now(), "request": request, "changes": []}
    target.write(_REQUEST, json_bytes(begun))
    return begun


def _validate_request(target: Target, stored: Any, request: dict[str, Any]) -> None:
    if stored != request:
        known = stored if isinstance(stored, dict) else {}
        names = [name for name in request if known.get(name) != request[name]]
        before, now = (", ".join(f"{name} {each.get(name)}" for name in names) for each in (known, request))
        raise InputError(
            f"catalogue {target.url} was begun with {before}, not with {now}; give the same options, or choose another "
            "folder",
            code="different-options",
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _checksum(ids: Sequence[int]) -> int:
    return zlib.crc32(np.asarray(ids, np.int64).tobytes())


def _dataset_units(product: str | None, chosen: Sequence[int] | None) -> list[_Unit]:
    criteria = () if product is None else (Criterion("abbreviation", "eq", product, "products", name="product"),)
    if chosen is None:
        return [_Unit(DATASETS, "datasets", criteria, _MOST_DATASETS, product=product)]
    parts = [chosen[start : start + _IDS_AT_ONCE] for start in range(0, len(chosen), _IDS_AT_ONCE)]
    return [
        _Unit(
            DATASETS, f"datasets-{n:05d}", (*criteria, Criterion("id", "in", part)), len(part), frozenset(part), product
        )
        for n, part in enumerate(parts)
    ]


def _image_units(ids: NDArray[np.int64]) -> list[_Unit]:
    units = []
    for number, start in enumerate(range(0, len(ids), _DATASETS_AT_ONCE)):
        part = ids[start : start + _DATASETS_AT_ONCE].tolist()
        name = f"images-{number:05d}-{_checksum(part):08x}"  # of other datasets, a page is another object
        criteria = (Criterion("data_set_id", "in", part),)
        units.append(_Unit(IMAGES, name, criteria, _MOST_IMAGES * len(part), frozenset(part)))
    return units


def _complete(snapshot: _Snapshot, unit: _Unit, names: set[str], total: int | None = None) -> int | None:
    """Fetch the pages of a unit that are missing; return the total for the progress."""
    for _ in range(_TRIES):
        if _is_complete(unit, names):
            return total
        pages = len(_pages(unit, names))
        after = _last_id(snapshot.target, unit.key(pages - 1, last=False)) if pages else 0
        if after is None:
            _discard(snapshot, unit, names)
            continue
        while True:
            criteria = [*unit.criteria, Criterion("id", "gt", after)]
            records, left = snapshot.fetch(unit.columns, criteria, include=unit.columns.include, limit=PAGE)
            if pages * PAGE + left > unit.most:
                raise ServiceError(
                    f"the Allen API has {pages * PAGE + left:,} {unit.columns.model} records that were asked for, more "
                    f"than the maximum of {unit.most:,}; select section datasets by product or ids",
                    code="too-many-rows",
                )
            if total is None and not pages:
                total = left
            if snapshot.progress and unit.columns is DATASETS and total:
                snapshot.progress(min(total, pages * PAGE + len(records)), total, "datasets")
            after = _validate_page(unit, records, after)
            last = left == len(records)
            if last and pages and (change := _change(snapshot, unit, names, records)):
                snapshot.note(change)
                _discard(snapshot, unit, names)
                break
            key = unit.key(pages, last)
            snapshot.target.write(key, _page_bytes(unit.columns.table(records)))
            names.add(key)
            if last:
                return total
            pages += 1
    raise _changed_each_time(unit.columns)


def _changed_each_time(columns: Columns) -> RecordError:
    return RecordError(
        f"the {columns.model} records of the Allen API changed each of {_TRIES} times that they were fetched; run the "
        "same command again later",
        code="matches-changed",
    )


def _pages(unit: _Unit, names: set[str]) -> list[str]:
    """The pages of a unit in order, as far as they are all there."""
    keys: list[str] = []
    while (key := unit.key(len(keys), last=False)) in names or (key := unit.key(len(keys), last=True)) in names:
        keys.append(key)
    return keys


def _is_complete(unit: _Unit, names: set[str]) -> bool:
    return bool((pages := _pages(unit, names)) and pages[-1] == unit.key(len(pages) - 1, last=True))


def _discard(snapshot: _Snapshot, unit: _Unit, names: set[str]) -> None:
    pages = [name for name in names if name.startswith(f"{_PAGES}/{unit.name}-")]
    snapshot.target.remove_each(pages)
    names.difference_update(pages)


def _validate_page(unit: _Unit, records: Sequence[Record], after: int) -> int:
    """The id of the last record of a page; ServiceError if the ids do not increase, or of other datasets."""
    model = unit.columns.model
    for record in records:
        id = record.get("id")
        if isinstance(id, bool) or not isinstance(id, int) or id <= after:
            raise ServiceError(
                f"the Allen API was asked for {model} records in order of id after {after}, but answered with id "
                f"{id!r:.40}; try again",
                code="unexpected-answer",
            )
        after = id
        dataset = record.get(unit.columns.order[0])
        if unit.datasets and dataset not in unit.datasets:
            raise ServiceError(
                f"the Allen API was asked for {model} records of {len(unit.datasets)} section datasets, but answered "
                f"with record {id} of section dataset {dataset!r:.40}; try again",
                code="wrong-record",
            )
        if unit.product is not None and not _has_product(record, unit.product):
            raise ServiceError(
                f"the Allen API was asked for section datasets of product {unit.product!r}, but answered with section "
                f"dataset {id} of other products; try again",
                code="wrong-record",
            )
    return after


def _has_product(record: Record, product: str) -> bool:
    """Whether a section dataset has a product; the service may compare text in any case."""
    products = record.get("products")
    names = [each.get("abbreviation") for each in products if isinstance(each, dict)] if products else []
    return any(isinstance(name, str) and name.casefold() == product.casefold() for name in names)


def _change(snapshot: _Snapshot, unit: _Unit, names: set[str], records: Sequence[Record]) -> str | None:
    """What changed while the pages of a unit were fetched, of which `records` is the last; None for nothing."""
    held = [_read_page(snapshot.target, key, ["id"]) for key in _pages(unit, names)]
    if any(page is None for page in held):
        return f"a page of {unit.columns.model} records was damaged, and is fetched again"
    ids = {id for page in held if page is not None for id in page.column("id").to_pylist()}
    ids |= {record["id"] for record in records}
    _, total = snapshot.fetch(unit.columns, unit.criteria, limit=1, only=["id"])
    if total == len(ids):
        return None
    now = {record["id"] for record in snapshot.fetch(unit.columns, unit.criteria, only=["id"])[0]}
    snapshot.requests += max(0, -(-len(now) // PAGE) - 1)
    parts = [
        f"{len(found)} {word}: {', '.join(map(str, sorted(found)[:_MOST_NAMED]))}{', ...' * (len(found) > _MOST_NAMED)}"
        for word, found in (("added", now - ids), ("removed", ids - now))
        if found
    ]
    return f"{unit.columns.model} records, {len(ids)} before and {total} after: {'; '.join(parts) or 'unknown'}"


def _page_bytes(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", write_page_checksum=True)
    return out.getvalue()


def _read_page(target: Target, key: str, columns: list[str] | None = None) -> pa.Table | None:
    """A page that was written; None if it is missing or damaged."""
    body = target.read(key, _LARGEST_PAGE)
    try:
        return (
            None if body is None else pq.read_table(io.BytesIO(body), columns=columns, page_checksum_verification=True)
        )
    except (pa.ArrowException, OSError):
        return None


def _last_id(target: Target, key: str) -> int | None:
    page = _read_page(target, key, ["id"])
    return None if page is None or not len(page) else int(page.column("id")[-1].as_py())


def _tables(snapshot: _Snapshot, units: Sequence[_Unit], names: set[str]) -> Iterator[pa.Table]:
    """The records of each unit, sorted; a unit with a damaged page is fetched again."""
    for unit in units:
        for _ in range(_TRIES):
            pages = [_read_page(snapshot.target, key) for key in _pages(unit, names)]
            tables = [page for page in pages if page is not None and page.schema.equals(unit.columns.schema)]
            if len(tables) == len(pages):
                break
            _discard(snapshot, unit, names)
            _complete(snapshot, unit, names)
        else:
            raise TargetError(
                f"{snapshot.target.url}/{_PAGES} had a damaged page of {unit.columns.model} records each of {_TRIES} "
                "times that it was written; choose another folder",
                code="damaged-file",
            )
        table = pa.concat_tables(tables)
        yield table.sort_by([(name, "ascending") for name in unit.columns.order])


def _groups(tables: Iterator[pa.Table], least: int) -> Iterator[pa.Table]:
    """Tables as row groups of at least so many rows, or as there are; the images of one dataset stay together."""
    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        size = least if "data_set_id" not in table.column_names else max(len(table), 1)
        for start in range(0, len(table), size):
            held.append(table.slice(start, size))
            rows += len(held[-1])
            if rows >= least:
                yield pa.concat_tables(held)
                held, rows = [], 0
    if rows:
        yield pa.concat_tables(held)


def _same(tables: Iterator[pa.Table], ids: NDArray[np.int64]) -> Iterator[pa.Table]:
    """Tables of section datasets; RecordError if they are others than those whose images were fetched."""
    position = 0
    for table in tables:
        if not np.array_equal(table.column("id").to_numpy(), ids[position : position + len(table)]):
            raise _changed_each_time(DATASETS)
        position += len(table)
        yield table


def _ids(snapshot: _Snapshot, units: Sequence[_Unit], names: set[str]) -> NDArray[np.int64]:
    """The ids of all section datasets, in order."""
    parts = [table.column("id").to_numpy() for table in _tables(snapshot, units, names)]
    return np.concatenate([np.empty(0, np.int64), *parts])


def _validate_ids(found: NDArray[np.int64], chosen: Sequence[int] | None, product: str | None) -> None:
    if chosen is not None and (missing := sorted(set(chosen) - set(found.tolist()))):
        named = ", ".join(map(str, missing[:_MOST_NAMED])) + ", ..." * (len(missing) > _MOST_NAMED)
        of = "" if product is None else f" in product {product!r}"
        raise NotFoundError(
            f"section datasets {named} ({len(missing)} of {len(chosen)} ids) do not exist{of}; leave them out",
            code="dataset-not-found",
        )
    if not len(found):
        raise NotFoundError(
            f"product {product!r} has no section dataset; `atlaszarr search` lists the products of datasets",
            code="dataset-not-found",
        )
    if len(found) > _MOST_DATASETS:
        raise InputError(f"{len(found):,} section datasets are more than {_MOST_DATASETS:,}", code="too-many-rows")
