"""Parquet files of other programs: the texts and numbers of a table, with the figures to bound it before it is read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

#: The bytes by which a Parquet file begins and ends.
MAGIC = b"PAR1"
_P = ParamSpec("_P")
_T = TypeVar("_T")


class UnreadableTableError(ValueError):
    """A Parquet file is damaged or not supported; the message is the name of the fault."""


def _naming_faults(read: Callable[_P, _T]) -> Callable[_P, _T]:
    """Raise an `UnreadableTableError` for what pyarrow raises."""

    @functools.wraps(read)
    def reading(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        import pyarrow as pa

        try:
            return read(*args, **kwargs)
        except (pa.ArrowException, KeyError, OSError, UnicodeDecodeError) as error:
            raise UnreadableTableError(type(error).__name__) from None

    return reading


class ParquetTable:
    """A table in Parquet.

    Parameters
    ----------
    body : bytes

    Attributes
    ----------
    columns : list of str
        Names of all columns.
    rows : int
    size : int
        Bytes, uncompressed, by its metadata.

    Raises
    ------
    UnreadableTableError
        If it is not a Parquet file, or its metadata is damaged.
    """

    @_naming_faults
    def __init__(self, body: bytes) -> None:
        import pyarrow as pa  # takes a third of a second
        import pyarrow.parquet as pq

        self._body = pa.BufferReader(body)
        metadata, self._schema = (read(pa.BufferReader(body)) for read in (pq.read_metadata, pq.read_schema))
        self.columns: list[str] = self._schema.names
        self.rows: int = metadata.num_rows
        # Not by column: pyarrow ends the process if the metadata of a column contradicts itself.
        self.size: int = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))

    @_naming_faults
    def values(self) -> dict[str, list[Any]]:
        """The values of the columns of texts, then of those of numbers, by name; other columns are not read.

        Texts are read as a dictionary: one that repeats in every row is stored once in the file, and so it is in
        memory: equal texts are one object.

        Raises
        ------
        UnreadableTableError
            If a page is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {field.name: field.type for field in self._schema}
        texts = [name for name, kind in kinds.items() if pa.types.is_string(kind) or pa.types.is_large_string(kind)]
        numbers = [name for name, kind in kinds.items() if pa.types.is_integer(kind) or pa.types.is_floating(kind)]
        file = pq.ParquetFile(self._body, read_dictionary=texts)
        table = file.read([*texts, *numbers], use_threads=False)
        table.validate(full=True)  # the numbers of texts in the dictionaries, and that texts are UTF-8
        return {column: _values(table.column(column)) for column in table.column_names}


def _values(column: Any) -> list[Any]:
    """The values of a column; equal texts are one object."""
    values: list[Any] = []
    for chunk in column.chunks:
        if hasattr(chunk, "dictionary"):
            texts = chunk.dictionary.to_pylist()
            values += [None if index is None else texts[index] for index in chunk.indices.to_pylist()]
        else:
            values += chunk.to_pylist()
    return values
