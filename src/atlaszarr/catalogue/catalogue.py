"""A finished catalogue that is open for reading: it answers the queries of a client of the Allen API."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import InputError, ServiceError
from ..stores.locations import shown
from ..stores.target import Target
from .criteria import Criterion

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from .columns import Columns
    from .files import Document, StoredTable

#: Maximum number of records of a query: the same as of the Allen API in `atlaszarr.allen.rma`.
_MAX_ROWS = 250_000
#: Columns of text that the criteria of a search and a list of genes need.
_GENES = ("genes_id", "genes_acronym")


class Catalogue:
    """A finished catalogue. Safe to use from many threads; a pickled copy opens its own files.

    Parameters
    ----------
    location : str or path-like
        A folder, or any URL that fsspec opens.
    storage_options : mapping, optional
        Options for a URL.

    Raises
    ------
    InputError
        If the location does not hold a finished catalogue of this version, or it is damaged.
    """

    def __init__(self, location: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> None:
        self._target = Target.of(location, storage_options)
        self._forget()
        self.document = self._read()

    @property
    def url(self) -> str:
        """The folder or URL, without secrets."""
        return shown(self._target.url)

    @property
    def provenance(self) -> dict[str, str]:
        """The folder or URL, and ``date`` and ``sha256`` of ``catalogue.json``."""
        return {"url": self.url, "date": self.document.date, "sha256": self.document.sha256}

    @cached_property
    def document(self) -> Document:
        """The content of ``catalogue.json``."""
        return self._read()

    def _read(self) -> Document:
        from .files import read_document

        return read_document(self._target)

    def _forget(self) -> None:
        self._tables: dict[str, StoredTable] = {}
        self._image_ids: NDArray[np.int64] | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        # A worker that only fetches images reads nothing of the catalogue.
        return {"_target": self._target}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def table(self, model: str) -> StoredTable:
        """The open table of a model, ``SectionDataSet`` or ``SectionImage``.

        Raises
        ------
        InputError
            If it is damaged.
        """
        from .columns import BY_MODEL
        from .files import StoredTable

        with self._lock:
            if model not in self._tables:
                columns = BY_MODEL[model]
                self._tables[model] = StoredTable(self._target, columns, self.document.tables[columns.file])
            return self._tables[model]

    def query(
        self,
        model: str,
        criteria: Sequence[Criterion] = (),
        include: Sequence[str] = (),
        limit: int | None = None,
        *,
        where: Mapping[str, int] | None = None,
        only: Sequence[str] = (),
        most: int = _MAX_ROWS,
    ) -> tuple[list[dict[str, Any]], int]:
        """The records that meet all criteria, in order of id; the same as `atlaszarr.allen.rma.query` of the API.

        Parameters
        ----------
        model : str
            ``SectionDataSet``, ``SectionImage`` or ``Gene``; genes are those of the section datasets in the catalogue.
        criteria : sequence of Criterion
        include : sequence of str
            Associations, in RMA's syntax; the others may be missing in the records.
        limit : int, optional
            Maximum number of records.
        where : mapping, optional
            Required whole-number values of attributes.
        only : sequence of str
            Attributes that the caller needs; the records may have others.
        most : int
            Number of records beyond which the answer is refused.

        Returns
        -------
        records : list of dict
        matches : int
            The number of records that meet the criteria, regardless of `limit`.

        Raises
        ------
        InputError
            If a criterion is invalid, or the catalogue is damaged.
        ServiceError
            If there are more than `most` records.
        """
        wanted = _validated(criteria, where)
        if model == "Gene":
            records, matches = self._genes(wanted, limit)
        else:
            records, matches = self._rows(model, wanted, include, limit, only, most)
        return records, matches

    def matching(self, model: str, criteria: Sequence[Criterion], where: Mapping[str, int]) -> NDArray[np.int64]:
        """The rows of a table that meet all criteria, in order; see `query`."""
        return self._matching(self.table(model), _validated(criteria, where))

    def _rows(
        self,
        model: str,
        criteria: Sequence[Criterion],
        include: Sequence[str],
        limit: int | None,
        only: Sequence[str],
        most: int,
    ) -> tuple[list[dict[str, Any]], int]:
        import numpy as np

        table = self.table(model)
        rows = self._matching(table, criteria)
        count = len(rows) if limit is None else min(len(rows), limit)
        if count > most:
            raise ServiceError(
                f"the catalogue {self.url} has {count} such rows, more than the maximum of {most}; set a limit",
                code="too-many-rows",
            )
        columns = _needed(table.columns, include, only)
        groups = np.searchsorted(table.starts, rows, side="right") - 1
        records: list[dict[str, Any]] = []
        by_id = table.columns.order[0] == "id"
        for group in np.unique(groups).tolist():
            if by_id and len(records) >= count:  # the rows are in order of id
                break
            within = rows[groups == group] - table.starts[group]
            records += table.records(table.read_group(group, columns).take(within))
        if not by_id:
            records.sort(key=_id)
        return records[:count], len(rows)

    def _matching(self, table: StoredTable, criteria: Sequence[Criterion]) -> NDArray[np.int64]:
        """The rows that meet all criteria, in order."""
        import numpy as np

        key = table.columns.order[0]
        ids = [_numbers(each) for each in criteria if each.attribute == key and not each.association]
        if not criteria:
            return np.arange(table.rows)
        if key == "data_set_id" and not ids:
            return self._images(criteria)
        names = sorted({_column(each) for each in criteria})
        found = [np.empty(0, np.int64)]
        for position, (low, high) in enumerate(table.ranges):
            if all(any(low <= id <= high for id in each) for each in ids):
                mask = _mask(table.read_group(position, names), criteria)
                found.append(np.flatnonzero(mask) + table.starts[position])
        return np.concatenate(found)

    def _images(self, criteria: Sequence[Criterion]) -> NDArray[np.int64]:
        """The rows of section images with an id."""
        import numpy as np

        (criterion,) = criteria
        if self._image_ids is None:
            self._image_ids = self.table("SectionImage").read(["id"]).column("id").to_numpy()
        return np.flatnonzero(np.isin(self._image_ids, _numbers(criterion)))

    def _genes(self, criteria: Sequence[Criterion], limit: int | None) -> tuple[list[dict[str, Any]], int]:
        table = self.table("SectionDataSet").read(list(_GENES))
        ids, acronyms = ([item for row in table.column(name).to_pylist() for item in row or ()] for name in _GENES)
        genes = {id: acronym for id, acronym in zip(ids, acronyms, strict=True) if acronym is not None}
        tests = [_test(each) for each in criteria]
        matching = sorted(
            ((id, acronym) for id, acronym in genes.items() if all(test(acronym) for test in tests)),
            key=lambda gene: (gene[0] is not None, gene[0] or 0),
        )
        return [{"id": id, "acronym": acronym} for id, acronym in matching[:limit]], len(matching)


def _validated(criteria: Sequence[Criterion], where: Mapping[str, int] | None) -> list[Criterion]:
    """All criteria, whose texts are validated in the same way as for the API."""
    wanted = [*(Criterion(key, "eq", value) for key, value in (where or {}).items()), *criteria]
    for criterion in wanted:
        str(criterion)
    return wanted


def _id(record: Mapping[str, Any]) -> Any:
    id: Any = record.get("id")
    return id


def _needed(columns: Columns, include: Sequence[str], only: Sequence[str]) -> list[str]:
    """The columns for a query: without the alignments, which are most of a row, unless it includes them."""
    from .columns import WHOLE

    if only:
        return [*only, WHOLE]
    return columns.without({"alignment3d", "alignment2d"} - set(include))


def _column(criterion: Criterion) -> str:
    return f"{criterion.association}_{criterion.attribute}".lstrip("_")


def _numbers(criterion: Criterion) -> list[int]:
    """The numbers of a criterion with ``eq`` or ``in``."""
    value = criterion.value
    if criterion.operator not in ("eq", "in") or isinstance(value, str):
        raise InputError(f"criterion {criterion} is not supported by a catalogue", code="not-supported")
    return [value] if isinstance(value, int) else list(value)


def _test(criterion: Criterion) -> Callable[[Any], bool]:
    """Whether a text meets a criterion."""
    value = str(criterion.value)
    if criterion.operator == "eq":
        return lambda text: bool(text == value)
    if criterion.operator != "il":
        raise InputError(f"criterion {criterion} is not supported by a catalogue", code="not-supported")
    pattern = re.compile(".*".join(map(re.escape, value.lower().split("*"))), re.DOTALL)
    return lambda text: isinstance(text, str) and pattern.fullmatch(text.lower()) is not None


def _mask(table: pa.Table, criteria: Iterable[Criterion]) -> NDArray[np.bool_]:
    """The rows of a table that meet all criteria."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    mask = np.ones(len(table), np.bool_)
    for criterion in criteria:
        column = table.column(_column(criterion)).combine_chunks()
        parents = np.arange(len(table))
        if pa.types.is_list(column.type):
            parents, column = pc.list_parent_indices(column).to_numpy(), pc.list_flatten(column)
        if isinstance(criterion.value, str):
            test = _test(criterion)
            matching = [text for text in pc.unique(column).to_pylist() if test(text)]
            meets = pc.is_in(column, pa.array(matching, pa.string()))
        else:
            meets = pc.is_in(column, pa.array(_numbers(criterion), pa.int64()))
        mask[np.setdiff1d(np.arange(len(table)), parents[meets.to_numpy(zero_copy_only=False)])] = False
    return mask
